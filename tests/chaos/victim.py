"""A process to be killed: refresh ids from a service into a journal, and say each outcome once it is recorded.

python -m tests.chaos.victim URL JOURNAL IDS CONCURRENCY
"""

import os
import resource
import sys

import httpx

from ipybatch import BatchSession, Limits, Retry
from ipybatch.engine.data import events
from ipybatch.testing import kill_points


class Store:
    def __init__(self, url):
        self.url = url

    async def __aenter__(self):
        self.client = httpx.AsyncClient(base_url=self.url, timeout=20)
        return self

    async def __aexit__(self, *_):
        await self.client.aclose()

    async def __call__(self, app_id):
        answer = await self.client.get("/api/appdetails", params={"appids": app_id})
        answer.raise_for_status()
        return answer.json()[str(app_id)]["data"]


def tell(event):
    if isinstance(event, events.ItemEnded):
        print(event.key, flush=True)


def main(url, journal, ids, concurrency):
    room_bytes = os.environ.get("VICTIM_ROOM_BYTES")
    if room_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(room_bytes), int(room_bytes)))
    limits = Limits(concurrency=int(concurrency))
    with kill_points():
        session = BatchSession(
            "victim", Store(url), list(range(1, int(ids) + 1)), limits=limits, retry=Retry(attempts=5), journal=journal
        )
        session.on(tell)
        print(session.run(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
