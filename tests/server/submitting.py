"""Submissions for tests: what is ordered, who owns a row, and processes in place of kernels."""

import asyncio
import functools
import os
import re
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from ipybatch import BatchSession, Limits, Permanent
from ipybatch.engine.store import lease
from ipybatch.server import submission_rows as rows
from ipybatch.server import templates
from ipybatch.server.run import work
from ipybatch.server.submission_rows import Order
from ipybatch.server.submission_store import Submissions
from ipybatch.server.supervisor import Reply, Supervisor
from ipybatch.server.templates.template import Checked, check_count
from ipybatch.server.wire import Quote

DEAD = f"{lease._HOST}/4194304/dead"  # Linux gives no process this number
OTHER = f"{lease._HOST}/{os.getppid()}/other"  # a process that is there, and is not this one
AWAY = "another-machine/7/away"


def order(**given):
    """Return an order of a kind that needs nothing."""
    about = {"template": "words", "name": "", "request": b"{}", "digest": "d", "requests": 4}
    return Order(**{**about, **given})


def paid(amount=8, **given):
    """Return one that costs credits."""
    return order(account="default", operation="character", credits=Decimal(amount), **given)


def set_row(store, row, **columns):
    """Change the row of a submission, as another process would."""
    with closing(sqlite3.connect(store.path, isolation_level=None)) as database:
        fields = ", ".join(f"{name} = ?" for name in columns)
        database.execute(f"UPDATE submission SET {fields} WHERE id = ?", (*columns.values(), row.id))


class Time:
    """Time that passes when it is told to."""

    def __init__(self, now_s=1_000_000.0):
        self.now_s = now_s

    def __call__(self):
        return self.now_s


class Words:
    """A template of which each request is a word: it is written to a file, once the gate is open."""

    def check(self, request, options):
        """Return two credits a word, where `paid` says so."""
        requests = check_count(request, options)
        paid = Decimal(2 * len(requests)) if request.params.get("paid") else None
        return Checked(requests=len(requests), operation="character", units=len(requests), credits=paid)

    def quote(self, request, options):
        """Return that it takes a second a word."""
        count = self.check(request, options).requests
        return Quote(
            template="words", request_count=count, seconds=(1.0, count), usd=None, credits=None, quote=[], notes=[]
        )

    def session(self, request, *, name, journal, options=None):
        """Return the session, which writes each word when it begins, and ends once the file `gate` is there."""
        gate, log = (Path(request.params[field]) for field in ("gate", "log"))

        async def work(word):
            with log.open("a") as file:
                file.write(f"{word} {os.getpid()} {time.time()}\n")
            while not gate.exists():  # noqa: ASYNC110  # of another process, too
                await asyncio.sleep(0.02)
            if word == "bad":
                raise Permanent(word)
            return {"word": word.upper(), "file": str(log.with_name(f"{word}.png"))}

        return BatchSession(name, work, request.requests, journal=journal, limits=Limits(concurrency=4))

    def used(self, session, *, since_s=0.0):
        """Return two credits a word."""
        return Decimal(2 * session.counts.completed)


def add_words():
    """Let this process have the template."""
    templates.TEMPLATES = {**templates.TEMPLATES, "words": Words()}


class Threads:
    """In place of kernels: each is a thread of this process, that runs what a kernel would.

    Attributes:
        instead: Replies of the next ones, in which nothing runs.
        started: How many were started; ``stopped``: the ids of those that were shut down.
    """

    def __init__(self):
        self.instead, self.started, self.stopped = [], 0, []
        self._threads = ThreadPoolExecutor(8)

    def close(self):
        """Wait for the end of what they run."""
        self._threads.shutdown()

    async def start(self, row):
        """Return the id of one."""
        self.started += 1
        return f"{os.getpid()}-{self.started}"

    async def execute(self, kernel, line):
        """Run the submission that a line names."""
        if self.instead:
            return self.instead.pop(0)
        (submission,) = re.findall(r'main\("(\w+)"\)', line)
        run = functools.partial(work, submission, kernel=kernel)
        await asyncio.get_running_loop().run_in_executor(self._threads, run)
        return Reply()

    async def stop(self, kernel):
        """Note it: a thread cannot be killed."""
        self.stopped.append(kernel)


async def supervise(store, kernels, until, *, most=2, look_s=0.02, pool=None, is_asleep=lambda: False):
    """Run a supervisor until something is true of it all.

    Args:
        is_asleep: Whether it finds nothing to start, whatever there is.
    """

    def blocking(call, *arguments):
        return asyncio.get_running_loop().run_in_executor(pool, call, *arguments)

    running = asyncio.ensure_future(
        Supervisor(lambda: None if is_asleep() else store, kernels, blocking, most=most, look_s=look_s).run()
    )
    try:
        while not await blocking(until):  # noqa: ASYNC110  # of the journal
            await asyncio.sleep(0.02)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def serve(journal, most):
    """Be a server, until the queue is empty."""
    add_words()
    store = Submissions(Path(journal))

    def is_empty():
        return not rows.is_any_open(store.path)

    asyncio.run(supervise(store, Threads(), is_empty, most=most))


def serve_all(journal, most, count):
    """Be the parent of several servers, and return what they ended with: what takes long is imported once."""
    children = []
    for _ in range(count):
        child = os.fork()
        if not child:
            code = 1
            try:
                serve(journal, most)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


if __name__ == "__main__":
    sys.exit(any(serve_all(sys.argv[1], *map(int, sys.argv[2:]))))
