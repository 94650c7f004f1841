"""Stories of batch jobs: a simulated service, a journal, and one submission after another between them."""

import asyncio
from contextlib import contextmanager

from ipybatch.engine.data.clock import SystemClock
from ipybatch.engine.store.journal import open_journal
from ipybatch.gemini.batch.jobs import JobStore
from ipybatch.gemini.batch.spool import BatchRequest, chunks, spooled
from ipybatch.gemini.batch.submission import Submission
from ipybatch.gemini.prompts import to_prompts
from ipybatch.gemini.service.api import Api
from ipybatch.gemini.service.client import connect
from ipybatch.gemini.service.request_config import RequestConfig
from ipybatch.simulators import serve

KEY = "SIMULATED"
MODEL = "gemini-2.5-flash"


def requests_of(texts, images=(), **config):
    """Return a request for each text; all have the images."""
    asked = [{"id": f"p{number}", "prompt": text, "images": list(images)} for number, text in enumerate(texts)]
    request_config = RequestConfig(lane="batch", **config)
    return [BatchRequest.of(f'"{prompt.id}"', prompt, request_config) for prompt in to_prompts(asked)]


def chunk_of(count=3, *, start=0):
    (chunk,) = chunks(requests_of([f"prompt {number}" for number in range(start, start + count)]))
    return chunk


async def create_elsewhere(at, display_name, chunk):
    """Create a job of which our journal knows nothing."""
    async with spooled(MODEL, chunk, SystemClock()) as written:
        file = await at.remote.upload(written.path, display_name)
    return await at.remote.create(MODEL, display_name, file.name)


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
    def files(self):
        """The names of the uploaded files that are there."""
        stored = self._server.simulator._stored._files.values()
        return [file.name for file in stored if file.source == "UPLOADED"]

    @property
    def statuses(self):
        """How often it answered with each status."""
        return self._server.stats()["statuses"]

    @property
    def uploads(self):
        """How many files were uploaded."""
        return len(self._server.simulator._stored._uploads)

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
        self.clock = clock or SystemClock()
        self.store = JobStore(open_journal(journal), clock)

    def tell(self, story):
        """Run ``await story(self)``."""
        return self._clock.run_coroutine(self._run(story)) if self._clock else asyncio.run(self._run(story))

    def submit(self, chunk=None, number=0, model=MODEL, **arguments):
        """Submit a chunk and return its job."""
        chunk = chunk or chunk_of()

        async def story(at):
            async with spooled(model, chunk, at.clock) as written:
                job = await at.submission.upload("night", number, model, written, **arguments)
            await at.submission.wait_for_file(job)
            return await at.submission.create(job)

        return self.tell(story)

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
