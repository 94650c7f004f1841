"""Changing: what may be changed of a list while it runs: its order, and how long it is.

Rule: a change is in the plan before it takes effect.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from ipybatch.engine.data.plan import Plan, Task, canonical
from ipybatch.engine.data.spec import Spec
from ipybatch.engine.store import resume, run_store


def wanting(wanted: Callable[[Any], bool] | Iterable[Any]) -> Callable[[Task], bool]:
    """Return whether a task is wanted, by a function of its item or by the keys of some."""
    if callable(wanted):
        return lambda task: bool(wanted(task.item))
    keys = {canonical(key) for key in ([wanted] if isinstance(wanted, str) else wanted)}
    return lambda task: task.key in keys


def prioritize(
    tasks: Plan, book: run_store.RunStore, wanted: Callable[[Task], bool], priority: int, now_s: float
) -> int:
    """Give tasks another priority; return how many."""
    changed = [task for task in tasks if task.priority != priority and wanted(task)]
    for task in changed:
        task.priority = priority
    if changed:
        tasks.is_ordered = True
        book.write(lambda database: run_store.write_plan(database, book.run, tasks), now_s)
    return len(changed)


def add(
    tasks: Plan, book: run_store.RunStore, spec: Spec, items: Iterable[object], now_s: float
) -> tuple[list[Task], int]:
    """Add the items whose keys are new; return the tasks that are to run, and how many need not.

    Raises:
        InputError: An item has no key that JSON can hold; nothing is added.
    """
    new = _new(tasks, spec, items)
    reasons = resume.decide(spec, new)
    if new:
        tasks.extend(new)
        tasks.forget_hash()
        tasks.is_ordered = True

        def unit(database: sqlite3.Connection) -> None:
            run_store.extend_plan(database, book.run, tasks, new)
            run_store.skip(database, book.run, reasons, now_s)

        book.write(unit, now_s)
    skipped = {task.seq for task, _ in reasons}
    return [task for task in new if task.seq not in skipped], len(skipped)


def _new(tasks: Plan, spec: Spec, items: Iterable[object]) -> list[Task]:
    keys = {task.key for task in tasks}
    seq = max((task.seq for task in tasks), default=-1) + 1
    new: list[Task] = []
    for item in items:
        task = spec.keying.task(seq, item)
        if task.key not in keys:
            keys.add(task.key)
            task.added, seq = True, seq + 1
            new.append(task)
    return new
