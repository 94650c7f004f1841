"""A user's demand table: its columns, its clean rows, and its partitions.

reading        from anything a user hands over to one raw frame
frame          frames of any package as one of pandas
text_file      from bytes to cells: encoding, separator
sheet          which sheet of a spreadsheet, and its cells
grid           from cells to a table with titles
headings       what a heading speaks for
columns        which column is which
date_cells     every day that one cell may be
dates          which of them it is, by all cells of its column
numbers        decimal and thousands marks, by all cells of a column
periods        how far apart the dates lie, and which lie far from all others
understanding  how a table was read, and what the user is asked
names          sites and parts, as numbers
duplicates     names that may be one
totals         names whose rows sum up all others
problems       what is wrong with a row
repairs        what is put right when the user asks for it
table          the clean table, and the problems of its rows
partitions     the sets of rows that are trained separately
"""
