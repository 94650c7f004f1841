"""Schedules: the same work again and again: every night, every six hours, or by a rule of cron.

    ipybatch.schedules.add("night", "refresh", every="1d", at="22:00")

A schedule is a row of the journal.  What is due is submitted by any Jupyter server of yours that runs, or by
`python -m ipybatch schedule run-due` from cron; each time is made once, however many of them look.  Each time is a
new run, with a session of its own: "night 2026-12-01 22:00".
"""

from __future__ import annotations

from ipybatch.schedules.schedule import (
    Schedule,
    add,
    answer,
    list,  # noqa: A004  # ipybatch.schedules.list()
    next_times,
    pause,
    remove,
    resume,
    run_due,
    run_now,
)

__all__ = ["Schedule", "add", "answer", "list", "next_times", "pause", "remove", "resume", "run_due", "run_now"]
