"""Data: what is said between the parts; no behaviour but checks.

policy   limits, retry, breaker, as users give them
spec     everything that says how a session runs
items    what a user gives as items, tables too, as a list
plan     items as tasks with keys
events   what happens, as frozen types
outcome  how an item ended; results as JSON
fact     a figure of the row above a session's table
masking  secrets out of every text; an error as one line
clock    the time as a parameter
local_time  what a clock on the wall says: zones, the next 22:00, working hours
lenient_json  JSON that strict readers refuse
loop_call  a function handed to the thread of an event loop
after_turns  a call a few turns of the event loop later
"""
