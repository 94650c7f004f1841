"""Outcome: how an item ended and which results can be kept; how a session ended."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from ipybatch.engine.data.events import Counts, State, Status
from ipybatch.engine.data.masking import isolated, mask_bytes
from ipybatch.errors import Permanent

encoder = msgspec.json.Encoder()
decode = msgspec.json.Decoder().decode

_PLAIN = frozenset({type(None), bool, int, str})


class Outcome(msgspec.Struct, kw_only=True, frozen=True):
    """How one item ended.

    Attributes:
        key: Canonical JSON of the item's key.
        status: "completed", "failed", "timeout", "cancelled" or "skipped".
        result: What the work returned; of an item that failed, what its error says was received all the same.
        error: One line; "" when completed.
        attempts: How often it was tried in this run.
        seconds: Of its last attempt.
        kind: One word for how it failed, such as "permanent" or "timeout"; "" when completed.
        advice: What the user can do about it, where the error said so in this process; "" otherwise.
        traceback: The last frames of the user's own code, one a line, the innermost last; "" where there are none.
        scope: Whose fault it is: "item", "service", "rate", "account" or "us"; "" where nothing failed.
    """

    key: str
    status: Status
    result: Any = None
    error: str = ""
    attempts: int = 0
    seconds: float = 0.0
    kind: str = ""
    advice: str = ""
    traceback: str = ""
    scope: str = ""


class Try(msgspec.Struct, kw_only=True, frozen=True):
    """An attempt that failed and was followed by another."""

    attempt: int
    seconds: float
    error: str


class RecordedItem(msgspec.Struct, kw_only=True, frozen=True):
    """An item's outcome, and the attempts before it.

    Attributes:
        traceback: As of `Outcome`.
    """

    key: str
    status: Status
    attempts: int
    seconds: float
    error: str
    tries: list[Try]
    traceback: str = ""


class BadResult(Permanent):
    """A result that JSON cannot hold."""


def encode_result(result: Any) -> bytes | None:
    """Return ``result`` as JSON, None for None.

    Raises:
        BadResult: Something in it is not None, bool, int, finite float, str, list or dict with str keys; names it.
    """
    if result is None:
        return None
    try:
        _check(result, "result")
        return mask_bytes(encoder.encode(result))
    except RecursionError:
        msg = "result is nested too deeply, or contains itself"
        raise BadResult(msg) from None
    except UnicodeEncodeError as error:
        msg = f"result has text that is not valid Unicode: {error.reason}"
        raise BadResult(msg) from None


def _check(value: Any, field: str) -> None:
    kind = type(value)
    if kind in _PLAIN:
        return
    if kind is float:
        if not math.isfinite(value):
            msg = f"{field} is {value}; results must be finite numbers: return None instead"
            raise BadResult(msg)
    elif kind is dict:
        for name, inner in value.items():
            _check_name(name, field)
            if type(inner) not in _PLAIN:
                _check(inner, f"{field}[{name!r}]")
    elif kind is list:
        for index, inner in enumerate(value):
            if type(inner) not in _PLAIN:
                _check(inner, f"{field}[{index}]")
    else:
        msg = (
            f"{field} is a {kind.__module__}.{kind.__qualname__}; results are None, bool, int, float, str, list or"
            " dict: convert it before you return it"
        )
        raise BadResult(msg)


def _check_name(name: Any, field: str) -> None:
    if type(name) is not str:
        msg = f"{field} has the key {name!r} ({type(name).__name__}); keys must be str"
        raise BadResult(msg)


class Summary(msgspec.Struct, frozen=True):
    """How a session ended.

    Attributes:
        reason: Why it ended early; "" when it did not.
        seconds: From its start to its end, in this process.
    """

    name: str
    state: State
    counts: Counts
    reason: str
    seconds: float

    def __str__(self) -> str:
        counts = self.counts
        total = counts.ended if counts.total is None else counts.total
        line = (
            f"{isolated(self.name)} {self.state}: {counts.completed}/{total} successful,"
            f" {counts.failed + counts.timeout} failed, {counts.skipped} skipped"
        )
        if counts.cancelled:
            line += f", {counts.cancelled} cancelled"
        return f"{line} ({isolated(self.reason)})" if self.reason else line
