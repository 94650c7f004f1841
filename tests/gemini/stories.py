"""Stories of batch jobs: a simulated service, a journal, and one submission after another between them."""

import asyncio
from contextlib import contextmanager

from ipybatch.engine.store.journal import open_journal
from ipybatch.gemini.batch.jobs import JobStore
from ipybatch.gemini.batch.submission import BatchRequest, Submission, chunks
from ipybatch.gemini.service.api import Api, connect
from ipybatch.simulators import serve

KEY = "SIMULATED"
MODEL = "gemini-2.5-flash"


def chunk_of(count=3, *, images=False, start=0):
    requests = [
        BatchRequest.of(
            f'"p{number}"',
            {"contents": [{"role": "user", "parts": [{"text": f"prompt {number}"}]}]},
            images=images,
        )
        for number in range(start, start + count)
    ]
    (chunk,) = chunks(requests)
    return chunk


class Service:
    """A simulated service and what it knows."""

    def __init__(self, server):
        self._server = server
        self.url = server.url

    def truth(self):
        return self._server.simulator.truth(self._server.now_s())

    @property
    def jobs(self):
        """How many jobs were created."""
        return sum(len(states) for states in self.truth()["jobs"].values())

    @property
    def submitted_twice(self):
        return self.truth()["submitted_twice"]


@contextmanager
def gemini(**options):
    with_defaults = {"batch_delay_s": 0.02, **options}
    server = serve("gemini", **with_defaults)
    with server:
        yield Service(server)


class Session:
    """One process's parts: remote, store, submission; `tell` runs a story of them on a loop of its own."""

    def __init__(self, url, journal, *, clock=None, grace_s=4.0, key=KEY, client=None, timeout_s=30.0):
        self._arguments = (key, url, client)
        self._clock, self._grace_s, self._timeout_s = clock, grace_s, timeout_s
        self.store = JobStore(open_journal(journal), clock)

    def tell(self, story):
        """Run ``await story(self)``."""
        return self._clock.run_coroutine(self._run(story)) if self._clock else asyncio.run(self._run(story))

    def submit(self, chunk=None, number=0, **arguments):
        """Submit a chunk and return its job."""
        chunk = chunk or chunk_of()
        return self.tell(lambda at: at.submission.submit("night", number, MODEL, chunk, **arguments))

    def refresh(self, job):
        return self.tell(lambda at: at.submission.refresh(job))

    def wait(self, job):
        """Look until a job has ended, in real time: the service has its own."""
        here, self._clock = self._clock, None
        (ended,) = self.tell(lambda at: at.submission.wait([job], poll_s=0.02, wait_s=20))
        self._clock = here
        return ended

    async def _run(self, story):
        client = connect(*self._arguments)
        try:
            self.remote = Api(client, self._clock, timeout_s=self._timeout_s)
            self.submission = Submission(self.remote, self.store, grace_s=self._grace_s, clock=self._clock)
            return await story(self)
        finally:
            await client.aio.aclose()
            await asyncio.sleep(0)
