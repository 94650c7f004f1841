"""Session: what a user holds.

session        BatchSession
arguments      what it takes, and the checks
workload       work that is more than one function
live_sessions  which sessions run here, and what is recorded of the others
waiting        for the end, for outcomes; progress in a terminal
"""
