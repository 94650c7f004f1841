"""Dask: what a process of its own promises, kept on the workers of a cluster."""

import asyncio
import os
import re
import signal
import sys
import time
from pathlib import Path

import cloudpickle
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin

from ipybatch import InputError, RateLimited, Refused, Retry, Transient
from ipybatch.backends import Dask, Killed, OutOfMemory, Overrun, Processes
from ipybatch.backends.dask import worker as dask_worker_side
from ipybatch.engine.rules.classify import classify
from ipybatch.errors import MissingExtra, Withheld
from ipybatch.forecast import forecast
from ipybatch.testing import check_backend

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.usefixtures("patience")
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # as a notebook's; no attempt need import all this
needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="the supervisor is Linux's")


def attempt(client, work, *items, **options):
    """Run one attempt per item side by side; return what came of each, errors as they are."""

    async def run():
        backend = Dask(client, **options)
        await backend.open(len(items))
        try:
            return await asyncio.gather(*[backend.run(work, (item,)) for item in items], return_exceptions=True)
        finally:
            await backend.close()

    return asyncio.run(run())


def below_workers(client):
    """Return the processes that the workers have started."""

    def children(dask_worker):
        return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()

    return [pid for pids in client.run(children).values() for pid in pids]


def is_there(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(is_true):
    """Look until it is so; whoever hangs is ended by `patience`."""
    while not is_true():
        time.sleep(0.02)


def begin_and_hang(folder):
    """Leave a note that names our process, then go on for ever; deaf to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note = Path(folder, f".{os.getpid()}")
    note.touch()
    note.rename(Path(folder, str(os.getpid())))
    while True:
        pass


def begun(folder):
    return [int(path.name) for path in Path(folder).glob("[0-9]*")]


def test_it_does_what_the_engine_relies_on(client):
    asyncio.run(check_backend(Dask(client), plain=True))
    asyncio.run(check_backend(Dask(client), plain=False))
    asyncio.run(check_backend(Dask(client, isolate=False), plain=True))


def test_an_asynchronous_client_serves_while_its_loop_is_free(cluster):
    async def run():
        async with distributed.Client(cluster.scheduler_address, asynchronous=True, set_as_default=False) as client:
            await check_backend(Dask(client), plain=True)

    asyncio.run(run())


def test_an_asynchronous_client_of_another_loop_serves_the_engines(cluster, live):
    """A notebook's client lives in the notebook's loop, the engine in its own."""

    async def cell():
        async with distributed.Client(cluster.scheduler_address, asynchronous=True, set_as_default=False) as client:
            session = live(abs, [-1, -2], backend=Dask(client))
            session.start()
            return await session

    assert asyncio.run(cell()).counts.completed == 2


def test_the_attempt_runs_below_a_worker_not_in_it(client):
    workers = set(client.run(os.getpid).values())
    (pid,) = attempt(client, lambda item: os.getpid(), 1)
    assert pid not in workers | {os.getpid()}


@needs_fork
def test_each_end_is_told_as_by_processes(client):
    def work(item):
        match item:
            case "late":
                while True:
                    pass
            case "large":
                kept = []
                while True:
                    kept.append([0] * 100_000)
            case "gone":
                os.kill(os.getpid(), signal.SIGKILL)
            case "wrong":
                raise KeyError(item)

    late, large, gone, wrong, well = attempt(
        client, work, "late", "large", "gone", "wrong", "well", timeout_s=3, memory_mb=100
    )
    assert (type(late), str(late)) == (Overrun, "Exceeded 3s")
    assert (type(large), str(large)) == (OutOfMemory, "Out of memory")
    assert (type(gone), str(gone)) == (Killed, "Killed by SIGKILL")
    assert [error.kind for error in (late, large, gone)] == ["timeout", "out_of_memory", "killed"]
    assert (type(wrong), wrong.args) == (KeyError, ("wrong",))
    assert Path(__file__).name in wrong.__notes__[-1]
    assert well is None


class Full(RateLimited):
    """One that pickle cannot make again: its class wants more than the text it keeps."""

    kind = "shop_full"

    def __init__(self, shop, wait_s):
        super().__init__(f"{shop} is full", retry_after_s=wait_s)


def test_an_error_arrives_as_what_it_was(client):
    """From the process to the worker, from there to us: class, kind and attributes."""

    def work(item):
        raise Full("the shop", 9) if item == "full" else item

    sent = [Transient("busy", retry_after_s=3, counts=False), Refused("wrong key"), Withheld("out of budget")]
    *arrived, full, late = attempt(client, work, *sent, "full", TimeoutError("too late"))
    for error, original in zip(arrived, sent, strict=True):
        assert (type(error), str(error), error.kind) == (type(original), str(original), original.kind)
        assert classify(error, Retry(), 0) == classify(original, Retry(), 0)
    assert (type(full).__name__, str(full), full.kind) == ("Full", "the shop is full", "shop_full")
    assert classify(full, Retry(), 0) == classify(Full("the shop", 9), Retry(), 0)
    assert (type(late), str(late)) == (TimeoutError, "too late")


def test_a_large_item_goes_there_and_comes_back_whole(client):
    frame = pd.DataFrame({"row": range(2_500_000)})
    (returned,) = attempt(client, lambda item: item, frame)
    pd.testing.assert_frame_equal(returned, frame)


@needs_fork
def test_a_cancelled_attempt_is_gone_when_the_cancel_returns(client, tmp_path):
    async def run():
        backend = Dask(client)
        await backend.open(1)
        running = asyncio.ensure_future(backend.run(begin_and_hang, (tmp_path,)))
        await asyncio.to_thread(wait_until, lambda: begun(tmp_path))
        (pid,) = begun(tmp_path)
        assert is_there(pid)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not is_there(pid)
        assert await backend.run(abs, (-1,)) == 1
        await backend.close()

    asyncio.run(run())


def test_an_attempt_that_waits_for_a_worker_can_be_cancelled(client, tmp_path):
    """It never starts, and those before it go on."""

    async def run():
        backend = Dask(client)
        await backend.open(3)
        first = [asyncio.ensure_future(backend.run(begin_and_hang, (tmp_path,))) for _ in range(2)]
        await asyncio.to_thread(wait_until, lambda: len(begun(tmp_path)) == 2)
        waiting = asyncio.ensure_future(backend.run(begin_and_hang, (tmp_path,)))
        await asyncio.to_thread(wait_until, lambda: backend._cluster._waiting[True])
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not any(one.done() for one in first)
        for one in first:
            one.cancel()
        await asyncio.wait(first)
        assert len(begun(tmp_path)) == 2
        await backend.close()

    asyncio.run(run())


@needs_fork
def test_closing_leaves_no_process(client):
    attempt(client, abs, -1, -2)
    assert not below_workers(client)


@needs_fork
def test_what_runs_ends_with_a_kernel_that_says_nothing(client, cluster, tmp_path):
    """The worker hears nothing from it any more, and ends what runs, the supervisor as well."""

    def end_lease():
        dask_worker_side._TICKS = 0

    def renew_lease():
        dask_worker_side._TICKS = 20

    async def run():
        gone = distributed.Client(cluster.scheduler_address, set_as_default=False)
        backend = Dask(gone)
        await backend.open(1)
        running = asyncio.ensure_future(backend.run(begin_and_hang, (tmp_path,)))
        await asyncio.to_thread(wait_until, lambda: begun(tmp_path))
        await asyncio.to_thread(gone.close)
        with pytest.raises(Killed, match="The Dask client was closed"):
            await running
        await backend.close()

    asyncio.run(run())
    (pid,) = begun(tmp_path)
    assert is_there(pid)
    client.run(end_lease)
    try:
        wait_until(lambda: not is_there(pid))
        wait_until(lambda: not below_workers(client))
    finally:
        client.run(renew_lease)


# Workers that are lost


def kill_worker_of(pid):
    """Kill the worker above an attempt's supervisor and its keeper."""

    def parent(pid):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

    os.kill(parent(parent(parent(pid))), signal.SIGKILL)


@needs_fork
def test_an_attempt_whose_worker_is_lost_runs_once_more_by_the_engine(client, live, wait_for, tmp_path):
    """Not by Dask, which would not ask whether it may. The first loss counts for no `Retry`."""

    def work(folder):
        if begun(folder):
            return "second"
        return begin_and_hang(folder)

    session = live(work, [str(tmp_path)], backend=Dask(client), retry=Retry(attempts=1))
    session.start()
    wait_until(lambda: begun(tmp_path))
    (pid,) = begun(tmp_path)
    kill_worker_of(pid)
    assert wait_for(session).counts.completed == 1
    assert list(session.results()[["result", "attempts"]].iloc[0]) == ["second", 2]
    wait_until(lambda: not is_there(pid))


@needs_fork
@pytest.mark.chaos
def test_an_attempt_whose_worker_is_lost_twice_has_failed(client, live, wait_for, tmp_path):
    session = live(begin_and_hang, [str(tmp_path)], backend=Dask(client), retry=Retry(attempts=1))
    session.start()
    for losses in range(2):
        wait_until(lambda losses=losses: len(begun(tmp_path)) > losses)
        kill_worker_of(next(filter(is_there, begun(tmp_path))))
    assert wait_for(session).counts.failed == 1
    assert list(session.results()[["error", "attempts"]].iloc[0]) == ["The worker was lost twice", 2]
    wait_until(lambda: not any(map(is_there, begun(tmp_path))))


def test_an_attempt_that_fails_by_itself_is_not_run_again(client, tmp_path):
    def work(folder):
        Path(folder, str(os.getpid())).touch()
        os._exit(3)

    (error,) = attempt(client, work, tmp_path)
    assert str(error) == "Ended without an answer, exit code 3"
    assert len(begun(tmp_path)) == 1


# Sessions


@needs_fork
def test_a_cancelled_session_leaves_no_process(client, live, wait_for, tmp_path):
    session = live(begin_and_hang, [str(tmp_path), f"{tmp_path}/"], backend=Dask(client))
    session.start()
    wait_until(lambda: len(begun(tmp_path)) == 2)
    session.cancel()
    assert wait_for(session).counts.cancelled == 2
    assert not any(map(is_there, begun(tmp_path)))
    assert not below_workers(client)


def demand(sites):
    days = pd.date_range("2025-07-01", periods=40)
    rows = [(site, "P1", day, day.day % 4) for site in sites for day in days]
    return pd.DataFrame(rows, columns=["site", "part", "date", "quantity"])


def test_the_forecast_is_the_one_of_processes(client, tmp_path):
    def made(backend):
        session = forecast(
            demand(["Ambon", "Palu"]),
            horizon=5,
            models=["naive", "ses"],
            backend=backend,
            journal=tmp_path / f"{type(backend).__name__}.db",
        )
        assert str(session.run()) == "forecast completed: 2/2 successful, 0 failed, 0 skipped"
        return session.results()

    pd.testing.assert_frame_equal(made(Dask(client)), made(Processes(2)))


class Fatal(RegressorMixin, BaseEstimator):
    """A model that ends its process."""

    def fit(self, features, target):
        os.kill(os.getpid(), signal.SIGKILL)

    def predict(self, features):
        raise AssertionError


@needs_fork
def test_a_forecast_that_rolls_back_leaves_nothing(client, tmp_path):
    session = forecast(
        demand(["Ambon", "Palu", "Sofifi"]),
        horizon=5,
        models=["naive", Fatal()],
        backend=Dask(client),
        journal=tmp_path / "journal.db",
        output=tmp_path / "out.csv",
    )
    assert session.run().state == "rolled_back"
    assert "Killed by SIGKILL" in session.reason
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("journal.db")] == []
    assert not below_workers(client)
    assert session.results().empty


def test_a_forecast_brings_its_limits_to_a_cluster(client):
    """What forecast() is told holds on the workers too; what the backend was told holds first."""
    backend = Dask(client, memory_mb=500).within(memory_mb=1000, timeout_s=60, preload=["json"])
    assert (backend.memory_mb, backend.timeout_s, backend.preload) == (500, 60, ("json",))
    assert backend.workers == sum(client.nthreads().values())


# Set-up


def test_a_client_that_is_closed_says_so(cluster):
    client = distributed.Client(cluster.scheduler_address, set_as_default=False)
    client.close()
    with pytest.raises(Killed, match="The Dask client is closed"):
        attempt(client, abs, -1)


def test_two_sessions_may_share_one(client, live, wait_for):
    backend = Dask(client)
    one, other = (live(abs, [-1, -2], name=name, backend=backend) for name in ("one", "other"))
    one.start()
    other.start()
    assert wait_for(one).counts.completed == wait_for(other).counts.completed == 2


def test_a_missing_package_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra, match=re.escape('Run: pip install "ipybatch[dask]"')):
        Dask(object())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"memory_mb": 0}, "memory_mb must be > 0, got 0"), ({"timeout_s": -1}, "timeout_s must be > 0, got -1")],
)
def test_numbers_out_of_range_are_refused(client, options, complaint):
    with pytest.raises(InputError, match=complaint):
        Dask(client, **options)


def test_what_is_no_client_is_refused():
    with pytest.raises(InputError, match=re.escape("client must be a distributed.Client, got 'tcp://127.0.0.1:1'")):
        Dask("tcp://127.0.0.1:1")
