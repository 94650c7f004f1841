"""Opening: a plan meets what the journal has of it.

Rule: the same name continues.  What is final stays as recorded; timeouts,
transient failures, cancelled, skipped and unrecorded items run again, new
keys are added, and a key whose input changed runs again.

A list that has not changed is recognised by its hash and needs one walk over
the recorded items.  A changed list, or a generator, is matched by key.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from ipybatch.engine import ledger
from ipybatch.engine.drawing import Emit, Listing, Walk, draw
from ipybatch.engine.events import Counts, Status
from ipybatch.engine.journal import Journal
from ipybatch.engine.plan import MEDIUM, Keying, Plan, Task, queued_by_priority
from ipybatch.engine.schema import SEQ


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What a session wants to open.

    Attributes:
        skip: Why an item need not run ("" if it must); decided once, kept in the plan.
        rank: What runs first; decided once, kept in the plan.
        priority: What runs before all ranks: a place in `plan.PRIORITIES`; decided once, kept in the plan.
        again: Final statuses that run again all the same: what `retry_failed` asks for.
    """

    name: str
    resource: str
    group_word: str
    keying: Keying
    code_hash: bytes | None
    fresh: bool
    skip: Callable[[Any], str] | None = None
    rank: Callable[[Any], int] | None = None
    priority: Callable[[Any], int] | None = None
    again: frozenset[Status] = frozenset()


class Opened(msgspec.Struct):
    """A run, and what of it is still to do.

    Attributes:
        source: The tasks to run, in the order they should.
        counts: Where the session starts from.
        listing: Of a generator.
        queued: How many tasks of each priority there are; None where all have the same.
    """

    run: int
    source: Iterator[Task]
    counts: Counts
    notes: list[str] = msgspec.field(default_factory=list)
    listing: Listing | None = None
    queued: list[int] | None = None


def open_list(journal: Journal, opening: Opening, tasks: Plan, now_s: float) -> Opened:
    """Find or make the run of a list whose keys were checked."""
    found = _find(journal, opening)
    has_order = opening.rank is not None or opening.priority is not None
    tasks.is_ordered = has_order or (found is not None and bool(found.is_ordered))
    if found is None:
        run, notes = _plan_anew(journal, opening, tasks, now_s), []
    else:
        run, notes = found.run, _note_changes(found, opening)
        _match(journal, found, opening, tasks, now_s)
    recorded = _recorded(journal, run, opening.again)
    kept: Counter[str] = Counter()
    todo = []
    for task in tasks:
        status, digest = recorded.get(task.seq, _UNRECORDED)
        if status == "pending" or digest != task.digest:
            todo.append(task)
        else:
            kept[status] += 1
    counts = Counts(total=len(tasks), pending=len(todo), **kept)
    if tasks.is_ordered:
        todo.sort(key=lambda task: (task.priority, task.rank))
    return Opened(run, iter(todo), counts, notes, queued=queued_by_priority(todo) if tasks.is_ordered else None)


def open_drawn(
    journal: Journal, opening: Opening, items: Iterable[Any], emit: Emit, clock_s: Callable[[], float]
) -> Opened:
    """Find or make the run of a generator, whose items are matched as they are drawn."""
    found = _find(journal, opening)
    notes = [] if found is None else _note_changes(found, opening)
    if found is None:
        run = journal.write(lambda db: _create(db, opening, clock_s()))
    else:
        run = found.run
        journal.write(lambda db: ledger.forget_plan(db, run))
    walk = None if found is None else Walk(journal.connect(), run, opening.again)
    listing = Listing()
    source = draw(iter(items), opening.keying, walk, listing=listing, emit=emit, clock_s=clock_s)
    return Opened(run, source, Counts(total=None), notes, listing)


_UNRECORDED: tuple[Status, str] = ("pending", "")


def _find(journal: Journal, opening: Opening) -> ledger.Found | None:
    if opening.fresh:
        return None
    with journal.reader() as database:
        return ledger.find(database, opening.name)


def _create(database: sqlite3.Connection, opening: Opening, now_s: float) -> int:
    run = ledger.create(database, opening.name, resource=opening.resource, group_word=opening.group_word, now_s=now_s)
    database.execute("UPDATE run SET code_hash = ? WHERE id = ?", (opening.code_hash, run))
    return run


def _plan_anew(journal: Journal, opening: Opening, tasks: Plan, now_s: float) -> int:
    reasons = decide(opening, tasks)

    def unit(database: sqlite3.Connection) -> int:
        run = _create(database, opening, now_s)
        ledger.write_plan(database, run, tasks)
        ledger.skip(database, run, reasons, now_s)
        return run

    run: int = journal.write(unit)
    return run


def decide(opening: Opening, tasks: Sequence[Task]) -> list[tuple[Task, str]]:
    """Give new tasks their rank and priority, and return those that need not run, each with the reason."""
    for task in tasks if opening.rank is not None or opening.priority is not None else ():
        task.rank = opening.rank(task.item) if opening.rank is not None else 0
        task.priority = opening.priority(task.item) if opening.priority is not None else MEDIUM
    if opening.skip is None:
        return []
    return [(task, reason) for task in tasks if (reason := opening.skip(task.item))]


def preview(database: sqlite3.Connection, found: ledger.Found, tasks: Plan) -> Counts:
    """Return where a session would start from, before it does; at most one look at the recorded items."""
    counts = Counts()
    final = f"FROM item WHERE id >= {ledger.ids(found.run)[0]} AND id < {ledger.ids(found.run)[1]} AND final"
    if found.plan_hash == tasks.hash:
        for status, items in database.execute(f"SELECT status, count(*) {final} GROUP BY status"):  # numbers
            counts.add(status, items)
    else:
        listed = {task.key: task.digest for task in tasks}
        for key, status, digest in database.execute(f"SELECT key, status, digest {final}"):  # numbers
            if listed.get(key) == digest:
                counts.add(status)
    counts.total, counts.pending = len(tasks), len(tasks) - counts.ended
    return counts


def _note_changes(found: ledger.Found, opening: Opening) -> list[str]:
    if found.code_hash is None or opening.code_hash is None or found.code_hash == opening.code_hash:
        return []
    return ["the work function changed since this session began: what is recorded stays as it is"]


def _match(journal: Journal, found: ledger.Found, opening: Opening, tasks: Plan, now_s: float) -> None:
    """Give every task the seq it is recorded under, and record the plan if it changed."""
    if found.plan_hash == tasks.hash:
        if found.listing is not None:
            for task, seq in zip(tasks, found.listing, strict=True):
                task.seq = seq
        if found.is_ordered:
            with journal.reader() as database:
                for task, planned in zip(tasks, ledger.read_plan(database, found), strict=True):
                    task.rank, task.priority, task.added = planned.rank, planned.priority, planned.added
        return
    known, first_free = _known(journal, found)
    listed = {task.key for task in tasks}
    new: list[Task] = []
    for task in tasks:
        before = known.get(task.key)
        if before is None:
            task.seq, first_free = first_free, first_free + 1
            new.append(task)
        else:
            task.seq, task.rank, task.priority, task.added = before.seq, before.rank, before.priority, before.added
    tasks.extend(task for task in known.values() if task.added and task.item is not None and task.key not in listed)
    tasks.forget_hash()
    reasons = decide(opening, new)

    def unit(database: sqlite3.Connection) -> None:
        ledger.write_plan(database, found.run, tasks)
        ledger.skip(database, found.run, reasons, now_s)

    journal.write(unit)


def _known(journal: Journal, found: ledger.Found) -> tuple[dict[str, Task], int]:
    with journal.reader() as database:
        first, after = ledger.ids(found.run)
        known = {
            key: Task(id_ & SEQ, key, None)
            for id_, key in database.execute("SELECT id, key FROM item WHERE id >= ? AND id < ?", (first, after))
        }
        known.update((task.key, task) for task in ledger.read_plan(database, found))
    return known, max((task.seq for task in known.values()), default=-1) + 1


def _recorded(journal: Journal, run: int, again: frozenset[Status]) -> dict[int, tuple[Status, str]]:
    first, after = ledger.ids(run)
    with journal.reader() as database:
        rows = database.execute(
            "SELECT id, status, digest FROM item WHERE id >= ? AND id < ? AND final", (first, after)
        )
        return {id_ & SEQ: (status, digest) for id_, status, digest in rows if status not in again}
