"""Session: what a user holds.

session        BatchSession
control        its base: how it is started, and what it can be told to do
arguments      what it takes, and the checks
workload       work that is more than one function
follower       a session that another process runs, as its journal tells it
live_sessions  which sessions run here, and what is recorded of the others
waiting        for the end, for outcomes; progress in a terminal
"""
