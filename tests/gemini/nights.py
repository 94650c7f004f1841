"""Nights: sessions that send their prompts in batch jobs to a simulated service."""

import asyncio
import time
from contextlib import contextmanager

import httpx

from ipybatch.gemini import generate
from ipybatch.gemini.batch.spool import BatchRequest, chunks
from ipybatch.gemini.prompts import to_prompts
from ipybatch.gemini.service.request_config import RequestConfig
from ipybatch.simulators import serve
from tests.gemini.stories import KEY, Service, create_elsewhere

SOON = 0.005  # in real time: virtual looks are 2 ms apart


def stars(count, start=0):
    return [f"Name star {number}" for number in range(start, start + count)]


def night(service, journal, prompts=6, *, lane="batch", **arguments):
    """Make a session; prompts are a list or how many."""
    asked = stars(prompts) if isinstance(prompts, int) else prompts
    given = {"name": "night", "journal": journal, "api_key": KEY, "base_url": service.url, **arguments}
    return generate(asked, lane=lane, **given)


def check_matched(session, count):
    """Every answer stands beside its own prompt: the simulated answers begin with what was asked."""
    results = session.results()
    assert len(results) == count
    assert list(results.status) == ["completed"] * count, set(results.error)
    for asked, text in zip(results.key, results.text, strict=True):
        assert text.startswith(f"On {asked}: "), f"{asked!r} was answered with {text[:40]!r}"


def check_billed_once(service):
    truth = service.truth()
    assert truth["submitted_twice"] == truth["billed_twice"] == []
    return truth


def groups(session):
    """Return how the jobs stand in the table: (status, state)."""
    return [(group.status, group.extra["State"]) for group in session.snapshot.groups.values()]


class NightService(Service):
    """A simulated service whose jobs somebody else has a hand in."""

    @property
    def simulator(self):
        return self._server.simulator

    def heal(self):
        """End the faults of jobs that last a while."""
        self.simulator._jobs._looks = 0

    @property
    def looks(self):
        """How often a job was asked for, or all of them listed."""
        return self._server.stats()["statuses"]["200"] - self.jobs

    def cancel_all(self):
        """Cancel every job, as the user may do in another tool."""
        line = {"base_url": f"{self.url}/v1beta/", "headers": {"x-goog-api-key": KEY}}
        with httpx.Client(**line) as client:
            for job in client.get("batches?pageSize=100").json()["operations"]:
                client.post(f"{job['name']}:cancel").raise_for_status()

    def states(self):
        return sorted(state for states in self.truth()["jobs"].values() for state in states)

    def take(self, session, prompts):
        """Let the one job in doubt turn up, as if its request had been on its way all the time."""
        (job,) = session.store.of_session("night")
        made = zip(job.keys, to_prompts(prompts), strict=True)
        (chunk,) = chunks([BatchRequest.of(key, prompt, RequestConfig(lane="batch")) for key, prompt in made])
        session.tell(lambda at: create_elsewhere(at, job.display_name, chunk))


@contextmanager
def night_service(**options):
    server = serve("gemini", **options)
    with server:
        yield NightService(server)


async def reached(condition):
    """Wait in virtual time."""
    while not condition():  # noqa: ASYNC110  # time is virtual
        await asyncio.sleep(0.05)


def waited(condition, within_s=20):
    """Wait for another thread."""
    until_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.005)  # the other thread needs the core
