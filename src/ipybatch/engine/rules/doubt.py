"""Doubt: whether one error that meets every item is theirs at all.

A model that is gone, a region that is blocked, a wrong set-up or a mistake in
the work fails each item for good, one after the other, and all in vain.

    watching --alike, in a row, no success so far--> asking --another item fails alike--> proved
        ^                                              |
        +------- it fails otherwise, or succeeds ------+

While it asks, nothing else starts.  What a service has not (404, 410), and
what the work itself calls permanent, is the item's and never counts.  Once an
item has succeeded only a 403 does: a key may be withdrawn, an address banned.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from ipybatch.engine.rules.classify import Kind, Verdict

ALIKE = 20  # items
ALIKE_OF_US = 3  # items that meet a fault of our own set-up

_ADDRESS = re.compile(r"https?://\S+")
_NUMBER = re.compile(r"\d+")
_FORBIDDEN = 403
_GONE = frozenset({404, 410})


class Doubt(msgspec.Struct):
    """Watch the permanent errors of a session.

    Attributes:
        alike: The items that did, by seq.
        text: What the last of them said.
        scope: Whose fault it would be.
        has_succeeded: Whether an item has, in this start.
    """

    state: Literal["watching", "asking", "proved"] = "watching"
    alike: list[int] = msgspec.field(default_factory=list)
    text: str = ""
    scope: Literal["account", "us"] = "account"
    has_succeeded: bool = False
    _sign: str = ""
    _is_asking: bool = False  # the item that is to tell is being tried

    @property
    def wants_one(self) -> bool:
        """Whether one item is to be tried, and nothing else."""
        return self.state == "asking" and not self._is_asking

    def ask(self) -> None:
        """Let the attempt that starts now tell."""
        self._is_asking = True

    def succeed(self) -> None:
        """Begin anew: something works."""
        if self._sign and self.state != "proved":
            self.state, self.alike, self._sign, self._is_asking = "watching", [], "", False

    def fail(self, item: int, error: BaseException, verdict: Verdict, text: str, label: str, *, asked: bool) -> None:
        """Count an item that failed for good.

        Args:
            item: Its seq.
            label: Its key as people read it, which makes no difference between two errors.
            asked: Whether it is the one that was to tell.
        """
        is_counted = not self.has_succeeded or verdict.status == _FORBIDDEN
        sign = _sign_of(error, verdict, text, label) if is_counted else ""
        is_alike = bool(sign) and sign == self._sign
        if asked:
            self._is_asking = False
            self.state = "proved" if is_alike else "watching"
            if not is_alike:
                self.alike, self._sign = [], ""
        if is_alike:
            self.alike.append(item)
        elif sign and self.state == "watching":
            self.alike, self._sign, self.text = [item], sign, text
            self.scope = "us" if verdict.kind is Kind.SETUP else "account"
        if self.state == "watching" and len(self.alike) >= (ALIKE_OF_US if self.scope == "us" else ALIKE):
            self.state = "asking"

    def conclude(self) -> None:
        """Take it for proved where nothing is left that could tell."""
        if self.state == "asking":
            self.state = "proved"

    @property
    def reason(self) -> str:
        """Why the session ends; "" while it need not."""
        if self.state != "proved":
            return ""
        return f"{len(self.alike)} items failed alike, and none succeeded{self._since}: {self.text}"

    @property
    def _since(self) -> str:
        return " since" if self.has_succeeded else ""

    @property
    def in_question(self) -> list[int]:
        """The items, by seq, of which it is not told yet whether they are at fault."""
        return [] if self.state == "watching" else self.alike

    @property
    def on_record(self) -> tuple[list[int], str]:
        """The items that run again, by seq, and their kind on record; also where the session ends while it asks."""
        if self.state == "watching":
            return [], ""
        return self.alike, (Kind.SETUP if self.scope == "us" else Kind.REFUSED).value

    def release(self) -> None:
        """Let another item tell: the one that was tried proves nothing."""
        self._is_asking = False


def _sign_of(error: BaseException, verdict: Verdict, text: str, label: str) -> str:
    """Return what two errors have in common that are alike; "" for one that is the item's own."""
    if verdict.kind is Kind.SETUP:
        return f"{type(error).__qualname__}: {_folded(text, label)}"
    if verdict.kind is not Kind.PERMANENT or verdict.status in _GONE or verdict.is_own:
        return ""
    if verdict.status is not None:
        return f"{type(error).__qualname__}: {verdict.status}"
    return f"{type(error).__qualname__}: {_folded(text, label)}"


def _folded(text: str, label: str) -> str:
    """Return a text without what differs from item to item: addresses, numbers, the item's own key."""
    said, key = (_NUMBER.sub("#", _ADDRESS.sub("", one)) for one in (text, label))
    return said.replace(key, "<key>") if key.strip("#") else said
