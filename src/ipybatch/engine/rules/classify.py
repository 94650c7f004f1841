"""Classify: whose fault an error is, and so what follows.

Rule: it is decided here, from the error's structure, from the answer it tells
of and from what went before; nowhere else, and never from its text.

    item      this item fails, alone
    service   it is tried again; the breaker counts it
    rate      the request waits, or the resource cools down; no item pays for it
    account   the session ends; its items run again at the next call
    us        our own set-up: said with what to do; never an outage

What is asked of an error, in this order; the first that answers decides:

1. Is it the work's own word (Transient, RateLimited, Permanent, Refused, Held, Withheld)?
2. Is it a group? Then its members are judged one by one, and the gravest decides (`_rank`).
3. Does its class tell (`client_errors`)? A failed line may wrap what is ours: a certificate, too many open files.
4. Does it tell of an answer? Then the status does (`_of_answer`).
5. What does it wrap, then what caused it, then what was being handled when it was raised? From there again at 1;
   the last not for what is plainly a slip of the pen (NameError and its like).
6. Had the work an answer in its hands that says why: one with a status of 300 or more?

What none of this answers is the item's. Then history: a 403, or an address or a certificate that is refused, is the
item's own where others succeeded. Last, ``Retry(on=)``: what it names is tried again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from typing import Literal

import msgspec

from ipybatch.engine.data.policy import Retry
from ipybatch.engine.rules.client_errors import (
    ADVICE,
    Answer,
    Meaning,
    answer_of,
    meaning_of,
    named,
    trace_of,
    wrapped_by,
)
from ipybatch.engine.rules.rate_headers import NOTHING_TOLD, Told, read_headers
from ipybatch.errors import Held, ItemError, JournalError, Permanent, RateLimited, Refused, Transient, Withheld

Scope = Literal["item", "service", "rate", "account", "us"]


class Kind(Enum):
    """What the runner does after a failed attempt."""

    TRANSIENT = "transient"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    PERMANENT = "permanent"
    REFUSED = "refused"
    WITHHELD = "withheld"
    HELD = "held"
    SETUP = "setup"


_SCOPES: dict[str, Scope] = {  # by the word of a kind; all others are the item's
    "transient": "service",
    "timeout": "service",
    "rate_limited": "rate",
    "refused": "account",
    "withheld": "account",
    "setup": "us",
}


def scope_of(kind: str) -> Scope:
    """Return whose fault an error of a kind is, as far as its word tells."""
    return _SCOPES.get(kind, "item")


class Verdict(msgspec.Struct, frozen=True):
    """What an error means.

    Attributes:
        told: What the service itself said of its limits.
        is_neutral: Whether it proves nothing about the service.
        status: The HTTP status of the answer; None where there was none.
        advice: What the user can do about it; "" where nothing is known.
        is_own: Whether the work said it itself, and named no status.
        whose: Whose fault it is, where its kind does not tell.
    """

    kind: Kind
    told: Told = NOTHING_TOLD
    is_neutral: bool = False
    status: int | None = None
    advice: str = ""
    is_own: bool = False
    whose: Scope | None = None

    @property
    def scope(self) -> Scope:
        """Whose fault it is."""
        return self.whose or scope_of(self.kind.value)

    @property
    def retry_after_s(self) -> float | None:
        """How long the service asked us to wait, seconds; None if it said nothing."""
        return self.told.retry_after_s

    @property
    def ends_session(self) -> bool:
        """Whether nothing more may start because of it."""
        is_one_items = self.kind is Kind.SETUP and self.advice in _ONE_ITEMS  # then others are looked at first
        return self.kind in (Kind.REFUSED, Kind.WITHHELD, Kind.SETUP) and not is_one_items

    @property
    def counts(self) -> bool:
        """Whether the breaker counts it as a failure of the service."""
        return self.kind in (Kind.TRANSIENT, Kind.TIMEOUT) and not self.is_neutral


class Judged(ItemError):
    """An error that was judged where it was raised, and cannot be judged where it is handled.

    Attributes:
        verdict: What it means.
    """

    def __init__(self, message: str, verdict: Verdict) -> None:
        super().__init__(message, verdict)
        self.verdict, self.kind, self.advice = verdict, verdict.kind.value, verdict.advice

    def __str__(self) -> str:
        return str(self.args[0])


_UNKNOWN = Verdict(Kind.PERMANENT)
_SAID = (  # the first that fits
    (RateLimited, Kind.RATE_LIMITED),
    (Transient, Kind.TRANSIENT),
    (Permanent, Kind.PERMANENT),
    (Refused, Kind.REFUSED),
    (Withheld, Kind.WITHHELD),
    (Held, Kind.HELD),
)
_JOURNAL = "The item runs again; make room on the journal's disk, or end the program that keeps it locked."
_SLIPS = (AttributeError, ImportError, NameError, SyntaxError, TypeError)
_DEEPEST = 16  # errors that cause one another


def classify(error: BaseException, retry: Retry, now_unix_s: float, *, has_succeeded: bool = False) -> Verdict:
    """Return what ``error`` means under this policy.

    Args:
        now_unix_s: For dates in an answer that does not date itself.
        has_succeeded: Whether anything has succeeded with this set-up: then what refuses one item is that item's.
    """
    return _decide(error, retry, now_unix_s, has_succeeded)[0]


def culprit(error: BaseException) -> BaseException:
    """Return the error that decides: of a group, that of its members; of any other, itself."""
    with suppress(Exception):  # a property of the user's class: `classify` meets it too
        if isinstance(error, BaseExceptionGroup):
            return _decide(error, _PLAIN, 0.0, False)[1]
    return error


_PLAIN = Retry()


def _decide(
    error: BaseException, retry: Retry, now_unix_s: float, has_succeeded: bool
) -> tuple[Verdict, BaseException]:
    if isinstance(error, BaseExceptionGroup):
        judged = [_decide(member, retry, now_unix_s, has_succeeded) for member in error.exceptions]
        verdict, decides = min(judged, key=_rank)
    else:
        verdict, decides = _read(error, now_unix_s, frozenset()) or _UNKNOWN, error
        verdict = _after_success(verdict) if has_succeeded else verdict
    if verdict.kind in (Kind.PERMANENT, Kind.REFUSED) and not verdict.is_own and retry.also_transient(error):
        verdict = Verdict(Kind.TRANSIENT, verdict.told, status=verdict.status)
    return verdict, decides


def _rank(judged: tuple[Verdict, BaseException]) -> tuple[int, bool]:
    """Return how grave a member of a group is, the gravest first; of them, what was not just cancelled.

    What ends the session; what the work says can never succeed; what asks us to wait; what may go well next time.
    """
    verdict, error = judged
    ranks = (
        verdict.kind is Kind.REFUSED,
        verdict.kind is Kind.WITHHELD,
        verdict.kind is Kind.SETUP,
        verdict.kind is Kind.PERMANENT and verdict.is_own,
        verdict.kind is Kind.RATE_LIMITED,
        verdict.counts,
        verdict.kind is not Kind.PERMANENT,
        True,
    )
    return ranks.index(True), type(error).__name__ == "CancelledError"


def _after_success(verdict: Verdict) -> Verdict:
    """Return what is left of a refusal where others succeed with the same credential and set-up: the item's own."""
    is_one_items = verdict.kind is Kind.SETUP and verdict.advice in _ONE_ITEMS
    if is_one_items or (verdict.kind is Kind.REFUSED and verdict.status == 403 and not verdict.is_own):
        return msgspec.structs.replace(verdict, kind=Kind.PERMANENT, whose="item")
    return verdict


_ONE_ITEMS = frozenset({ADVICE["address"], ADVICE["certificate"], ADVICE["request"]})


def _read(error: BaseException, now_unix_s: float, seen: frozenset[int]) -> Verdict | None:
    """Return what an error means, or what it came from; None where neither says anything."""
    if id(error) in seen or len(seen) >= _DEEPEST:
        return None
    seen |= {id(error)}
    if isinstance(error, BaseExceptionGroup):
        found = [(verdict, member) for member in error.exceptions if (verdict := _read(member, now_unix_s, seen))]
        return min(found, key=_rank)[0] if found else None
    verdict = _said(error)
    if verdict is None:
        meaning = meaning_of(error)
        if meaning in ("service", "timeout"):
            meaning = _of_us_below(error) or meaning
        answer = None if meaning else answer_of(error)
        verdict = _of_meaning(meaning) if answer is None else _of_answer(answer, now_unix_s)
    if verdict is None:
        read = (_read(inner, now_unix_s, seen) for inner in _sources(error))
        verdict = next((one for one in read if one is not None), None)
    if verdict is None:
        trace = trace_of(error)
        is_said = trace is not None and 300 <= trace.status <= 599
        answer = Answer(trace.status, trace.headers) if trace is not None and is_said else None
        verdict = _of_meaning(named(error)) if answer is None else _of_answer(answer, now_unix_s)
    return verdict


def _said(error: BaseException) -> Verdict | None:
    """Return what the work says itself; None where it says nothing."""
    if isinstance(error, Judged):
        return error.verdict
    if isinstance(error, JournalError):  # of `attempt.add`: no fault of the item, nor of the service
        return Verdict(Kind.TRANSIENT, is_neutral=True, advice=_JOURNAL, whose="us")
    for said, kind in _SAID:
        if isinstance(error, said):
            status = getattr(error, "status", None)
            status = status if isinstance(status, int) else None
            told = Told(getattr(error, "retry_after_s", None))
            return Verdict(
                kind, told, not getattr(error, "counts", True), status, is_own=getattr(error, "is_own", status is None)
            )
    return None


def _sources(error: BaseException) -> Iterator[BaseException]:
    """Yield what an error wraps, what caused it, and what was being handled when it was raised."""
    yield from wrapped_by(error)
    if error.__cause__ is not None:
        yield error.__cause__
    elif error.__context__ is not None and not error.__suppress_context__ and not isinstance(error, _SLIPS):
        yield error.__context__


def _of_us_below(error: BaseException) -> Meaning:
    """Return what of ours made a line fail; "" where it is the service's."""
    waiting, met = [error], set[int]()
    while waiting and len(met) < _DEEPEST:
        one = waiting.pop(0)
        if id(one) not in met:
            met.add(id(one))
            meaning = meaning_of(one)
            if meaning in _OF_US:
                return meaning
            chained = (one.__cause__, one.__context__)  # some clients hide what they met, though it is the cause
            waiting += [*wrapped_by(one), *(inner for inner in chained if inner is not None)]
    return ""


_OF_US = frozenset(ADVICE)
_AGAIN = frozenset({"pool", "files", "ports", "connection"})  # of us, and may go well once fewer run


def _of_meaning(meaning: Meaning) -> Verdict | None:
    if meaning in _AGAIN:
        return Verdict(Kind.TRANSIENT, is_neutral=True, advice=ADVICE[meaning], whose="us")
    if meaning in _OF_US:
        return Verdict(Kind.SETUP, advice=ADVICE[meaning])
    return _PLAINLY.get(meaning)


_PLAINLY: dict[Meaning, Verdict] = {
    "service": Verdict(Kind.TRANSIENT),
    "timeout": Verdict(Kind.TIMEOUT),
    "item": _UNKNOWN,
}


def _of_answer(answer: Answer, now_unix_s: float) -> Verdict:
    status, told = answer.status, read_headers(answer.headers, now_unix_s)
    if answer.retry_after_s is not None:
        told = msgspec.structs.replace(told, retry_after_s=answer.retry_after_s)
    is_asked_to_wait = told.retry_after_s is not None or told.is_used_up
    if answer.is_refused:
        return Verdict(Kind.REFUSED, told, status=status)
    if status in (420, 429) or answer.is_rate or (status in (403, 503) and is_asked_to_wait):
        if told.retry_after_s is None and told.reset_s is not None:
            told = msgspec.structs.replace(told, retry_after_s=told.reset_s)
        return Verdict(Kind.RATE_LIMITED, told, status=status)
    if status == 407:
        return Verdict(Kind.SETUP, told, status=status, advice=ADVICE["proxy"])
    if status in (401, 402, 403):
        return Verdict(Kind.REFUSED, told, status=status)
    if status in (408, 425) or status >= 500:
        return Verdict(Kind.TRANSIENT, told, status=status)
    return Verdict(Kind.PERMANENT, told, status=status, advice=_moved(answer) if status < 400 else "")


def _moved(answer: Answer) -> str:
    """Return where an answer says that what was asked for has moved to."""
    get = getattr(answer.headers, "get", None)
    where = (get("Location") or get("location")) if callable(get) else None
    return f"It has moved to {str(where)[:200]}: ask there, or let the client follow redirects." if where else ""
