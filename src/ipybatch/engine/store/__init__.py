"""Store: the journal, and all that is read from it and written to it.

journal       one SQLite file, group commit
schema        its tables, step by step
lease         who may write and delete a run
run_store     one run under its lease
removal       runs that are forgotten or pruned
commands      what other processes ask a run's owner to do
plan_rows     the tasks of a plan as rows
rows          attempts as rows, and rows as items
commit_queue  entries of the loop, committed together
resume        items meet what is recorded
drawing       those of a generator, read in a thread
resources     windows and cool-downs that outlive a process
limit_store   what decides for processes that share a resource
limit_schema  the tables of the file in which they do so
shared_limiter  a process's limits: what may start
allowance     what the store has counted for it and has not started yet
store_link    what passes between the two
courier       threads that wait for a store which is a network away
atomic_write  files that appear whole or not at all
"""
