"""Batch jobs.

jobs         jobs in the journal, and the items in them
spool        requests cut into chunks, and the file of each
submission   each chunk uploaded once, and submitted once
pending      items that wait for their answers
results      the output of an ended job, matched by key
collector    what becomes of the items of an ended job
farewell     what a cancelled session has left to tell the service
gatherer     the jobs of a session
tables       tables of jobs and answers, for `manual`
manual       jobs by hand: `GeminiBatches`
"""
