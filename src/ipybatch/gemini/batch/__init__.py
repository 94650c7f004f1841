"""Batch jobs.

jobs         jobs in the journal, and the items in them
spool        requests cut into chunks, and the file of each
submission   each chunk uploaded once, and submitted once
results      the results of a job, and the items that wait for them
gatherer     the jobs of a session
manual       jobs by hand: `GeminiBatches`
"""
