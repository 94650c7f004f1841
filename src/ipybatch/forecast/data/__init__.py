"""A user's demand table: its columns, its clean rows, and its partitions.

reading      from anything a user hands over to one raw frame
columns      which column is which, and how its dates are read
names        sites and parts, as numbers
problems     what is wrong with a row
table        the clean table, and the problems of its rows
partitions   the sets of rows that are trained separately
"""
