"""Spec: what a session runs and how, as one frozen record; its work function, inspected once; where attempts run."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from types import CodeType
from typing import Any, Literal, Protocol

import msgspec

from ipybatch.engine.data.notice import Notify
from ipybatch.engine.data.plan import Keying, short
from ipybatch.engine.data.policy import Breaker, Limits, Retry
from ipybatch.errors import InputError


class Backend(Protocol):
    """A place where attempts run; `ipybatch.testing.check_backend` says what each must do."""

    async def open(self, slots: int) -> None:
        """Get ready for ``slots`` attempts at a time."""

    def run(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Awaitable[Any]:
        """Run one attempt; awaiting it gives its result, cancelling it ends it.

        Raises:
            StillRunning: It was cancelled, but cannot be ended.
        """

    async def close(self) -> None:
        """Let everything go that `open` took."""


class StillRunning(asyncio.CancelledError):
    """A cancelled attempt that goes on by itself, such as a thread.

    Attributes:
        ended: Done when it has ended at last.
    """

    def __init__(self, ended: asyncio.Future[Any]) -> None:
        super().__init__("it cannot be ended")
        self.ended = ended


OnFailure = Literal["continue", "stop", "rollback"]


class Work(msgspec.Struct, frozen=True):
    """A work function or object.

    Attributes:
        is_coroutine: Whether it runs on the loop; else in threads.
        takes_attempt: Whether it has a parameter named "attempt".
        code_hash: Changes with the function's code; None when it has none to look at.
    """

    call: Callable[..., Any]
    is_coroutine: bool
    takes_attempt: bool
    code_hash: bytes | None

    @property
    def probe(self) -> Callable[[], Awaitable[Any]] | None:
        """What asks the service for something that once succeeded, where the work has such a method."""
        has_one = inspect.iscoroutinefunction(getattr(type(self.call), "probe", None))
        return getattr(self.call, "probe") if has_one else None  # noqa: B009  # of an object of the user's


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that says how a session runs. It is replaced as a whole, never changed.

    Attributes:
        cost: Function of an item: a number, or a mapping of units.
        timeout_s: For one attempt, seconds; None for no limit.
        resource: Name of what is rationed.
        is_private: Whether that is the session's own: nobody gave it a name.
        group_word: What a group is called in the panel.
        keying: How keys and digests are made from items.
        fresh: Begin a new run under the same name.
        replaces: Whether an item whose input changed takes the place of its answer on record; where answers are paid,
            only when the user asked for it.
        skip: Function of an item: why it need not run ("" if it must); asked once, kept in the plan.
        rank: Function of an item: lower ranks run first; asked once, kept in the plan.
        priority: Function of an item: its place in `plan.PRIORITIES`, before all ranks; asked once, kept in the plan.
        per: Function of an item: the limit group it is in.
        start_at_s: Nothing starts before it, Unix seconds; None for at once.
        workload: Name of the workload that made it, recorded with the run; "" for none.
        about: What that workload records to open it again, as JSON; "" for nothing.
        notify: Who is told what of it; None for nobody.
        kernel: The id of the kernel of Jupyter that it runs in, and ``notebook``: its file; "" where that is not known.
    """

    name: str
    work: Work
    backend: Backend
    limits: Limits
    retry: Retry
    breaker: Breaker | None
    timeout_s: float | None
    on_failure: OnFailure
    resource: str
    is_private: bool = False
    keying: Keying
    group_word: str = "Batch"
    fresh: bool = False
    replaces: bool = True
    cost: Callable[[Any], Any] | None = None
    skip: Callable[[Any], str] | None = None
    rank: Callable[[Any], int] | None = None
    priority: Callable[[Any], int] | None = None
    per: Callable[[Any], Any] | None = None
    start_at_s: float | None = None
    workload: str = ""
    about: str = ""
    notify: Notify | None = None
    kernel: str = ""
    notebook: str = ""

    def cost_of(self, item: Any) -> Mapping[str, float]:
        """Return what an item costs, by unit: a plain number is in the units beside requests, or in requests.

        Raises:
            InputError: ``cost=`` returned no such thing.
        """
        assert self.cost is not None
        given = self.cost(item)
        if isinstance(given, Mapping):
            return {unit: _amount(amount, unit) for unit, amount in given.items()}
        units = self.limits.units - {"requests"} or {"requests"}
        return dict.fromkeys(units, _amount(given, " and ".join(sorted(units))))


def _amount(amount: Any, unit: Any) -> float:
    if type(amount) is float and 0 <= amount < math.inf:
        return amount
    try:
        number = math.nan if isinstance(amount, str | bytes | bool) else float(amount)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if 0 <= number < math.inf:
        return number
    msg = f"cost= must return a number of {unit} >= 0, or a mapping of units to numbers, got {short(amount)}"
    raise InputError(msg)


def inspect_work(work: Any) -> Work:
    """Look at a work function.

    Raises:
        InputError: It cannot be called, or not with one item.
    """
    if not callable(work):
        msg = f"work must be a function of one item (or an object with __call__), got {work!r}"
        raise InputError(msg)
    return Work(work, is_coroutine(work), _takes_attempt(work), _hash(_function(work)))


def is_coroutine(work: Any) -> bool:
    """Say whether a call of this function, partial or object is a coroutine."""
    return inspect.iscoroutinefunction(_function(work))


def _function(work: Any) -> Any:
    while isinstance(work, functools.partial):
        work = work.func
    if inspect.isfunction(work) or inspect.ismethod(work) or inspect.isbuiltin(work) or inspect.isclass(work):
        return work
    return type(work).__call__


def _takes_attempt(work: Any) -> bool:
    try:
        signature = inspect.signature(work)
    except (TypeError, ValueError):
        return False  # some builtins do not say
    takes_attempt = "attempt" in signature.parameters
    try:
        signature.bind(*([None] * (2 if takes_attempt else 1)))
    except TypeError as error:
        msg = f"work must take one item (and, if it likes, attempt): {error}, got {work!r}{signature}"
        raise InputError(msg) from None
    return takes_attempt


def _hash(function: Any) -> bytes | None:
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    return None if code is None else hashlib.blake2b(repr(_facts(code)).encode(), digest_size=8).digest()


def _facts(code: CodeType) -> tuple[Any, ...]:
    """Return what makes code what it is: not its file, nor its lines."""
    return code.co_code, code.co_names, tuple(_constant(const) for const in code.co_consts)


def _constant(const: Any) -> Any:
    if isinstance(const, CodeType):
        return _facts(const)
    # A set of strings has another order in each process.
    return sorted(map(repr, const)) if isinstance(const, frozenset) else repr(const)
