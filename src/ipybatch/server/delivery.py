"""Delivery: the server sends what other processes left to be sent, in all journals of this user.

    files' stamps --changed, or something is due--> one look at that journal's outbox --> `notify.delivery.Round`

Rule: a kernel sends its own sessions' messages; here is what it could not: what
is tried again later, what was left by a process that died after its commit,
and that a session's process died at all.  It has a thread of its own: a mail
server that hangs keeps nobody else waiting.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ipybatch.engine.data.masking import describe
from ipybatch.engine.store.history import Gone
from ipybatch.errors import JournalError
from ipybatch.server.journal_files import JournalFiles, Stamp
from ipybatch.server.ticks import until_tick

SELDOM_S = 60.0  # until a journal is looked at again that could not be

_log = logging.getLogger(__name__)


class Delivery:
    """Looks at outboxes, in one thread.

    Args:
        files: Which journals there are.
        rest_s: Returns the seconds until the next look.
    """

    def __init__(self, files: JournalFiles, rest_s: Callable[[], float] = until_tick) -> None:
        self._files, self._rest_s = files, rest_s
        self._seen: dict[Path, tuple[Stamp, float | None]] = {}  # and when it is looked at all the same
        self._stopped = threading.Event()

    async def run(self) -> None:
        """Look again and again, as long as the server runs."""
        threading.Thread(target=self._loop, name="ipybatch-delivery", daemon=True).start()
        try:
            await asyncio.Event().wait()
        finally:
            self._stopped.set()

    def _loop(self) -> None:
        while not self._stopped.wait(self._rest_s()):
            try:
                self.look()
            except Exception:
                _log.exception("messages cannot be delivered for a moment")

    def look(self) -> int:
        """Send what is due in journals that were written, or have something due; return how many messages were sent."""
        files, sent = self._files.look(), 0
        for key, path in files.paths.items():
            stamp, now_s = files.stamps[key], time.time()
            seen, due_s = self._seen.get(path, (None, None))
            if stamp and (seen != stamp or (due_s is not None and due_s <= now_s)) and not self._stopped.is_set():
                count, due_s = self._deliver(path)
                self._seen[path] = stamp, due_s
                sent += count
        return sent

    def _deliver(self, path: Path) -> tuple[int, float | None]:
        # With what it needs of the standard library, once there is a journal.
        from ipybatch.notify.delivery import LONGEST_REST_S, Round

        try:
            done = Round(path).run()
        except Gone:
            return 0, None
        except JournalError as error:
            _log.debug("the outbox of %s cannot be looked at: %s", path.name, describe(error))
            return 0, time.time() + SELDOM_S
        except Exception:  # of one journal: the others are looked at
            _log.exception("the outbox of %s cannot be looked at", path.name)
            return 0, time.time() + SELDOM_S
        if done.is_awaited:
            return done.sent, 0.0  # that a process is gone, time alone tells
        return done.sent, None if done.next_s is None else min(done.next_s, time.time() + LONGEST_REST_S)
