"""Split: a table in files, read by the workers of a backend into a storage, where partitions find their rows.

    files --look--> pieces --workers--> row files, summaries --plans--> workers --> blocks --> `SplitTable`

The session looks at some rows of some files, and puts summaries together; no other row reaches it. What a piece or a
block is made of makes its name: what is there, of an earlier call or of one that was killed, is not made again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import msgspec

from ipybatch.backends.process.protocol import Lost
from ipybatch.engine.data.spec import Backend
from ipybatch.errors import InputError, ItemError
from ipybatch.forecast.data.blocks import block_facts, gather
from ipybatch.forecast.data.cells import Style
from ipybatch.forecast.data.pieces import ROWS, SUMMARY, Piece, split
from ipybatch.forecast.data.repairs import NET_RETURNS, check_repair
from ipybatch.forecast.data.sources import check_unchanged, look
from ipybatch.forecast.data.summaries import SplitTable, Summaries
from ipybatch.forecast.storage import Storage
from ipybatch.forecast.training import check_shared

T = TypeVar("T")

_FORM = "1"  # of the files; another one is made anew


class _Call(NamedTuple):
    """A call on a worker, what it makes, and of which file of the user's."""

    work: Callable[..., str | None]
    arguments: tuple[Any, ...]
    makes: str
    of: str


def split_table(
    pieces: Sequence[Piece],
    storage: Storage,
    backend: Backend,
    slots: int,
    *,
    columns: Any = None,
    freq: Any = None,
    encoding: str | None = None,
    decimal: str | None = None,
    thousands: str | None = None,
    date_format: str | None = None,
    repair: Any = None,
) -> SplitTable:
    """Return a table whose files workers have read; the arguments by which it is read are those of `read_table`.

    Args:
        pieces: Of its files.
        storage: Where it is kept.
        backend: Where it is read.
        slots: Pieces at a time.

    Raises:
        Undecided: Several readings of the quantities or the dates fit; an argument decides.
        BadRows: No row can be used.
        InputError: A file cannot be read, a column is missing or may be several, files are written in different ways,
            or workers do not see the storage.
        MissingExtra: A package that reads the table is not installed.
    """
    asked = check_repair(repair)
    looked = look(pieces, columns, Style(decimal, thousands, date_format, freq), encoding)
    answers = msgspec.structs.replace(looked.answers, keeps_returns=NET_RETURNS in asked)
    files = [_name(piece, answers) for piece in pieces]
    splits = [
        _Call(split, (piece, answers, storage, name), name + SUMMARY, piece.name)
        for piece, name in zip(pieces, files, strict=True)
    ]

    async def make() -> SplitTable:
        await backend.open(slots)
        try:
            await check_shared(storage, backend)
            await _run(splits, storage, backend, slots)
            await asyncio.to_thread(check_unchanged, pieces)
            summaries = Summaries(storage, files, pieces, looked._replace(answers=answers), asked)
            plans = summaries.plans()
            blocks = [_name(plan) for plan in plans]
            gathers = [
                _Call(gather, (plan, storage, name), name + ROWS, "the table")
                for plan, name in zip(plans, blocks, strict=True)
            ]
            await _run(gathers, storage, backend, slots)
        finally:
            await backend.close()
        return summaries.table(storage, [(name, block_facts(storage, name)) for name in blocks], freq)

    return _awaited(make)


def _awaited(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what a coroutine returns, run in a thread: a cell has a loop of its own already. Ctrl-C cancels it."""
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []

    async def run() -> T:
        running.append((asyncio.get_running_loop(), asyncio.current_task()))
        return await make()

    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(lambda: asyncio.run(run()))
        try:
            return made.result()
        except KeyboardInterrupt:
            for loop, task in running:
                if task is not None:
                    loop.call_soon_threadsafe(task.cancel)
            raise


def _name(*of: Any) -> str:
    text = msgspec.json.encode((_FORM, *of), enc_hook=str)
    return hashlib.blake2b(text, digest_size=12).hexdigest()


async def _run(calls: Iterable[_Call], storage: Storage, backend: Backend, slots: int) -> None:
    """Make what is not there yet; the first that cannot be made ends all.

    Raises:
        InputError: A worker cannot make it; names the file.
        Exception: Whatever else a worker raises.
    """
    there = set(storage.names())
    room = asyncio.Semaphore(slots)
    try:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                if call.makes not in there:
                    group.create_task(_make(call, backend, room))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _make(call: _Call, backend: Backend, room: asyncio.Semaphore) -> None:
    async with room:
        while True:
            with suppress(Lost):  # by what ran beside it: it runs again
                try:
                    why = await backend.run(call.work, call.arguments)
                except ItemError as error:  # it took too long, or too much memory
                    msg = f"demand must be files that a worker can read, got {call.of!r}: {error}"
                    raise InputError(msg) from None
                if why:
                    raise InputError(why)
                return
