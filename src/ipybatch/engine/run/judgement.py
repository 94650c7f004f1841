"""Judgement: what the error of an attempt means, and what is told and recorded of it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec

from ipybatch.engine.data.clock import Clock, SystemClock
from ipybatch.engine.data.masking import describe, mask
from ipybatch.engine.data.outcome import encode_result
from ipybatch.engine.data.policy import Retry
from ipybatch.engine.data.spec import Spec
from ipybatch.engine.data.user_frames import last_user_frame
from ipybatch.engine.rules import retry
from ipybatch.engine.rules.classify import Kind, Verdict, classify, culprit
from ipybatch.engine.rules.client_errors import is_timeout
from ipybatch.engine.rules.scheduler import Ticket
from ipybatch.engine.run.watchdog import LATEST
from ipybatch.errors import ItemError


class Judgement(msgspec.Struct, frozen=True):
    """What an error means.

    Attributes:
        text: It in one line.
        kind: One word for it: the error's own, else that of the verdict.
        advice: What the user can do about it; "" where nothing is known.
        back_off_s: How long the error itself says that this item waits by itself; None if it does not.
        result: What was received all the same, and as JSON; None for nothing.
    """

    verdict: Verdict
    text: str
    kind: str
    advice: str = ""
    back_off_s: float | None = None
    result: Any = None
    payload: bytes | None = None

    @property
    def is_of_item(self) -> bool:
        """Whether it says nothing of the service, nor of our set-up for all."""
        return self.verdict.kind in (Kind.PERMANENT, Kind.SETUP) and not self.verdict.ends_session

    def wait_s(self, policy: Retry, attempts: int, paid: int, now_unix_s: float, chance: random.Random) -> float:
        """Return how long the item waits by itself before it is tried again, seconds, where the resource does not.

        Args:
            paid: How many of its attempts count.
        """
        verdict = self.verdict
        if verdict.kind is Kind.RATE_LIMITED:
            if self.back_off_s is None:
                return retry.alone_s(policy, attempts, now_unix_s, chance)
            return self.back_off_s
        if verdict.scope == "us":
            return retry.back_off_s(policy, attempts, chance)
        return retry.back_off_s(policy, max(1, paid), chance) if verdict.counts else 0.0


def judge(  # noqa: PLR0917  # what happened, and what went before
    error: BaseException, ticket: Ticket, spec: Spec, clock: Clock, has_succeeded: bool, is_overrun: bool
) -> Judgement:
    """Return what the error of an attempt means.

    Args:
        has_succeeded: Whether any item of the session has, now or before.
        is_overrun: Whether the attempt was stopped for its ``timeout_s``.
    """
    if is_overrun:
        return Judgement(Verdict(Kind.TIMEOUT), f"Exceeded {spec.timeout_s:g} s", Kind.TIMEOUT.value)
    blamed = culprit(error)
    text = describe(blamed)
    if isinstance(blamed, asyncio.CancelledError):  # not by us
        neutral = Verdict(Kind.TRANSIENT, is_neutral=True)
        return Judgement(neutral, "something cancelled the attempt from outside", neutral.kind.value)
    try:
        verdict = classify(error, spec.retry, clock.unix_s(), has_succeeded=has_succeeded)
    except BaseException as raised:  # a property of the user's error, or the function of Retry(on=)
        text = f"{text} (it cannot be judged: {describe(raised)})"
        return Judgement(Verdict(Kind.PERMANENT), text, Kind.PERMANENT.value)
    if verdict.kind is Kind.TIMEOUT and ticket.gave_up:  # a timeout of the work's own around our waiting
        verdict = msgspec.structs.replace(verdict, is_neutral=True)
    is_real = isinstance(clock, SystemClock)
    if verdict.counts and verdict.status is None and is_real and is_timeout(error):
        stalled = LATEST.since(ticket.permit.started_s)  # the loop did not turn
        if stalled:
            verdict = Verdict(Kind.TRANSIENT, is_neutral=True, advice=stalled, whose="us")
    if verdict.scope == "us":
        text = f"{text}: {verdict.advice} {last_user_frame(blamed)}".rstrip(": ")
    kind, advice, back_off_s = _said_by(blamed, verdict)
    return Judgement(verdict, text, kind, advice or verdict.advice, back_off_s, *_received(blamed))


def _received(error: BaseException) -> tuple[Any, bytes | None]:
    """Return what an error says was received all the same, and as JSON; nothing where JSON cannot hold it."""
    try:
        result = error.result if isinstance(error, ItemError) else None
        return result, encode_result(result)
    except BaseException:  # a property of the user's class
        return None, None


def _said_by(error: BaseException, verdict: Verdict) -> tuple[str, str, float | None]:
    """Return an error's own kind, advice and wait, where it has any that are what they must be."""
    if not isinstance(error, ItemError):
        return verdict.kind.value, "", None
    try:
        kind, advice, wait_s = error.kind, error.advice, getattr(error, "back_off_s", None)
    except BaseException:  # a property of the user's class
        return verdict.kind.value, "", None
    return (
        mask(kind) if isinstance(kind, str) else verdict.kind.value,
        mask(advice) if isinstance(advice, str) else "",
        float(wait_s) if isinstance(wait_s, int | float) and 0.0 <= wait_s < retry.FOREVER_S else None,
    )
