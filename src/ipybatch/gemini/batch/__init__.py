"""Batch jobs.

jobs         jobs in the journal, and the items in them
submission   requests cut into jobs, each submitted once
results      the results of a job, and the items that wait for them
gatherer     the jobs of a session
manual       jobs by hand: `GeminiBatches`
"""
