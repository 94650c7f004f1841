"""Run: the only part that runs: one start of a session on the engine's thread.

run            one start: open, run, close; its live status
runner         the loop: workers, attempts, commits
permits        what a work function asks for: `Attempt`, further permits
engine_thread  the thread that all sessions of a process share
"""
