"""Waiting: items that wait for the answer of a remote job."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import msgspec

from ipybatch.engine.run.permits import Attempt
from ipybatch.errors import BatchError, ItemError, Permanent, Transient
from ipybatch.gemini.chunks import Request, chunks
from ipybatch.gemini.prompts import Prompt, Sending

Body = dict[str, Any]


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How jobs are made and awaited.

    Attributes:
        max_requests: In one job.
        max_active: Jobs at the same time.
        poll_s: Before the first look at a job; grows.
        wait_s: How long results are awaited; then jobs are left running.
    """

    max_requests: int
    max_active: int
    poll_s: float
    wait_s: float

    def left_running(self, jobs: int) -> str:
        """Return why a session ends when jobs took too long."""
        which = "1 job is" if jobs == 1 else f"{jobs} jobs are"
        return f"{which} still running at Gemini after {self.wait_s:g} s: run it again to pick up the results"


class TooLate(ItemError):
    """Say that the batch did not come back in time: the item goes another way."""


class Waiting(msgspec.Struct, frozen=True):
    """An item, and who waits for its answer.

    Attributes:
        key: What it is known by in a job.
    """

    key: str
    prompt: Prompt
    attempt: Attempt
    answer: asyncio.Future[Body]

    def request(self, sending: Sending) -> Request | None:
        """Return what is sent for it; None when it fails, alone: a file is not what it was, or too large."""
        try:
            images = bool(self.prompt.images) or sending.wants_image(self.prompt.config)
            request = Request.of(self.key, self.prompt.wire(sending), images=images)
            next(chunks([request]))
        except BatchError as error:
            self.fail(error if isinstance(error, ItemError) else Permanent(str(error)))
            return None
        return request

    def succeed(self, body: Body) -> None:
        """Hand it its answer, unless it has one."""
        if not self.answer.done():
            self.answer.set_result(body)

    def fail(self, error: ItemError) -> None:
        """Answer with an error, unless there is an answer; it says nothing of the service as a whole."""
        if not self.answer.done():
            self.answer.set_exception(Transient(str(error), counts=False) if isinstance(error, Transient) else error)


def key_of(model: str, sending: Sending, prompt: Prompt, key: str) -> str:
    """Return what an item is known by in a job: a hash of its key and all that is sent."""
    sent = msgspec.json.encode((model, key, sending.settings(), prompt._ipybatch_sent_), order="deterministic")
    return hashlib.blake2b(sent, digest_size=12).hexdigest()
