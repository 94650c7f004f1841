"""A worker of four is killed in the middle of 10,000 requests: each is on record once, and no window is exceeded."""

import os
import signal
import sys

import pytest

from ipybatch import BatchSession, Limits, Rate
from ipybatch.backends import Dask
from tests.backends.dask.counting_server import CountingServer, Fetch

distributed = pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(sys.platform != "linux", reason="workers are killed"),
]
ITEMS, PER_S = 10_000, 500


def test_ten_thousand_requests_outlive_a_worker(tmp_path):
    limits = Limits(concurrency=200, rates=[Rate(PER_S, per_s=1.0)])
    with (
        CountingServer(latency_s=0.1) as server,
        distributed.LocalCluster(4, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1") as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        session = BatchSession(
            "ten thousand", Fetch(server.url), range(ITEMS), limits=limits, backend=Dask(client), journal=tmp_path / "j"
        )
        pids = [*client.run(os.getpid).values()]
        killed = []

        def kill(done, total):
            if done >= ITEMS // 2 + PER_S // 2 and not killed:  # between two windows nothing runs
                killed.append(pids[0])
                os.kill(pids[0], signal.SIGKILL)

        session.on_outcomes(lambda outcomes: kill(session.counts.completed, ITEMS))
        summary = session.run()
        results = session.results()
    assert killed
    assert summary.counts.completed == ITEMS
    assert sorted(map(int, results["result"])) == list(range(ITEMS))
    tried = results.set_index("result")["attempts"]
    assert all(asked <= tried[key] for key, asked in server.asked.items())
    assert sum(server.asked.values()) <= tried.sum()
    assert 1 <= sum(tried > 1) <= 200
    assert server.worst(1.0) <= PER_S
    took_s = server.arrivals[-1] - server.arrivals[0]
    print(
        f"{ITEMS / took_s:.0f} requests/s, {sum(tried > 1)} items tried twice, {sum(server.asked.values())} requests,"
        f" worst second {server.worst(1.0)} of {PER_S}"
    )
