"""Call: an attempt on a worker, as the engine knows it.

Rule: all of it but the fields is used in the engine's loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ipybatch.backends.dask import protocol
from ipybatch.backends.dask.protocol import Frame, Frames, Handed, Kind
from ipybatch.backends.process.worker_main import encode_error
from ipybatch.engine.rules.limiter import Permit
from ipybatch.engine.run.attempt import Attempt


class Defined(msgspec.Struct, eq=False):
    """A work function as it is sent, once to each worker.

    Attributes:
        number: Its name; 0 where it goes with each attempt, to a process.
        calls: Attempts that have not ended.
    """

    work: Callable[..., Any]
    kind: Kind
    number: int = 0
    frame: bytes = b""
    calls: int = 0


End = (
    tuple[protocol.Ended, list[Frame]] | Exception
)  # the last that a worker said, with the answer; or why there is none
Say = Callable[[protocol.FromDriver, Frames], object]


class Call(msgspec.Struct, eq=False):
    """An attempt.

    Attributes:
        ended: Done when it has ended.
        left: Done when its worker said that it cannot be ended.
        grants: The tasks that wait for its further permits, and have them.
        say: Tells its worker something, from the engine's loop.
        send: The same in the client's loop; None while it waits for a worker.
        is_suspect: Whether it is to have a worker to itself.
    """

    number: int
    defined: Defined
    frames: list[Frame]
    loop: asyncio.AbstractEventLoop
    ended: asyncio.Future[End]
    attempt: Attempt | None = None
    handed: Handed | None = None
    say: Say | None = None
    left: asyncio.Future[None] | None = None
    grants: dict[int, asyncio.Task[Permit | None]] = msgspec.field(default_factory=dict)
    send: Say | None = None
    is_suspect: bool = False

    def __repr__(self) -> str:
        return f"Call({self.number})"  # the frames are the user's, and may hold a key

    @property
    def is_isolated(self) -> bool:
        """Whether it runs in a process of its own."""
        return self.defined.kind == "process"

    def end(self, end: End) -> None:
        """Note how it has ended."""
        if not self.ended.done():
            self.ended.set_result(end)

    def hear(self, message: protocol.FromWorker, frames: list[Frame]) -> None:
        """Hear what its worker says of it."""
        attempt = self.attempt
        if isinstance(message, protocol.Ended):
            self.end((message, frames))
        elif isinstance(message, protocol.GoesOn):
            if self.left is not None and not self.left.done():
                self.left.set_result(None)
        elif attempt is not None and not attempt._is_over:
            self._ask(attempt, message)

    def _ask(self, attempt: Attempt, message: protocol.Request) -> None:
        """Ask the engine for what the work asks for."""
        engine = attempt._engine
        match message:
            case protocol.Ask():
                self.grants[message.ask] = self.loop.create_task(self._grant(attempt, message))
            case protocol.Release():
                grant = self.grants.pop(message.ask, None)
                if grant is not None and not grant.done():
                    grant.cancel()
                elif grant is not None and (permit := grant.result()) is not None:
                    engine.release(permit)
            case protocol.Join():
                engine.join(message.group)
            case protocol.Heed():
                engine.heed(message.headers)
            case protocol.Stand():
                engine.stand(message.change)
            case protocol.GiveUp():
                engine.give_up()
            case protocol.Billed():
                attempt.is_billed = message.is_billed

    async def _grant(self, attempt: Attempt, asked: protocol.Ask) -> Permit | None:
        assert self.say is not None
        try:
            permit = await attempt._acquire(asked.cost)
        except Exception as error:
            frames = [bytes(part) for part in encode_error(error)[1:]]
            self.say(protocol.Denied(self.number, asked.ask, len(frames)), frames)
            return None
        self.say(protocol.Granted(self.number, asked.ask), ())
        return permit

    def close(self) -> None:
        """Wait for no further permit."""
        for grant in self.grants.values():
            grant.cancel()


Told = tuple[Call, protocol.FromWorker, list[Frame]]


def hear(told: Sequence[Told]) -> None:
    """Hear what workers say of attempts of one loop."""
    for call, message, frames in told:
        call.hear(message, frames)
