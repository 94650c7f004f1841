"""Attempts in processes of their own.

Read in this order:

backend            `Processes`: the backend, and attempts in new interpreters (macOS, Windows)
supervisor_client  the session's end of the supervisor (Linux)
keeper             the parent of the supervisor, which ends what a killed supervisor leaves (Linux)
supervisor         the process that forks, watches and kills attempts (Linux)
attempt_process    the process of one attempt, as the supervisor sees it
worker_main        the process of one attempt
protocol           messages between these processes, and the errors of an attempt without an answer
process_tree       the processes below a process, read from /proc
tree_memory        the memory that they take
"""
