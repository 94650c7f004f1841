"""Run: the only part that runs: one start of a session on the engine's thread.

run            one start: open, run, close
live_status    how it stands meanwhile, for the views
runner         the loop: attempts and commits
slots          its workers, and how what they run is stopped
feedback       what an end tells breaker and limiter
attempt        what a work function asks for: `Attempt`
permits        further permits, handed out and given back
engine_thread  the thread that all sessions of a process share
watchdog       says what keeps its loop from turning
"""
