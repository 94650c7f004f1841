"""Plan: the user's items as tasks with stable keys, checked before anything starts.

A key is canonical JSON, so 1 and "1" differ and a dict's order does not
matter.  A digest of the input tells whether a recorded result still answers
the same question.
"""

from __future__ import annotations

import functools
import hashlib
from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter
from typing import Any, Literal

import msgspec

from ipybatch.engine.data.events import Status
from ipybatch.engine.data.masking import describe, printable
from ipybatch.engine.data.outcome import decode
from ipybatch.errors import InputError

KeyFunction = Callable[[Any], Any]
Priority = Literal["high", "medium", "low"]
PRIORITIES: tuple[Priority, ...] = ("high", "medium", "low")
MEDIUM = PRIORITIES.index("medium")


def _plain(value: Any) -> Any:
    """Return a numpy scalar as Python's: numpy.int64(1) is the key 1."""
    if type(value).__module__ == "numpy" and hasattr(value, "item") and isinstance(plain := value.item(), _PLAIN):
        return plain
    msg = f"JSON cannot hold a {type(value).__name__}"
    raise TypeError(msg)


_canonical = msgspec.json.Encoder(order="deterministic", enc_hook=_plain).encode


def as_json(value: Any) -> Any:
    """Return a value as JSON data, numpy's scalars as Python's.

    Raises:
        TypeError: JSON cannot hold it.
        ValueError: Nor that.
    """
    return msgspec.json.decode(_canonical(value))


_NO_JSON = (TypeError, ValueError, RecursionError, msgspec.MsgspecError)
_PLAIN = (str, int, float, bool, type(None), list, dict)


class Task(msgspec.Struct, gc=False):
    """An item with its key.

    Attributes:
        seq: The item's number in its run, from 0; fixed once recorded.
        key: Canonical JSON.
        digest: Hash of the item and all that is sent with it; "" when the key says it all.
        attempts: How often it was started.
        group: The batch it is in; 0 for none.
        rank: What runs first: lower ranks do; decided once, kept in the plan.
        priority: What runs before all ranks: its place in `PRIORITIES`.
        added: Whether the work brought it, while it ran; it is in no list of the user's.
        recorded: The status of its row in the journal, while the item is to run again; "" for none.
        refused: Why it fails without being tried (a duplicate key in a generator); "" for none.
        limit_group: Name of its limit group, once that was asked for; "" before, and for none.
    """

    seq: int
    key: str
    item: Any
    digest: str = ""
    attempts: int = 0
    group: int = 0
    rank: int = 0
    refused: str = ""
    priority: int = MEDIUM
    added: bool = False
    recorded: Status | Literal[""] = ""
    limit_group: str = ""

    @property
    def order(self) -> tuple[int, int, int]:
        """Where it stands among those that wait: the lowest goes first."""
        return self.priority, self.rank, self.seq

    @property
    def label(self) -> str:
        """The key as people read it."""
        key = self.key  # `label_of`, without its call where it makes no difference: twice an item
        if "\\" in key or not key.isprintable():
            return label_of(key)
        return key[1:-1] if key[0] == '"' else key


BY_ORDER = attrgetter("priority", "rank", "seq")  # `Task.order` as a sort key, without its call


class Again(msgspec.Struct, frozen=True):
    """What a start runs again though it has its outcome: what `retry_failed` asks for.

    Attributes:
        statuses: Those that run again, final ones too.
        keys: Of the only items that do; None for all. The others stay as they are, what else would run again too.
    """

    statuses: frozenset[Status] = frozenset()
    keys: frozenset[str] | None = None

    def spares(self, key: str) -> bool:
        """Say whether an item of these statuses stays all the same."""
        return self.keys is not None and key not in self.keys


NOTHING_AGAIN = Again()


def label_of(key: str) -> str:
    """Return a key as people read it: a string as it was given, without what would act on a terminal."""
    return printable(str(key_value(key)) if key[:1] == '"' else key)


def canonical(key: Any) -> str:
    """Return a key as plan and journal have it."""
    return _canonical(key).decode()


def key_value(key: str) -> Any:
    """Return a scalar key as Python value, any other as its canonical JSON."""
    try:
        value = decode(key)
    except msgspec.DecodeError:
        return key
    return key if isinstance(value, dict | list) else value


class Keying(msgspec.Struct, frozen=True):
    """How keys and digests are made from items.

    An item that carries more than is sent, labels for instance, says in ``_ipybatch_sent_`` what is.

    Attributes:
        key: The user's ``key=`` function; None: the item itself, or its "id" or "key" field.
        settings: What is sent with every item (model, country); a change of it makes every item run again.
    """

    key: KeyFunction | None = None
    settings: bytes = b""

    @property
    def settings_hash(self) -> str:
        """What tells whether the settings are those of an earlier start; "" for none."""
        return _hash(self.settings) if self.settings else ""

    def task(self, seq: int, item: Any, given: Any = None) -> Task:
        """Return the task of ``item``.

        Args:
            given: Its key where the item does not hold it, as a one-element tuple; None for none.

        Raises:
            InputError: The item has no key that JSON can hold; says which item.
        """
        if (type(item) is int or type(item) is str) and self.key is None and given is None and not self.settings:
            try:  # most items are such, and this halves what they cost
                return Task(seq, _canonical(item).decode(), item)
            except _NO_JSON:  # below it is told
                pass
        try:
            value = self._value(item) if given is None else given[0]
        except InputError:  # it says more than that there is none
            raise
        except KeyboardInterrupt:  # in the thread of the caller, not the function's
            raise
        except BaseException as error:  # of the user's function, or of a property of the item
            msg = f"item {seq} ({short(item)}) has no stable key: key= raised {describe(error)}"
            raise InputError(msg) from error
        try:
            key = _canonical(value)
        except _NO_JSON as error:
            msg = f"item {seq} ({short(item)}) has no stable key: pass key=, a function of the item ({error})"
            raise InputError(msg) from None
        if key == b"null":
            msg = f"item {seq} ({short(item)}) has no stable key: its key is {value!r}"
            raise InputError(msg)
        digest = "" if value is item and not self.settings else self._digest(item, value, key)
        return Task(seq, key.decode(), item, digest)

    def _value(self, item: Any) -> Any:
        if self.key is not None:
            return self.key(item)
        if type(item) is int or type(item) is str:
            return item
        for field in ("id", "key"):
            value = item.get(field) if isinstance(item, dict) else getattr(item, field, None)
            if value is not None and not callable(value):
                return value
        return item

    def _digest(self, item: Any, value: Any, key: bytes) -> str:
        if value is item:
            return _hash(self.settings + key)
        try:
            sent = _canonical(getattr(item, "_ipybatch_sent_", item))
        except _NO_JSON:
            sent = key  # an item that JSON cannot hold is known by its key alone
        return _hash(self.settings + sent)


_INDEXED_AT_ONCE = 100_000


class Plan(list[Task]):
    """The tasks of a list, in order, each with a key of its own.

    Attributes:
        is_ordered: Whether they run in another order, or some were added to the user's list.
        index: That of the frame whose rows the first tasks are; None when the items were no frame.
        given: What the user gave for the first tasks, where their items were made from it; None where they are it.
    """

    is_ordered = False
    index: Any = None
    given: Sequence[Any] | None = None

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        super().__init__(tasks)
        self._first_free = 0
        self._by_key: dict[str, Task] = {}  # of the first `_indexed`; only what adds or looks for keys needs it
        self._indexed = 0
        self._next_seq: int | None = None

    @property
    def first_free(self) -> int:
        """No recorded item has this seq, or a higher one."""
        return self._first_free

    @first_free.setter
    def first_free(self, seq: int) -> None:
        self._first_free, self._next_seq = seq, None

    @property
    def next_seq(self) -> int:
        """The seq of the next task that is added."""
        if self._next_seq is None:
            self._next_seq = max(self._first_free, max(map(attrgetter("seq"), self), default=-1) + 1)
        return self._next_seq

    def find(self, keys: Collection[str]) -> list[Task]:
        """Return the tasks of these keys.

        The index grows by a part at each call and the rest is gone through, so that no call takes long: to index
        300,000 takes 90 ms. Two threads may call it; both index the same then.
        """
        at = self._indexed
        part = self[at : at + _INDEXED_AT_ONCE]
        self._by_key.update(zip(map(attrgetter("key"), part), part, strict=True))
        self._indexed = at + len(part)
        found = [task for key in keys if (task := self._by_key.get(key)) is not None]
        rest = self[at + len(part) :]
        if rest:
            wanted = set(keys)
            found += [task for task in rest if task.key in wanted]
        return found

    def add(self, new: Sequence[Task]) -> None:
        """Add tasks that the work brought, numbered from `next_seq` on, to the end."""
        self._next_seq = self.next_seq + len(new)
        self.extend(new)
        self.forget_hash()
        self.is_ordered = True

    @functools.cached_property
    def hash(self) -> bytes:
        """What tells whether it is the plan that was recorded."""
        keys = "\n".join([task.key for task in self]).encode()
        digests = "\n".join([task.digest for task in self]).encode()
        return hashlib.blake2b(keys + b"\n\n" + digests, digest_size=16).digest()

    def reset(self) -> None:
        """Let the tasks be as the user gave them: what the work added and what a run gave them belongs to that run."""
        if any(task.added for task in self):
            self[:] = [task for task in self if not task.added]
            self._by_key, self._indexed = {}, 0
            self.forget_hash()
        for seq, task in enumerate(self):
            task.seq, task.rank, task.priority, task.recorded = seq, 0, MEDIUM, ""
        self.is_ordered, self.first_free = False, 0

    def forget_hash(self) -> None:
        """Let the hash be that of the tasks as they are now."""
        self.__dict__.pop("hash", None)


DROP_ONE = "drop one, or pass key="


def make_plan(items: Sequence[Any], keying: Keying, keys: Sequence[Any] | None = None, twice: str = DROP_ONE) -> Plan:
    """Return the tasks of a list, in order.

    Args:
        keys: Of the items, where they do not hold them.
        twice: What to do where two have the same key.

    Raises:
        InputError: Two items share a key; names the first two.
    """
    if keys is None:
        tasks = Plan([keying.task(seq, item) for seq, item in enumerate(items)])
    else:
        pairs = enumerate(zip(items, keys, strict=True))
        tasks = Plan([keying.task(seq, item, (key,)) for seq, (item, key) in pairs])
    if len({task.key for task in tasks}) < len(tasks):
        seen: dict[str, int] = {}
        for task in tasks:
            if task.key in seen:
                msg = f"items {seen[task.key]} and {task.seq} share the key {task.key}: keys must be unique; {twice}"
                raise InputError(msg)
            seen[task.key] = task.seq
    return tasks


def queued_by_priority(tasks: Iterable[Task]) -> list[int] | None:
    """Return how many tasks of each priority have not been tried; None where all have the same."""
    counts = [0] * len(PRIORITIES)
    for task in tasks:
        counts[task.priority] += not task.attempts
    return counts if sum(map(bool, counts)) > 1 else None


class PlanRow(msgspec.Struct, array_like=True):
    """One task as the journal keeps it.

    Attributes:
        item: None when the item is its key, or when JSON cannot give it back as it was.
        kept: Whether ``item`` (or the key) gives the user's item back.
    """

    key: str
    item: Any
    kept: bool
    digest: str
    rank: int


class OrderedRow(PlanRow, array_like=True):
    """One that has an order of its own; a `PlanRow` can be read as one."""

    priority: int = MEDIUM
    added: bool = False
    seq: int | None = None  # None: that of its place in the plan


def to_row(task: Task, *, seq: int | None = None) -> PlanRow:
    """Return ``task`` as the journal keeps it.

    Args:
        seq: For one that is recorded with its number.
    """
    item = task.item
    if type(item) is int or type(item) is str:
        kept, is_key = True, _canonical(item).decode() == task.key
        item = None if is_key else item
    else:
        kept = item is not None and type(item) in _PLAIN and _survives(item)  # a row's None stands for its key
        item = item if kept else None
    if task.priority == MEDIUM and not task.added:
        return PlanRow(task.key, item, kept, task.digest, task.rank)
    return OrderedRow(task.key, item, kept, task.digest, task.rank, task.priority, task.added, seq)


def from_row(seq: int, row: OrderedRow) -> Task:
    """Return the task that `to_row` was given."""
    item = row.item if row.item is not None or not row.kept else decode(row.key)
    refused = "" if row.kept else "the journal does not hold this item: create the session again with its items"
    return Task(seq, row.key, item, row.digest, rank=row.rank, refused=refused, priority=row.priority, added=row.added)


class SeenKeys:
    """Which keys a generator has given already: some 20 bytes a key, where a set of them takes 100.

    Prior art: hashing with separate chaining (Knuth, TAOCP 3, 6.4), of 64-bit hashes.
    """

    def __init__(self) -> None:
        self._chains: dict[int, array[int]] = {}

    def add(self, keys: Iterable[str]) -> list[int]:
        """Remember keys; return the places, among them, of those that were there before."""
        chains, known = self._chains, []
        for at, key in enumerate(keys):
            code = hash(key)
            chain = chains.get(code & _CHAINS)
            if chain is None:
                chains[code & _CHAINS] = array("q", (code,))
            elif code in chain:
                known.append(at)
            else:
                chain.append(code)
        return known


_CHAINS = (1 << 16) - 1


def _survives(item: Any) -> bool:
    try:
        return bool(decode(_canonical(item)) == item)
    except _NO_JSON:
        return False


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def short(item: Any) -> str:
    """Return what the user gave as a text for an error."""
    try:
        text = repr(item)
    except Exception:  # the user's
        text = f"<{type(item).__name__}>"
    return text if len(text) <= 60 else text[:57] + "..."
