"""Refusal: an answer that refuses, and how errors become one.

Rule: it says what was wrong and what to do, and no path, token, traceback or
body of an item.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from tornado import web

from ipybatch.engine.store.journal_errors import is_busy
from ipybatch.errors import BatchError, EngineBusy, JournalError, JournalLocked, MissingExtra

RETRY = {"Retry-After": "1"}  # of a journal that another program holds just now
_PATH = re.compile(r"(?<![\w.:/*])(?:/|[A-Za-z]:\\)(?:[^\s'\":,;()]+[/\\])*(?=[^\s'\":,;()/\\])")


class Refusal(web.HTTPError):
    """An answer that refuses, and says what the reader can do.

    Args:
        status: Of HTTP.
        detail: What is wrong, in a sentence.
        field: What was wrong; ``value``: what it was; ``allowed``: what it may be.
        headers: To be sent with it.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        field: str = "",
        value: Any = None,
        allowed: Any = None,
        next_step: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail.replace("%", "%%"))
        self.detail, self.field, self.value, self.allowed, self.next_step = detail, field, value, allowed, next_step
        self.headers = headers or {}


def as_refusal(error: Any, status: int = 500) -> Refusal:
    """Return how an error is told: ours by what the reader can do about it, others without their words."""
    if isinstance(error, Refusal):
        return error
    money = sys.modules.get("ipybatch.gemini.money.credits")  # not loaded for this: who raised one has done so
    if money is not None and isinstance(error, money.InsufficientCredits):
        step = "grant credits from Python, or submit less"
        need, available = float(error.need), float(error.available)
        return Refusal(402, str(error), field="credits", value=need, allowed=available, next_step=step)
    if isinstance(error, BatchError):
        return _ours(error)
    if isinstance(error, web.HTTPError):
        return Refusal(error.status_code, error.reason or error.log_message or HTTPStatus(error.status_code).phrase)
    return Refusal(max(status, 500), "something is wrong in the server: its log says what")


def _ours(error: BatchError) -> Refusal:
    if isinstance(error, MissingExtra):
        return Refusal(422, "a package that this needs is not installed", next_step=str(error))
    if isinstance(error, JournalError) and is_busy(error):
        return Refusal(503, str(error), next_step="ask again", headers=RETRY)
    if isinstance(error, JournalLocked | EngineBusy):  # who runs it holds it, or is about to
        return Refusal(409, str(error), next_step="ask again")
    if isinstance(error, JournalError):
        return Refusal(503, str(error), next_step="see the log of the server")
    told = {name: found for name in ("field", "value", "allowed", "next_step") if (found := getattr(error, name, None))}
    return Refusal(422, str(error), **told)


def without_paths(text: str) -> str:
    """Return a text in which files are named without their folders."""
    return _PATH.sub("", text)
