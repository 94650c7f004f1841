"""Link: the driver's side of the line to one worker.

Rule: everything here is called in the client's event loop.

    open --> push | pull, again and again --> lost, or closed

A request that fails is made again under its number.  The link is lost when the scheduler has no such worker any more,
when the worker is another process than before, or when it could not be asked for `_PATIENCE_S`: then nothing is asked
until its lease has ended, so that what runs there has ended too before it runs elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable
from typing import Any

from ipybatch.backends.dask import protocol, worker
from ipybatch.backends.dask.call import Call, Told
from ipybatch.backends.dask.protocol import Frame, Frames

_PATIENCE_S = 5.0
_AGAIN_S = 0.2
_GONE_S = 5.0  # a worker that is silent for so long when it is left counts as gone
_FORGOTTEN = f"it was started anew, or heard nothing for {protocol.LEASE_S:g} s, as when this process stands"
_numbers = itertools.count(1)


class LineLostError(Exception):
    """The worker is gone, or its line is."""


class Link:
    """The line to one worker.

    Args:
        client: The client of Dask.
        address: The worker's.
        threads: The worker's: so many processes it runs at a time.
        on_told: Called with what the worker says of attempts.
        on_lost: Called when the line is lost; the attempts in ``running`` are.

    Attributes:
        running: The attempts that it was sent, by number.
        isolated: How many of them run in a process of their own.
        defined: The work functions that it has.
        cause: Why it was lost; None where that is all that is known.
        is_open: Whether the worker can be told anything.
        takes: Whether it is to be sent attempts: not where it is being closed.
    """

    def __init__(
        self,
        client: Any,
        address: str,
        threads: int,
        options: worker.WorkerOptions,
        *,
        on_told: Callable[[list[Told]], object],
        on_lost: Callable[[Link], object],
    ) -> None:
        self.address, self.threads = address, threads
        self.running: dict[int, Call] = {}
        self.isolated = 0
        self.defined: set[int] = set()
        self.is_open, self.takes = False, True
        self.cause: Exception | None = None
        self._client, self._options = client, options
        self._on_told, self._on_lost = on_told, on_lost
        self._name = f"{options.backend}-{next(_numbers)}"
        self._messages: list[protocol.FromDriver] = []
        self._frames: list[Frame] = []
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def runs_suspect(self) -> bool:
        """Whether it runs an attempt that is to be alone there."""
        return any(call.is_suspect for call in itertools.islice(self.running.values(), 1))

    async def open(self) -> None:
        """Open the line.

        Raises:
            Exception: The worker does not have this package, or another version of it.
            OSError: It cannot be reached.
        """
        asked = self._name, protocol.VERSION, self._options
        try:
            await self._client.run(worker.open_line, *asked, workers=[self.address])
        except asyncio.CancelledError:
            await self._close()  # it may be open there
            raise
        self.is_open = True
        self._tasks = [asyncio.ensure_future(self._serve(loop)) for loop in (self._push, self._pull)]

    def send(self, message: protocol.FromDriver, frames: Frames = ()) -> None:
        """Tell the worker something, with the next push."""
        self._messages.append(message)
        self._frames += frames
        self._news.set()

    def run(self, call: Call) -> None:
        """Run an attempt on this worker."""
        call.send = self.send
        self.running[call.number] = call
        self.isolated += call.is_isolated
        defined = call.defined
        if defined.number and defined.number not in self.defined:
            self.defined.add(defined.number)
            self.send(protocol.Define(defined.number, defined.kind), [defined.frame])
        self.send(protocol.Run(call.number, defined.number, call.handed, len(call.frames)), call.frames)

    def forget(self, work: int) -> None:
        """Let the worker forget a work function."""
        if work in self.defined:
            self.defined.discard(work)
            self.send(protocol.Forget(work))

    def lose(self) -> None:
        """Take it for lost."""
        if self.is_open:
            self.is_open = False
            self._end()
            self._on_lost(self)

    async def leave(self) -> None:
        """Take it for lost once it has ended what it ran: the cluster has let go of a worker that may still run."""
        self.takes = False
        await self._close()
        self.lose()

    async def close(self) -> None:
        """End what runs on the worker."""
        self.is_open = False
        await self._close()
        self._end()

    async def _close(self) -> None:
        with contextlib.suppress(Exception):  # one that cannot be reached ends it by itself
            await asyncio.wait_for(self._ask("close"), _GONE_S)

    def _end(self) -> None:
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    async def _serve(self, loop: Callable[[], Any]) -> None:
        try:
            await loop()
        except LineLostError as error:
            self.cause = error
        except Exception as error:  # a message that cannot be sent or read: what runs there ends with its lease
            self.cause = error
            await self._outwait()
        self.lose()

    async def _outwait(self) -> None:
        """Say nothing more, and wait until a worker that hears nothing has ended what it ran."""
        self._end()
        await asyncio.sleep(protocol.LEASE_S + 1.0)

    async def _push(self) -> None:
        for number in itertools.count(1):
            await self._news.wait()
            self._news.clear()
            messages, frames = self._messages, self._frames
            self._messages, self._frames = [], []
            await self._insist("push", number, protocol.encode_batch(messages, frames))

    async def _pull(self) -> None:
        for number in itertools.count(1):
            reply = await self._insist("pull", number)
            messages, frames = protocol.read_pull((reply["body"], list(reply["large"])))
            if messages:
                self._tell(messages, frames)

    def _tell(self, messages: list[protocol.FromWorker], frames: list[Frame]) -> None:
        given = iter(frames)
        told: list[Told] = []
        for message in messages:
            call = self.running.get(message.number)
            answer: list[Frame] = []
            if isinstance(message, protocol.Ended):
                answer = [next(given) for _ in range(message.frames)]
                if self.running.pop(message.number, None) is not None and call is not None:
                    self.isolated -= call.is_isolated
            if call is not None:
                told.append((call, message, answer))
        self._on_told(told)

    async def _insist(self, act: str, number: int, batch: protocol.Batch = (b"", [])) -> Any:
        """Ask until there is an answer.

        Raises:
            LineLostError: There will be none.
        """
        gives_up_s = 0.0
        while True:
            try:
                reply = await self._ask(act, number, batch)
            except Exception as error:
                is_closed = self._client.status not in ("running", "connecting")
                if not is_closed:
                    await asyncio.sleep(_AGAIN_S)  # so that the scheduler knows by then whether the worker is gone
                if is_closed or not await self._is_there():
                    raise LineLostError from error
                now_s = time.monotonic()
                gives_up_s = gives_up_s or now_s + _PATIENCE_S
                if now_s >= gives_up_s:
                    await self._outwait()
                    msg = f"it did not answer for {_PATIENCE_S:g} s"
                    raise LineLostError(msg) from error
                continue
            if reply is None:
                raise LineLostError(_FORGOTTEN)
            return reply

    async def _ask(self, act: str, number: int = 0, batch: protocol.Batch = (b"", [])) -> Any:
        told = protocol.as_message(batch) if batch[0] else {}
        msg = {"op": protocol.OPERATION, "line": self._name, "act": act, "number": number, **told}
        return await self._client.scheduler.proxy(worker=self.address, msg=msg)

    async def _is_there(self) -> bool:
        try:
            return self.address in await self._client.scheduler.ncores()
        except Exception:  # the scheduler is away: that says nothing of the worker
            return True
