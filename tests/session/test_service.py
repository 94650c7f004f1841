"""A session against a real HTTP server on loopback: what the server counted, not what we believe."""

import statistics
import time

import httpx
import pytest

from ipybatch import Limits, Rate, Retry
from ipybatch.simulators import serve

LIMIT, PER_S = 40, 2.0


class Store:
    """Plain httpx work, its client opened in the loop that uses it."""

    def __init__(self, url):
        self.url = url
        self.seconds = []

    async def __aenter__(self):
        self.client = httpx.AsyncClient(base_url=self.url, timeout=20)
        return self

    async def __aexit__(self, *_):
        await self.client.aclose()

    async def __call__(self, app_id):
        started_s = time.monotonic()
        answer = await self.client.get("/api/appdetails", params={"appids": app_id})
        self.seconds.append(time.monotonic() - started_s)
        answer.raise_for_status()
        return answer.json()[str(app_id)]["data"]


def refresh_300(live, app_ids=range(1, 301)):
    """Run 300 ids under 40 per 2 s, 20 ms of jitter, a ban at the first 429; return summary, record and latency."""
    server = serve("steam", limit=LIMIT, per_s=PER_S, ban_after=1, latency_s=0.005, jitter_s=0.02)
    with server as url:
        limits = Limits(concurrency=LIMIT, rates=[Rate(LIMIT, per_s=PER_S)])
        store = Store(url)
        summary = live(store, list(app_ids), limits=limits, retry=Retry(attempts=1)).run()
        return summary, server.stats(), statistics.fmean(store.seconds)


def check(summary, stats, ids):
    assert summary.counts.completed == ids
    assert stats["statuses"] == {"200": ids}
    assert stats["bans"] == []
    assert stats["duplicates"] == []
    assert len(stats["ids"]) == ids
    assert stats["worst"][0]["worst"] <= LIMIT


def test_no_429_no_ban_and_every_id_once_over_real_http(live):
    """Promise 1 in three windows; the whole 300 ids are in the chaos variant."""
    summary, stats, _ = refresh_300(live, range(1, 82))
    check(summary, stats, 81)


@pytest.mark.chaos
def test_300_ids_use_97_percent_of_the_rate_over_real_http(live, capsys):
    """0 answers 429, 0 bans, every id once; prints the share of 40 / (2 + latency) that was used."""
    summary, stats, latency_s = refresh_300(live)
    check(summary, stats, 300)
    arrivals = stats["arrivals"]
    windows = (len(arrivals) - 1) // LIMIT
    share = windows * (PER_S + latency_s) / (arrivals[-1] - arrivals[0])
    with capsys.disabled():
        print(f"\n300 ids: {stats['worst'][0]['worst']} in the worst 2 s, {share:.1%} of 40 / (2 + {latency_s:.3f} s)")


def test_an_outage_on_the_wire_is_survived(live):
    """Dropped lines and broken answers over real sockets are transient: every id ends well."""
    with serve("steam", limit=None, rate_500=0.1, rate_drop=0.1, latency_s=0.001) as url:
        limits = Limits(concurrency=8)
        session = live(Store(url), range(1, 101), limits=limits, retry=Retry(attempts=9, initial_s=0.01), breaker=None)
        assert session.run().counts.completed == 100


def test_cancel_closes_requests_that_are_on_the_wire(live):
    """A server that never answers does not hold a cancelled session."""
    with serve("steam", limit=None, latency_s=60) as url:
        session = live(Store(url), range(1, 11), limits=Limits(concurrency=5))
        session.start()
        session.cancel()
        assert session.state == "cancelled"
        assert session.counts.cancelled == 10
