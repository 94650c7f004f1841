"""A user's demand table: its columns, its clean rows, and its partitions.

columns      which column is which, and how its dates are read
table        the clean table, and the problems of its rows
partitions   the sets of rows that are trained separately
"""
