"""Models: from a partition's rows to its forecasts and intervals.

matrix            rows as a matrix, and the error measures
series_models     models of single series, and seasonality
life              which series are new, and which dead
global_model      one regression over all series
prior             what small partitions borrow from the whole table
baselines         models that an evaluation shows beside
model_registry    every model by name, those of other packages included
intervals         prediction intervals from the errors of trials
model_selection   the model of each series, and a partition's forecasts
thread_limit      one thread each, where they are trained in threads
warm_up           what packages do when they are first used, done once for all processes
"""
