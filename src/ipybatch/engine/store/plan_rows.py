"""Plan rows: the tasks of a run as its plan has them on record, up to `PART` a row.

What is changed afterwards stands beside them: items that the work brought, and
changes of priority, which are read with the tasks.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator, Sequence

import msgspec

from ipybatch.engine.data.plan import OrderedRow, Plan, Task, from_row, to_row
from ipybatch.engine.store.run_store import Found
from ipybatch.engine.store.schema import SEQ_BITS, ids

PART = 1000  # tasks a row of the plan

_encode = msgspec.json.Encoder().encode
decode_plan = msgspec.json.Decoder(list[OrderedRow]).decode
_decode_change = msgspec.json.Decoder(tuple[int, list[int]]).decode


def read_plan(database: sqlite3.Connection, found: Found) -> Iterator[Task]:
    """Yield the recorded tasks in plan order."""
    changes: dict[int, int] = {}
    for (change,) in database.execute(
        "SELECT tasks FROM plan WHERE run = ? AND part < 0 ORDER BY part DESC", (found.run,)
    ):
        priority, seqs = _decode_change(change)
        changes.update(dict.fromkeys(seqs, priority))
    at = 0
    for (part,) in database.execute("SELECT tasks FROM plan WHERE run = ? AND part >= 0 ORDER BY part", (found.run,)):
        for row in decode_plan(part):
            seq = row.seq if row.seq is not None else at if found.listing is None else found.listing[at]
            at += 1
            task = from_row(seq, row)
            if changes:
                task.priority = changes.get(seq, task.priority)
            yield task


def write_plan(database: sqlite3.Connection, run: int, tasks: Plan) -> None:
    """Record the tasks of a list, in place of what was there."""
    identity = all(task.seq == at for at, task in enumerate(tasks))
    listing = None if identity else array("q", [task.seq for task in tasks]).tobytes()
    database.execute("DELETE FROM plan WHERE run = ?", (run,))
    database.executemany(
        "INSERT INTO plan VALUES (?, ?, ?)",
        (
            (run, part, _encode([to_row(task) for task in tasks[at : at + PART]]))
            for part, at in enumerate(range(0, len(tasks), PART))
        ),
    )
    database.execute(
        "UPDATE run SET plan_hash = ?, listing = ?, total = ?, is_ordered = ? WHERE id = ?",
        (tasks.hash, listing, len(tasks), int(tasks.is_ordered), run),
    )


def extend_plan(database: sqlite3.Connection, run: int, new: Sequence[Task], total: int) -> None:
    """Record tasks that are added to the end of a list, with their numbers; what is there of the others stays.

    The hash is left empty: the user's own list has another one, and is matched by its keys from now on.
    """
    (part,) = database.execute(
        "SELECT coalesce(max(part), -1) + 1 FROM plan WHERE run = ? AND part >= 0", (run,)
    ).fetchone()
    rows = [to_row(task, seq=task.seq) for task in new]
    database.execute("INSERT INTO plan VALUES (?, ?, ?)", (run, part, _encode(rows)))
    database.execute("UPDATE run SET plan_hash = x'', total = ?, is_ordered = 1 WHERE id = ?", (total, run))


def change_priorities(database: sqlite3.Connection, run: int, priority: int, seqs: Sequence[int]) -> None:
    """Record another priority of some tasks; what is there of them stays, and is read with the change."""
    (part,) = database.execute(
        "SELECT coalesce(min(part), 0) - 1 FROM plan WHERE run = ? AND part < 0", (run,)
    ).fetchone()
    database.execute("INSERT INTO plan VALUES (?, ?, ?)", (run, part, _encode((priority, seqs))))
    database.execute("UPDATE run SET is_ordered = 1 WHERE id = ?", (run,))


def forget_plan(database: sqlite3.Connection, run: int) -> None:
    """Let a run have no list: a generator gives its items from now on, and numbers what the list had not begun."""
    database.execute("DELETE FROM plan WHERE run = ?", (run,))
    database.execute("UPDATE run SET plan_hash = NULL, listing = NULL, total = NULL WHERE id = ?", (run,))


def skip(database: sqlite3.Connection, run: int, reasons: Sequence[tuple[Task, str]], now_s: float) -> None:
    """Record tasks that the plan leaves out, each with its reason."""
    base = run << SEQ_BITS
    database.executemany(
        "INSERT OR REPLACE INTO item VALUES (?, ?, ?, 'skipped', 1, 0, 0, 0.0, ?, ?, 0, '')",
        ((base + task.seq, task.key, task.digest, now_s, reason) for task, reason in reasons),
    )
    database.executemany("DELETE FROM traceback WHERE id = ?", ((base + task.seq,) for task, _ in reasons))


def skipped(database: sqlite3.Connection, run: int) -> dict[str, int]:
    """Return how many tasks the plan left out, by what their reasons say before the colon."""
    rows = database.execute(
        "SELECT substr(error, 1, instr(error || ':', ':') - 1) reason, count(*) FROM item"
        " WHERE id >= ? AND id < ? AND status = 'skipped' AND attempts = 0 GROUP BY reason",
        ids(run),
    )
    return dict(rows.fetchall())
