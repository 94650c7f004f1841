"""Drawing: the items of a generator, read in a thread of their own and matched with what is recorded.

Rule: no code of a user's generator runs on the engine's loop.  It may fetch
pages or read files for as long as it likes: other sessions run on meanwhile,
and Pause and Cancel work.  (Without threads it does run there, a chunk at a time.)

    generator --thread--> chunk of 1 to 256 tasks, or of 5 ms --loop--> matched in a walk --> tasks to run

A hand-over from thread to loop costs 16 us, hence the chunks.  One is read
ahead, and none is larger than what runs in a tenth of a second: items may be
heavy, and a generator may depend on what became of earlier ones.  The same
thread reads all of a generator, because some hold what belongs to one thread
(a database cursor).

One subject, hence its length: one item's way from the generator to its task.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
import weakref
from array import array
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.background import HAS_THREADS
from ipybatch.engine.data.events import Counts, Status
from ipybatch.engine.data.items import EXHAUSTED
from ipybatch.engine.data.masking import describe
from ipybatch.engine.data.plan import Again, Keying, SeenKeys, Task
from ipybatch.engine.store import run_store
from ipybatch.engine.store.run_store import RecordedCounts
from ipybatch.engine.store.schema import SEQ, ids
from ipybatch.errors import InputError

CHUNK = 256
CHUNK_S = 0.005
_RUNS_S = 0.1  # chunks that run in less are doubled
_STRIDE = 500
GIVE_ANEW = "its items were drawn from a generator, which gives them once: make the session anew with a new one"

Emit = Callable[[events.Event], None]
Clock = Callable[[], float]
Recorded = tuple[int, str, Status, bool, str]  # seq, key, status, whether a resume keeps it, digest


class Chunk(msgspec.Struct, frozen=True):
    """Some tasks, and whether that was all, or what the generator raised after them."""

    tasks: list[Task]
    is_last: bool
    error: BaseException | None


class _Read(msgspec.Struct):
    """What the thread has read, for the loop to take at any time.

    Attributes:
        is_last: Set after the last task; ``error`` too.
    """

    tasks: deque[Task] = msgspec.field(default_factory=deque)
    is_last: bool = False
    error: BaseException | None = None


_Wanted = queue.SimpleQueue["tuple[int, Callable[[], None]] | None"]  # how many items, and whom to tell


class ItemReader:
    """Read an iterable in a thread of its own, a chunk at a time, as it is asked.

    Attributes:
        is_reading: Whether the thread is at it.
        on_ask: Called when it is asked for a chunk. What there is may be taken before the chunk is whole: after
            `CHUNK_S` the generator may block for long.
        on_read: Called from the thread, when the chunk is there.
    """

    def __init__(self, items: Iterable[Any], keying: Keying) -> None:
        self.is_reading = False
        self.on_ask: Callable[[], None] = _nothing
        self.on_read: Callable[[], None] = _nothing
        self._wanted: _Wanted = queue.SimpleQueue()
        self._read = _Read()
        arguments = (items, keying, self._wanted, self._read)
        self._thread = threading.Thread(target=_serve, args=arguments, name="ipybatch-items", daemon=True)
        self._chunks = None if HAS_THREADS else _chunks(items, keying, self._read)
        self._is_over = False
        weakref.finalize(self, self._wanted.put, None)  # else the thread would wait for ever

    def ask(self, size: int) -> None:
        """Let the next chunk be read, unless one is being read or waits, or there are no more."""
        if self.is_reading or self._read.tasks or self._is_over:
            return
        self.is_reading = True
        self.on_ask()
        if self._chunks is not None:
            self._chunks.send(size)
            self._end()
            return
        if not self._thread.ident:
            self._thread.start()
        self._wanted.put((size, self._end))

    def take(self) -> Chunk | None:
        """Return what has been read; None while that is nothing."""
        read = self._read
        is_last, error = read.is_last, read.error  # before the tasks, which come first
        tasks = [read.tasks.popleft() for _ in range(len(read.tasks))]
        self._is_over = is_last or error is not None
        return Chunk(tasks, is_last, error) if tasks or self._is_over else None

    def _end(self) -> None:
        self.is_reading = False
        self.on_read()


def _nothing() -> None:
    pass


def _serve(items: Iterable[Any], keying: Keying, wanted: _Wanted, read: _Read) -> None:
    """Serve an `ItemReader`, which this thread does not keep alive."""
    chunks = _chunks(items, keying, read)
    while not read.is_last and read.error is None and (request := wanted.get()) is not None:
        size, end = request
        chunks.send(size)
        end()
        del request, end


def _chunks(items: Iterable[Any], keying: Keying, read: _Read) -> Generator[None, int, None]:
    """Return what reads a chunk of the size that it is sent, again and again."""
    chunks = _read_chunks(items, keying, read)
    next(chunks)
    return chunks


def _read_chunks(items: Iterable[Any], keying: Keying, read: _Read) -> Generator[None, int, None]:
    iterator: Iterator[Any] | None = None
    drawn = 0
    while True:
        size = yield
        until_s, until = time.monotonic() + CHUNK_S, drawn + size
        try:
            iterator = iter(items) if iterator is None else iterator
            for item in islice(iterator, size):
                try:
                    task = keying.task(drawn, item)
                except BaseException as error:  # of the item or of key=, not the generator's: it fails alone
                    why = str(error) if isinstance(error, InputError) else f"key= raised {describe(error)}"
                    task = Task(drawn, f"item {drawn}", item, refused=why)
                read.tasks.append(task)
                drawn += 1
                if time.monotonic() > until_s:
                    break
            else:
                read.is_last = drawn < until
        except BaseException as error:  # the generator's, whatever it is: the session tells it
            read.error = error


class Listing:
    """The seqs of what a generator gave, in its order; nothing while that is 0, 1, 2, ...

    Attributes:
        order: None while each item has the seq of its place.
    """

    def __init__(self) -> None:
        self.order: array[int] | None = None

    def add(self, place: int, seq: int) -> None:
        """Note the seq of the next item."""
        if self.order is None and seq != place:
            self.order = array("q", range(place))
        if self.order is not None:
            self.order.append(seq)

    def seqs(self, places: int) -> Sequence[int]:
        """Return the seqs of the first places."""
        return range(places) if self.order is None else self.order[:places]

    def renumber(self, places: int, moved: Mapping[int, int]) -> None:
        """Let items that had some seqs have others."""
        if moved:
            self.order = array("q", [moved.get(seq, seq) for seq in self.seqs(places)])


class Walk:
    """Look recorded items up as they are drawn: one ordered walk, single look-ups where it does not fit.

    Attributes:
        first_free: No recorded item has this seq, or a higher one.
        in_step: Whether every item so far was drawn at the place it is recorded at.
        again: What runs again though it has an outcome.
    """

    def __init__(self, database: sqlite3.Connection, run: int, again: Again) -> None:
        self.again = again
        self._database, self._run = database, run
        weakref.finalize(self, database.close)  # a start that ends early draws no last item
        self._columns = f"id & {SEQ}, item.key, status, final, digest"
        self._rows: Iterator[Recorded] = iter(())
        self._row: Recorded | None = None  # the next one of the walk
        self._next_id, self._after = ids(run)
        self._unmatched, last = database.execute(
            "SELECT count(*), max(id) FROM item WHERE id >= ? AND id < ?", ids(run)
        ).fetchone()
        self.first_free = 0 if last is None else (last & SEQ) + 1
        self.in_step = True
        self._indexed = False

    def keeps(self, place: int, tasks: Sequence[Task]) -> bool:
        """Pass tasks that are all recorded as completed, in these very places, and stay so; return whether they are.

        One question for a whole chunk: most of what is resumed is like that.
        """
        if not self.in_step or not self._unmatched or "completed" in self.again.statuses:
            return False
        first = ids(self._run)[0] + place
        after = first + len(tasks)
        recorded = self._database.execute(
            "SELECT key, digest FROM item WHERE id >= ? AND id < ? AND status = 'completed' AND final ORDER BY id",
            (first, after),
        ).fetchall()
        if recorded != [(task.key, task.digest) for task in tasks]:
            return False
        self._next_id, self._rows, self._row = after, iter(()), None
        self._unmatched -= len(tasks)
        return True

    def keys(self, places: int) -> list[str]:
        """Return the keys that are recorded in the first places."""
        first, _ = ids(self._run)
        rows = self._database.execute("SELECT key FROM item WHERE id >= ? AND id < ?", (first, first + places))
        return [key for (key,) in rows]

    def find(self, place: int, key: str) -> Recorded | None:
        """Return what is recorded of ``key``; None when nothing is."""
        if not self._unmatched:
            return None
        row = self._row or self._read()
        if row is not None and row[1] == key:
            self._row = next(self._rows, None)
        else:
            if row is not None and row[0] <= place:
                self.in_step = False  # another item is recorded in this place
            row = self._look_up(key)
            if row is None:
                return None
        self._unmatched -= 1
        if row[0] != place:
            self.in_step = False
        return row

    def go_on(self, place: int, unmatched: int, *, in_step: bool) -> None:
        """Go on at a place, with so many recorded items that were not drawn before."""
        self._next_id, self._unmatched, self.in_step = self._next_id + place, unmatched, in_step

    def statuses(self) -> Iterator[tuple[int, Status]]:
        """Yield the seq and the status of all that is recorded."""
        first, after = ids(self._run)
        yield from self._database.execute(
            "SELECT id - ?, status FROM item WHERE id >= ? AND id < ?", (first, first, after)
        )

    def count(self) -> Counter[Status]:
        """Return how many items are recorded with which status."""
        return run_store.count_items(self._database, self._run)

    def find_again(self, seq: int, key: str, *, elsewhere: bool) -> Recorded | None:
        """Return what is recorded of a key that was matched before.

        Args:
            elsewhere: It may have another seq by now.
        """
        row: Recorded | None = self._database.execute(
            f"SELECT {self._columns} FROM item WHERE id = ?",  # noqa: S608  # constants
            (ids(self._run)[0] + seq,),
        ).fetchone()
        if row is not None and row[1] == key:
            return row
        return self._look_up(key) if elsewhere else None

    def _read(self) -> Recorded | None:
        rows = self._database.execute(
            f"SELECT {self._columns} FROM item WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",  # noqa: S608  # constants
            (self._next_id, self._after, _STRIDE),
        ).fetchall()
        if rows:
            self._next_id = ids(self._run)[0] + rows[-1][0] + 1
        self._rows = iter(rows)
        self._row = next(self._rows, None)
        return self._row

    def _look_up(self, key: str) -> Recorded | None:
        if not self._indexed:
            self._index()
        row: Recorded | None = self._database.execute(
            f"SELECT {self._columns} FROM by_key JOIN item USING (id) WHERE by_key.key = ?",  # noqa: S608  # constants
            (key,),
        ).fetchone()
        return row

    def _index(self) -> None:
        """Index the run's keys, on disk and for this walk alone: an index for all would cost every item 4 us."""
        self._database.execute("CREATE TEMP TABLE by_key (key TEXT PRIMARY KEY, id INTEGER) WITHOUT ROWID")
        self._database.execute("INSERT INTO by_key SELECT key, id FROM item WHERE id >= ? AND id < ?", ids(self._run))
        self._indexed = True


def _count_drawn(walk: Walk | None, ended: set[int], recorded: RecordedCounts, *, is_same: bool) -> Counts:
    """Count what is recorded: of some seqs, which must all be, and of the others, where it is not outdated.

    Raises:
        InputError: What ran to its end is on record no more, and cannot be had again.
    """
    counts, there = Counts(total=None), 0
    others, outdated = recorded.undrawn, recorded.outdated
    is_simple = not ended and not outdated
    if walk is not None and is_simple:
        others.update(walk.count())
    for seq, status in () if walk is None or is_simple else walk.statuses():
        if seq in ended:
            there += 1
            counts.add(status)
            outdated.pop(seq, None)
        elif seq not in outdated:
            others[status] += 1
    if there < len(ended) or (ended and not is_same):
        raise InputError(GIVE_ANEW)
    return counts


class Drawing:
    """A generator's items over all starts of a session: each is drawn once, and matched with what is recorded.

    Attributes:
        matched: Tasks that were drawn and wait to be taken.
        held: Tasks that were drawn and may have to run at a later start.
        drawn: How many items there were so far.
        is_exhausted: Whether these are all.
    """

    def __init__(
        self, items: Iterable[Any], keying: Keying, *, listing: Listing, holds_all: bool, emit: Emit, clock_s: Clock
    ) -> None:
        self.reader = ItemReader(items, keying)
        self.matched: deque[Task] = deque()
        self.held: list[Task] = []
        self.drawn = 0
        self.is_exhausted = False
        self._walk: Walk | None = None
        self._counts = RecordedCounts()
        self._listing, self._holds_all, self._emit, self._clock_s = listing, holds_all, emit, clock_s
        self._seen = SeenKeys()
        self._all_kept = True  # what was drawn so far; then the journal has the keys that were seen
        self._free = 0
        self._is_last_read = False
        self._error: BaseException | None = None
        self._has_raised = False
        self._size = 1
        self._taken_s = 0.0

    def match_again(
        self, walk: Walk | None, recorded: RecordedCounts, *, is_own: bool, is_same: bool
    ) -> tuple[Counts, list[Task]]:
        """Begin a start: match what is held with what is recorded by now; return the counts, and what is to run.

        What is on record of the others counts as it is, till the generator gives those items or ends.

        Args:
            walk: The run's rows; None for the first start of a new run.
            is_own: Nobody else had the run since the start before.
            is_same: It is the run of that start.

        Raises:
            InputError: What ran to its end in an earlier start is on record no more, and cannot be had again.
        """
        is_in_step = (is_own or not self.drawn) and (self._walk is None or self._walk.in_step)
        seqs, held, others = self._listing.seqs(self.drawn), self.held[:], recorded.undrawn
        ended = set(seqs).difference([task.seq for task in held])
        counts = _count_drawn(walk, ended, recorded, is_same=is_same)
        found = [None if walk is None else walk.find_again(task.seq, task.key, elsewhere=not is_own) for task in held]
        self._walk, self._counts, self.held = walk, recorded, []
        self._free = max(self._free, walk.first_free if walk is not None else 0)
        if not is_own:
            self._free = max(self._free, self.drawn, max(seqs, default=-1) + 1)
        todo, moved = [], {}
        for task, row in zip(held, found, strict=True):
            before, task.recorded, task.attempts = task.seq, "", 0
            if row is None and not is_own:
                task.seq, self._free = self._free, self._free + 1
            if row is not None and self._judge(task, row) is None:
                counts.add(row[2])
            else:
                todo.append(task)
            if task.seq != before:
                moved[before] = task.seq
        self._listing.renumber(self.drawn, moved)
        if walk is not None:
            walk.go_on(self.drawn, sum(others.values()) + len(recorded.outdated), in_step=is_in_step)
        if self.is_exhausted:
            counts.total = self.drawn
            recorded.unlisted, recorded.undrawn = +others, Counter()
        for status, items in recorded.undrawn.items():
            counts.add(status, items)
        counts.pending = len(todo)
        return counts, todo

    def tasks(self) -> Iterator[Task | None]:
        """Yield the tasks that are still to do, in order, and None while the next one is being read.

        Raises:
            BaseException: What the generator raised, at the start it did.
            InputError: It did so at an earlier start, or was exhausted before: nothing more is to be had of it.
        """
        matched = self.matched
        while True:
            while matched:
                yield matched.popleft()
            if self._error is not None:
                error, told = self._error, f"{describe(self._error)}, at an earlier start: {GIVE_ANEW}"
                if not self._has_raised:
                    self._has_raised, self._error = True, InputError(told)
                raise error
            if self._is_last_read:
                break
            if not self._take():
                self.reader.ask(self._size)
                yield None
        if not self.drawn and +self._counts.undrawn:  # else all that is recorded would be hidden as "completed 0/0"
            raise InputError(EXHAUSTED)
        if not self.is_exhausted:
            self.is_exhausted = True
            recorded = self._counts
            recorded.unlisted, recorded.undrawn = +recorded.undrawn, Counter()
            self._emit(events.Exhausted(self._clock_s(), self.drawn, dict(recorded.unlisted)))

    def _take(self) -> bool:
        """Match the next chunk; return False while it is being read."""
        chunk = self.reader.take()
        if chunk is None:
            return False
        self._is_last_read, self._error = chunk.is_last, chunk.error
        now_s = self._clock_s()
        self._size = min(CHUNK, self._size * 2) if now_s < self._taken_s + _RUNS_S else max(1, self._size // 2)
        self._taken_s = now_s
        self.reader.ask(self._size)
        if chunk.tasks:
            was = self._match(chunk.tasks)
            if self.matched or was:
                self._emit(events.Drawn(now_s, len(self.matched), was))
        return True

    def _match(self, tasks: list[Task]) -> dict[Status, int]:
        """Give tasks the seqs they are recorded under; keep those that do not stay so, and count as what they are."""
        walk, listing, drawn, seen = self._walk, self._listing, self.drawn, self._seen
        is_plain = listing.order is None and not self._counts.outdated
        if walk is not None and is_plain and walk.keeps(drawn, tasks):
            self._counts.undrawn["completed"] -= len(tasks)
            self.drawn += len(tasks)
            if not self._all_kept:
                seen.add([task.key for task in tasks])
            if self._holds_all:
                self.held += tasks
            return {}
        if self._all_kept and walk is not None:
            seen.add(walk.keys(drawn))
        self._all_kept = False
        counted: dict[Status, int] = {}
        for at in seen.add([task.key for task in tasks]):
            task = tasks[at]
            task.refused = f"duplicate key {task.key}: an earlier item has it too"
            task.key = f"{task.key} (duplicate, item {drawn + at})"
        for task in tasks:
            was = "" if walk is None else self._find(walk, drawn, task, counted)
            if task.seq != drawn or listing.order is not None:
                listing.add(drawn, task.seq)
            drawn += 1
            if was is None:
                continue
            if was:
                counted[was] = counted.get(was, 0) + 1
            self.matched.append(task)
        self.drawn = drawn
        return counted

    def _find(self, walk: Walk, drawn: int, task: Task, counted: dict[Status, int]) -> Status | Literal[""] | None:
        """Look a task up; return as what it was counted, None if it stays as it is recorded."""
        found = walk.find(drawn, task.key)
        if found is not None:
            was_counted, is_to_run = found[0] not in self._counts.outdated, self._judge(task, found) is not None
            if not was_counted and not is_to_run:  # the input is again what it was
                counted[found[2]] = counted.get(found[2], 0) - 1
            return None if not is_to_run else found[2] if was_counted else ""
        if not walk.in_step:
            task.seq, self._free = max(self._free, drawn), max(self._free, drawn) + 1
        return ""

    def _judge(self, task: Task, found: Recorded) -> Status | None:
        """Return as what a task is recorded that is to run; None if it stays so."""
        assert self._walk is not None
        task.seq, _, status, is_final, digest = found
        if task.seq in self._counts.outdated:
            del self._counts.outdated[task.seq]
        else:
            self._counts.undrawn[status] -= 1
        if digest != task.digest:  # what is recorded answers another question
            self._counts.outdated[task.seq] = task.digest
            return status
        again = self._walk.again
        if again.spares(task.key) if status in again.statuses else is_final:
            if status != "completed" or self._holds_all:
                self.held.append(task)
            return None
        task.recorded = status
        self._counts.stale[status] += 1
        return status
