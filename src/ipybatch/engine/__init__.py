"""Engine: the parts that run a session; knows no Jupyter, no HTTP, no pandas.

data   what is said           rules  pure decisions
store  the journal            feed   events and their fold
run    the loop
"""
