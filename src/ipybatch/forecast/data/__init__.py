"""A user's demand table: its columns, its clean rows, and its partitions.

reading      from anything a user hands over to one raw frame
frame        frames of any package as one of pandas
text_file    from bytes to cells: encoding, separator
sheet        which sheet of a spreadsheet, and its cells
grid         from cells to a table with titles
columns      which column is which, and how its dates are read
names        sites and parts, as numbers
problems     what is wrong with a row
table        the clean table, and the problems of its rows
partitions   the sets of rows that are trained separately
"""
