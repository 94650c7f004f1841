"""Spawned: each attempt in a new interpreter, where there is no supervisor (macOS, Windows).

What is weaker than on Linux: memory is watched but not limited, what an attempt
printed is not known, and a process that detaches itself from its parent may go
on.  An attempt ends itself when the kernel's line ends, unless C code of its
own holds the interpreter.

psutil tells the processes and their memory, as ipykernel has it on every system.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from ipybatch.backends import wire
from ipybatch.backends.supervised import THREADS, Answer
from ipybatch.backends.threads import Threads
from ipybatch.errors import MissingExtra

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from ipybatch.backends.child import main;"
    " main(sys.argv[2:])"
)
_TICK_S = 0.05


class Spawned:
    """Run attempts as children of the kernel.

    Raises:
        MissingExtra: psutil is not installed.
    """

    is_lost = False

    def __init__(self, preload: Sequence[str]) -> None:
        if importlib.util.find_spec("psutil") is None:
            raise MissingExtra("forecast")
        self._preload = preload
        self._threads = Threads()

    async def run(
        self, parts: wire.Parts, *, timeout_s: float | None, memory_mb: float | None
    ) -> tuple[Answer, wire.Ended]:
        """Run one attempt; return when it is gone, also when cancelled."""
        attempt = _Attempt(self._preload, timeout_s, memory_mb)
        talk = asyncio.ensure_future(self._threads.run(attempt.talk, (parts,)))
        cancelled: asyncio.CancelledError | None = None
        while not talk.done():
            try:
                await asyncio.wait({talk}, timeout=_TICK_S)
            except asyncio.CancelledError as error:
                cancelled = error
                attempt.kill("cancel")
            attempt.watch(time.monotonic())
        ended = attempt.end()
        if cancelled is not None:
            raise cancelled
        return talk.result(), ended

    async def close(self) -> None:
        """Let the idle threads end."""
        await self._threads.close()


class _Attempt:
    def __init__(self, preload: Sequence[str], timeout_s: float | None, memory_mb: float | None) -> None:
        self._process = subprocess.Popen(  # noqa: S603  # our own program
            [sys.executable, "-u", "-c", _PROGRAM, json.dumps(sys.path), *preload],
            env={**os.environ, **dict.fromkeys(THREADS, "1")},
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._timeout_s, self._memory_mb = timeout_s, memory_mb
        self._deadline_s: float | None = None
        self._base_mb: float | None = None
        self._why = ""

    def talk(self, parts: wire.Parts) -> Answer:
        """Hand it its work and return its answer; None when it gave none."""
        line, answers = self._process.stdin, self._process.stdout
        assert line is not None
        assert answers is not None
        try:
            wire.send(line, parts)  # type: ignore[arg-type]  # raw files both: bufsize is 0
            if answers.read(1) == wire.READY:
                self._base_mb = _taken_mb(self._process.pid)
                if self._timeout_s is not None:
                    self._deadline_s = time.monotonic() + self._timeout_s
                answers.read(1)
            self._deadline_s = None
            return wire.receive(answers)  # type: ignore[arg-type]
        except (OSError, EOFError):
            return None

    def watch(self, now_s: float) -> None:
        """Kill it when it has taken too long, or too much."""
        deadline_s = self._deadline_s
        if deadline_s is not None and now_s >= deadline_s:
            self.kill("timeout")
        elif self._memory_mb is not None and self._own_mb() > self._memory_mb:
            self.kill("memory")

    def _own_mb(self) -> float:
        return 0.0 if self._base_mb is None else _taken_mb(self._process.pid) - self._base_mb

    def kill(self, why: str) -> None:
        """End it and all that it started; the first reason counts."""
        self._why = self._why or why
        # The attempt first: one whose helper is killed must not live to take that for an answer.
        for process in _tree(self._process.pid):
            with contextlib.suppress(Exception):  # it ended by itself meanwhile
                process.kill()
        if sys.platform != "win32":
            with contextlib.suppress(OSError):  # those whose parents have ended
                os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> wire.Ended:
        """Let nothing be left of it, and return how it ended."""
        self.kill("")
        with self._process:  # waits, and closes its lines
            pass
        return wire.Ended(0, self._process.returncode, self._why)


def _tree(pid: int) -> list[Any]:
    psutil: Any = importlib.import_module("psutil")  # its types are not among ours
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def _taken_mb(pid: int) -> float:
    taken = 0.0
    for process in _tree(pid):
        with contextlib.suppress(Exception):  # it ended meanwhile
            taken += process.memory_info().rss / 2**20
    return taken
