"""Resume: the items of a session meet what the journal has of them.

Rule: the same name continues.  What is final stays as recorded; timeouts,
transient failures, cancelled, skipped and unrecorded items run again, new
keys are added, and a key whose input changed runs again (where answers are
paid: only if its user said so).

    list       --> plan --> matched at once, by its hash or by key --> tasks to run
    generator  --> drawn one by one, each matched in a walk        --> tasks to run

A list that has not changed is recognised by its hash and needs one walk over
the recorded items.  A changed list, or a generator, is matched by key.

A list may change while it runs: its priorities, and items that the work adds.
Such a change is in the recorded plan before it takes effect.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from ipybatch.engine.data.events import Counts, Status
from ipybatch.engine.data.items import ItemList
from ipybatch.engine.data.masking import describe, mask
from ipybatch.engine.data.plan import MEDIUM, Again, Plan, Task, canonical, key_value, queued_by_priority, short
from ipybatch.engine.data.policy import as_count
from ipybatch.engine.data.spec import Spec
from ipybatch.engine.store import plan_rows, run_store
from ipybatch.engine.store.drawing import Drawing, Emit, Listing, Walk
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.run_store import RecordedCounts, RunStore
from ipybatch.engine.store.schema import SEQ, ids
from ipybatch.errors import InputError

T = TypeVar("T")


class Opened(msgspec.Struct):
    """What of a run is still to do.

    Attributes:
        source: The tasks to run, in the order they should; None while a generator's next one is being read.
        counts: Where the session starts from.
        queued: How many tasks of each priority there are; None where all have the same.
        recorded: What is on record beside what the snapshot counts.
        drawing: A generator's items, over all starts; None for a list.
    """

    source: Iterator[Task | None]
    counts: Counts
    recorded: RecordedCounts
    notes: list[str] = msgspec.field(default_factory=list)
    queued: list[int] | None = None
    drawing: Drawing | None = None


class Items:
    """The items of a session over all its starts.

    Each start matches with the journal what it has: the plan of a list; of a generator, which gives its items once,
    what an earlier start drew and may have to run again. Others may have run the session meanwhile, or forgotten it.

    Attributes:
        plan: The checked list; None for a generator.
        run: The number of the run of the latest start; 0 before.
    """

    def __init__(self, given: Iterable[Any], plan: Plan | None) -> None:
        self.given, self.plan = given, plan
        self.run = 0
        self._epoch = 0
        self._listing = Listing()
        self._drawing: Drawing | None = None
        self._owed: deque[Task] = deque()
        self._recorded = RecordedCounts()

    @property
    def is_drawn(self) -> bool:
        """Whether a generator was begun."""
        return self._drawing is not None

    @property
    def listing(self) -> array[int] | None:
        """The order in which a generator gave its items, by seq; None for that of the seqs, and for lists."""
        return self._listing.order

    @property
    def outdated(self) -> dict[int, str | None]:
        """What a generator gave again with another input, by seq, and is not recorded anew; see `RecordedCounts`."""
        return self._recorded.outdated

    def anew(self) -> Items:
        """Return the items as the user gave them, for a session that was forgotten."""
        if self.plan is not None:
            self.plan.reset()
        return Items(self.given, self.plan)

    def open(
        self,
        store: RunStore,
        spec: Spec,
        *,
        again: Again,
        emit: Emit,
        clock_s: Callable[[], float],
    ) -> Opened:
        """Match the items with what is recorded of the run, and return what is to do.

        Args:
            store: The run, under its lease.
            again: What runs again though it has an outcome.

        Raises:
            InputError: Of a generator's items some ran to their end, and are on record no more.
            JournalError: The journal refuses.
        """
        is_same = store.run == self.run
        is_own = is_same and store.lease.epoch == self._epoch + 1
        if self.plan is not None:
            if not is_same and (self.run or store.found is None):
                self.plan.reset()
            for task in self.plan:
                task.attempts = 0
            opened = open_list(store, spec, self.plan, again, clock_s())
        else:
            holds_all = spec.on_failure == "rollback"
            drawing = self._drawing or Drawing(
                self.given, spec.keying, listing=self._listing, holds_all=holds_all, emit=emit, clock_s=clock_s
            )
            opened = self._open_generator(store, spec, drawing, again, clock_s, is_own=is_own, is_same=is_same)
            self._drawing = drawing
        self.run, self._epoch = store.run, store.lease.epoch
        return opened

    def listen(self, *, on_ask: Callable[[], None], on_read: Callable[[], None]) -> None:
        """Call ``on_ask`` when a generator is asked for items, and ``on_read`` from its thread when they are there."""
        if self._drawing is not None:
            self._drawing.reader.on_ask, self._drawing.reader.on_read = on_ask, on_read

    def put_back(self, tasks: Iterable[Task]) -> None:
        """Take back what a start of a generator's session leaves: what did not complete, and what waits."""
        if self._drawing is not None:
            held, matched = self._drawing.held, self._drawing.matched
            held += (*tasks, *self._owed, *matched)
            self._owed.clear()
            matched.clear()

    def _open_generator(
        self,
        store: RunStore,
        spec: Spec,
        drawing: Drawing,
        again: Again,
        clock_s: Callable[[], float],
        *,
        is_own: bool,
        is_same: bool,
    ) -> Opened:
        """Match what of a generator was drawn; till the rest is, all that is recorded counts."""
        found, run = store.found, store.run
        is_known = found is not None or drawing.drawn > 0
        walk = Walk(store.journal.connect(), run, again) if is_known else None
        recorded = RecordedCounts()
        if found is not None and walk is not None:
            is_changed = found.settings not in (None, spec.keying.settings_hash)
            known = (seq for seq, _ in walk.statuses()) if is_changed else array("q", found.outdated or b"")
            recorded.outdated = dict.fromkeys(known)
        self.put_back(())
        try:
            counts, todo = drawing.match_again(walk, recorded, is_own=is_own, is_same=is_same)
        except InputError as error:
            msg = f"session {spec.name!r} was forgotten or begun anew elsewhere: {error}"
            raise InputError(msg) from None
        self._owed, self._recorded = deque(todo), recorded
        if found is not None and not is_own:
            store.write(lambda database: plan_rows.forget_plan(database, run), clock_s())
        notes = [] if found is None else _note_changes(found, spec)
        return Opened(self._draw_on(drawing), counts, recorded, notes, drawing=drawing)

    def _draw_on(self, drawing: Drawing) -> Iterator[Task | None]:
        """Yield what is owed, then what the generator still gives."""
        while self._owed:
            yield self._owed.popleft()
        yield from drawing.tasks()


def open_list(store: RunStore, spec: Spec, tasks: Plan, again: Again, now_s: float) -> Opened:
    """Match a list whose keys were checked with what is recorded.

    Raises:
        InputError: Items have paid answers to another input on record; nothing is changed.
    """
    found = store.found
    if found is not None and not spec.replaces:
        with store.journal.reader() as database:
            check_paid(database, found, spec, tasks)
    has_order = spec.rank is not None or spec.priority is not None
    tasks.is_ordered = has_order or (found is not None and bool(found.is_ordered))
    if found is None:
        _plan_anew(store, spec, tasks, now_s)
    else:
        _match(store, found, spec, tasks, now_s)
    recorded = _recorded(store)
    tasks.first_free = max(recorded, default=-1) + 1
    kept: Counter[str] = Counter()
    outdated: dict[int, str | None] = {}
    todo = []
    for task in tasks:
        _, status, is_final, digest = recorded.get(task.seq, _UNRECORDED)
        task.recorded = ""
        if digest != task.digest:  # what is recorded answers another question
            todo.append(task)
            if task.seq in recorded:
                outdated[task.seq] = task.digest
        elif again.spares(task.key) if status in again.statuses else is_final:
            kept[status] += 1
        else:
            task.recorded = status
            todo.append(task)
    counts = Counts(total=len(tasks), pending=len(todo), **kept)
    if tasks.is_ordered:
        todo.sort(key=lambda task: (task.priority, task.rank))
    queued = queued_by_priority(todo) if tasks.is_ordered else None
    notes = [] if found is None else _note_changes(found, spec)
    return Opened(iter(todo), counts, RecordedCounts(stale=_stale(todo), outdated=outdated), notes, queued)


def _stale(todo: Iterable[Task]) -> Counter[Status]:
    return Counter(task.recorded for task in todo if task.recorded)


_Recorded = tuple[int, Status | Literal[""], bool, str]  # seq, status, whether it is final, digest
_UNRECORDED: _Recorded = (-1, "", False, "")


def _plan_anew(store: RunStore, spec: Spec, tasks: Plan, now_s: float) -> None:
    reasons = decide(spec, tasks)

    def unit(database: sqlite3.Connection) -> None:
        plan_rows.write_plan(database, store.run, tasks)
        plan_rows.skip(database, store.run, reasons, now_s)

    store.write(unit, now_s)


def decide(spec: Spec, tasks: Sequence[Task]) -> list[tuple[Task, str]]:
    """Give new tasks their rank and priority, and return those that need not run, each with the reason.

    Raises:
        InputError: A function of the user's raised, or returned what it must not; names it and the item.
    """
    for task in tasks if spec.rank is not None or spec.priority is not None else ():
        rank = _ask("rank", spec.rank, task, _is_rank, "a whole number") if spec.rank is not None else 0
        task.rank = int(rank)  # numpy's becomes Python's, which SQLite stores
        task.priority = _ask("priority", spec.priority, task) if spec.priority is not None else MEDIUM
    if spec.skip is None:
        return []
    words = 'a text: why the item need not run, "" if it must'
    given = ((task, _ask("skip", spec.skip, task, _is_reason, words)) for task in tasks)
    return [(task, mask(" ".join(reason.split()))[:_REASON]) for task, reason in given if reason]


_REASON = 500  # characters, as of an error


def _ask(
    field: str,
    function: Callable[[Any], T],
    task: Task,
    is_right: Callable[[Any], bool] = lambda value: True,
    must: str = "",
) -> T:
    try:
        value = function(task.item)
    except InputError as error:
        msg = f"{error}, for item {task.label}"
        raise InputError(msg) from error
    except KeyboardInterrupt:  # not the function's
        raise
    except BaseException as error:
        msg = f"{field}= raised {describe(error)} for item {task.label}"
        raise InputError(msg) from error
    if not is_right(value):
        msg = f"{field}= must return {must}, got {short(value)} for item {task.label}"
        raise InputError(msg)
    return value


def _is_rank(value: Any) -> bool:
    count = as_count(value)
    return count is not None and abs(count) < 2**63


def _is_reason(value: Any) -> bool:
    return value is None or isinstance(value, str)


def check_paid(database: sqlite3.Connection, found: run_store.Found, spec: Spec, tasks: Plan) -> None:
    """Refuse items that would take the place of paid answers to another input, unless the session replaces them.

    Paid is what has an answer on record, also of an item that failed; what failed without one runs again.

    Raises:
        InputError: Counts them, names the first, and says what to pass.
    """
    if spec.replaces:
        return
    listed = {task.key: task.digest for task in tasks}
    recorded = database.execute(
        "SELECT key, digest FROM item WHERE id >= ? AND id < ? AND (status = 'completed' OR has_result) ORDER BY id",
        ids(found.run),
    )
    changed = [key for key, digest in recorded if listed.get(key, digest) != digest]
    if not changed:
        return
    named = ", ".join(short(key_value(key)) for key in changed[:_NAMED])
    more = f" and {len(changed) - _NAMED:,} more" if len(changed) > _NAMED else ""
    msg = (
        f"{len(changed):,} of {len(tasks):,} items of {spec.name!r} have paid answers on record, and they or what is"
        f" sent with them changed since: {named}{more}. Pass fresh=True for a new run, replace=True to pay again for"
        " these, or another name= to keep both"
    )
    raise InputError(msg)


_NAMED = 5  # keys in a message


def preview(database: sqlite3.Connection, found: run_store.Found, tasks: Plan) -> Counts:
    """Return where a session would start from, before it does; at most one look at the recorded items."""
    counts = Counts()
    first, after = ids(found.run)
    final = "FROM item WHERE id >= ? AND id < ? AND final"
    if found.plan_hash == tasks.hash and found.listing is None and not any(task.digest for task in tasks):
        after = first + len(tasks)
        query = f"SELECT status, count(*) {final} AND digest = '' GROUP BY status"  # constants
        for status, items in database.execute(query, (first, after)):
            counts.add(status, items)
    else:
        listed = {task.key: task.digest for task in tasks}
        for key, status, digest in database.execute(f"SELECT key, status, digest {final}", (first, after)):
            if listed.get(key) == digest:
                counts.add(status)
    counts.total, counts.pending = len(tasks), len(tasks) - counts.ended
    return counts


def _note_changes(found: run_store.Found, spec: Spec) -> list[str]:
    if None in (found.code_hash, spec.work.code_hash) or found.code_hash == spec.work.code_hash:
        return []
    return ["the work function changed since this session began: what is recorded stays as it is"]


def _match(store: RunStore, found: run_store.Found, spec: Spec, tasks: Plan, now_s: float) -> None:
    """Give every task the seq it is recorded under, and record the plan if it changed."""
    if found.plan_hash == tasks.hash:
        for task, seq in zip(tasks, range(len(tasks)) if found.listing is None else found.listing, strict=True):
            task.seq, task.rank, task.priority, task.added = seq, 0, MEDIUM, False
        if found.is_ordered:
            with store.journal.reader() as database:
                for task, planned in zip(tasks, plan_rows.read_plan(database, found), strict=True):
                    task.rank, task.priority, task.added = planned.rank, planned.priority, planned.added
        return
    known, first_free = _known(store.journal, found)
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
    reasons = decide(spec, new)

    def unit(database: sqlite3.Connection) -> None:
        plan_rows.write_plan(database, found.run, tasks)
        plan_rows.skip(database, found.run, reasons, now_s)

    store.write(unit, now_s)


def _known(journal: Journal, found: run_store.Found) -> tuple[dict[str, Task], int]:
    with journal.reader() as database:
        first, after = ids(found.run)
        known = {
            key: Task(id_ & SEQ, key, None)
            for id_, key in database.execute("SELECT id, key FROM item WHERE id >= ? AND id < ?", (first, after))
        }
        known.update((task.key, task) for task in plan_rows.read_plan(database, found))
    return known, max((task.seq for task in known.values()), default=-1) + 1


def _recorded(store: RunStore) -> dict[int, _Recorded]:
    first, after = ids(store.run)
    with store.journal.reader() as database:
        rows = database.execute(
            "SELECT id - ?, status, final, digest FROM item WHERE id >= ? AND id < ?", (first, first, after)
        )
        return {row[0]: row for row in rows.fetchall()}


class Wanted:
    """Which tasks are meant: by a function of their items, or by their keys.

    Raises:
        InputError: JSON cannot hold a key.
    """

    def __init__(self, wanted: Callable[[Any], bool] | Iterable[Any]) -> None:
        self._test = wanted if callable(wanted) else None
        try:
            is_one = isinstance(wanted, str) or as_count(wanted) is not None
            given = [] if callable(wanted) else [wanted] if is_one else list(wanted)
            self._keys = dict.fromkeys(map(canonical, given))
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            msg = f"wanted must be a function of an item, or the keys of some, got {short(wanted)} ({error})"
            raise InputError(msg) from None

    def among(self, tasks: Plan, since: int = 0) -> list[Task]:
        """Return the tasks that are meant.

        Args:
            since: So many of the first were looked at before.
        """
        if self._test is not None:
            return [task for task in tasks[since:] if self._test(task.item)]
        return [task for task in tasks[since:] if task.key in self._keys] if since else tasks.find(self._keys)


def prioritize(tasks: Plan, store: RunStore, meant: Iterable[Task], priority: int, now_s: float) -> list[Task]:
    """Record that tasks have another priority; return those that had not, which the caller gives it to."""
    changed = [task for task in meant if task.priority != priority]
    if changed:
        seqs = [task.seq for task in changed]
        store.write(lambda database: plan_rows.change_priorities(database, store.run, priority, seqs), now_s)
        tasks.is_ordered = True
    return changed


def add(tasks: Plan, store: RunStore, spec: Spec, more: ItemList, now_s: float) -> tuple[list[Task], int]:
    """Add the items whose keys are new; return the tasks that are to run, and how many need not.

    Raises:
        InputError: An item has no key that JSON can hold; nothing is added.
    """
    new = _new(tasks, spec, more)
    reasons = decide(spec, new)
    if new:

        def unit(database: sqlite3.Connection) -> None:
            plan_rows.extend_plan(database, store.run, new, len(tasks) + len(new))
            plan_rows.skip(database, store.run, reasons, now_s)

        store.write(unit, now_s)
        tasks.add(new)
    skipped = {task.seq for task, _ in reasons}
    return [task for task in new if task.seq not in skipped], len(skipped)


def _new(tasks: Plan, spec: Spec, more: ItemList) -> list[Task]:
    seq = tasks.next_seq
    given: dict[str, Task] = {}
    for at, item in enumerate(more.items):
        key = None if more.keys is None or spec.keying.key is not None else (more.keys[at],)
        task = spec.keying.task(at, item, key)
        given.setdefault(task.key, task)
    known = {task.key for task in tasks.find(given)}
    new = [task for key, task in given.items() if key not in known]
    for place, task in enumerate(new):
        task.seq, task.added = seq + place, True
    return new
