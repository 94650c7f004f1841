"""Worker: ordinary work on a cluster runs as it does here, while the driver decides what starts."""

# ruff: noqa: ASYNC240  # a coroutine of a test may touch a file

import asyncio
import contextlib
import logging
import os
import sys
import time
from pathlib import Path

import cloudpickle
import pytest

import ipybatch
from ipybatch import InputError, Limits, Permanent, Rate, Retry
from ipybatch.backends import Dask, Overrun, StillRunning
from ipybatch.backends.dask import worker as worker_side
from ipybatch.engine.rules.classify import Judged, classify
from tests.backends.dask.counting_server import CountingServer, Fetch
from tests.engine.rules import clients
from tests.engine.rules.faults import ANSWERS, FaultServer

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.usefixtures("patience")
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # as a notebook's


@contextlib.asynccontextmanager
async def opened(client, **options):
    backend = Dask(client, **options)
    await backend.open(1)
    try:
        yield backend
    finally:
        await backend.close()


def attempt(client, work, *items, **options):
    """Run one attempt per item side by side; return what came of each, errors as they are."""

    async def run():
        async with opened(client, **options) as backend:
            return await asyncio.gather(*[backend.run(work, (item,)) for item in items], return_exceptions=True)

    return asyncio.run(run())


async def until(is_true):
    while not is_true():  # noqa: ASYNC110  # of another process
        await asyncio.sleep(0.01)


def row(session):
    (only,) = session.results().to_dict("records")
    return only


# Coroutines


def test_coroutines_run_in_the_workers_hundreds_at_a_time(client, live, wait_for):
    """The server answers none of them until all are there; a worker has one thread."""
    with CountingServer(gate=200) as server:
        session = live(Fetch(server.url), range(200), limits=Limits(concurrency=200), backend=Dask(client))
        session.start()
        assert wait_for(session, 100).counts.completed == 200
    assert server.most == 200


def test_attempts_are_spread_over_the_workers(client, pids, live, wait_for):
    async def work(item):
        await asyncio.sleep(0.01)
        return os.getpid()

    session = live(work, range(40), limits=Limits(concurrency=20), backend=Dask(client))
    session.start()
    wait_for(session, 100)
    counts = session.results()["result"].value_counts()
    assert set(counts.index) == set(pids.values())
    assert counts.min() >= 15


def test_threads_run_plain_functions_side_by_side_in_the_worker(client, pids):
    def work(item):
        time.sleep(0.01)
        return os.getpid()

    assert set(attempt(client, work, *range(10), isolate=False)) == set(pids.values())


def test_the_work_is_sent_once_to_each_worker(client, live, wait_for):
    """A closure of a megabyte, and 500 items, of which each costs some bytes."""
    ballast = os.urandom(1_000_000)
    reads = []

    class Weighed:
        def __reduce__(self):
            reads.append(len(ballast))
            return bytes, (ballast,)

    weight = Weighed()

    async def work(item):
        return len(weight)

    session = live(work, range(500), limits=Limits(concurrency=50), backend=Dask(client))
    session.start()
    assert wait_for(session, 100).counts.completed == 500
    assert reads == [1_000_000]


def test_work_is_entered_once_on_each_worker_and_left_with_the_session(client, live, wait_for, tmp_path):
    class Opened:
        def __init__(self, folder):
            self.folder = folder

        async def __aenter__(self):
            self.kept = Path(self.folder, f"{os.getpid()} opened").open("x")  # noqa: ASYNC230, SIM115  # fails the second time

        async def __aexit__(self, *_):
            self.kept.close()
            Path(self.folder, f"{os.getpid()} left").touch(exist_ok=False)

        async def __call__(self, item):
            return self.kept.closed

    session = live(Opened(str(tmp_path)), range(20), limits=Limits(concurrency=10), backend=Dask(client))
    session.start()
    assert wait_for(session, 100).counts.completed == 20
    assert not session.results()["result"].any()
    told = {path.name for path in tmp_path.iterdir() if path.name.split()[-1] in ("opened", "left")}
    assert told == {f"{pid} {word}" for pid in client.run(os.getpid).values() for word in ("opened", "left")}


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        ("sent", "the work cannot be sent to a worker: TypeError: not this one"),
        ("read", "the work cannot be read on a worker: ModuleNotFoundError: not there"),
        ("entered", "the work could not be opened on a worker: OSError: no room"),
    ],
)
def test_work_that_cannot_get_there_ends_the_session_at_once(client, live, wait_for, fails, told):
    class Work:
        def __reduce__(self):
            if fails == "sent":
                raise TypeError("not this one")
            return _made, (fails,)

        async def __call__(self, item):
            raise AssertionError

    session = live(Work(), range(50), backend=Dask(client), limits=Limits(concurrency=2))
    session.start()
    assert wait_for(session, 100).state == "failed"
    assert told in session.reason
    assert session.reason.endswith(".")  # with what to do about it
    assert session.counts.failed <= 2


def _made(fails):
    if fails == "read":
        raise ModuleNotFoundError("not there")

    class Entered:
        async def __aenter__(self):
            raise OSError("no room")

        async def __aexit__(self, *_):
            raise AssertionError

        async def __call__(self, item):
            raise AssertionError

    return Entered()


def test_a_coroutine_has_the_backends_time(client):
    async def work(item):
        await asyncio.sleep(item)
        return "well"

    late, well = attempt(client, work, 3600, 0, timeout_s=0.5)
    assert (type(late), str(late)) == (Overrun, "Exceeded 0.5s")
    assert well == "well"


def test_memory_that_cannot_be_limited_is_refused(client):
    async def work(item):
        return item

    (error,) = attempt(client, work, 1, memory_mb=500)
    assert isinstance(error, Judged)
    assert "memory_mb= is for processes of their own" in str(error)
    with pytest.raises(InputError, match="memory_mb cannot hold for threads, got 500"):
        Dask(client, memory_mb=500, isolate=False)


def test_an_item_or_a_result_that_cannot_travel_fails_alone(client):
    async def work(item):
        return sys._getframe() if item == "result" else "well"

    item, result, well = attempt(client, work, sys._getframe(), "result", "well")
    assert isinstance(item, Permanent)
    assert "the item cannot be sent to a worker" in str(item)
    assert isinstance(result, Permanent)
    assert "the result cannot be sent back" in str(result)
    assert well == "well"


def test_a_large_item_goes_to_a_coroutine_and_comes_back_whole(client):
    async def work(item):
        return item[::-1]

    data = os.urandom(3_000_000)
    assert attempt(client, work, data, b"small") == [data[::-1], b"llams"]


# Errors


def test_errors_of_clients_are_judged_as_here(client):
    """Every client against every answer, in threads of the workers and here: the same verdict."""
    cells = [(name, how) for name in clients.CLIENTS for how in (*ANSWERS, "404", "500", "drop", "reset", "dead")]

    def work(cell):
        name, url = cell
        return clients.CLIENTS[name](url, 10.0, follows=not url.endswith("moved"))

    with FaultServer() as server:
        urls = [(name, server.dead if how == "dead" else f"http://{server.address}/{how}") for name, how in cells]
        there = attempt(client, work, *urls, isolate=False)
        here = [_judged(work, url) for url in urls]
    for cell, ours, theirs in zip(cells, here, there, strict=True):
        assert (classify(theirs, Retry(), 1.7e9) if isinstance(theirs, Exception) else None) == ours, cell


def _judged(work, item):
    """Return the verdict on what it raises here; None where it raises nothing."""
    try:
        work(item)
    except Exception as error:
        verdict = classify(error, Retry(), 1.7e9)
        clients.close_answer(error)
        return verdict
    return None


@pytest.mark.parametrize("package", ["httpx", "httpx2", "aiohttp"])
def test_errors_of_asynchronous_clients_are_judged_as_here(client, package):
    async def work(url):
        if package == "aiohttp":
            import aiohttp

            async with aiohttp.ClientSession() as session, session.get(url) as response:
                response.raise_for_status()
                return await response.json()
        import importlib

        async with importlib.import_module(package).AsyncClient(trust_env=False) as session:
            return (await session.get(url)).raise_for_status().json()

    async def tried(url):
        try:
            return await work(url)
        except Exception as error:
            return error

    async def all_here(urls):
        return [await tried(url) for url in urls]

    with FaultServer() as server:
        urls = [f"http://{server.address}/{how}" for how in (*ANSWERS, "404", "500", "drop", "reset")]
        urls = [url for url in [*urls, server.dead] if not url.endswith(("loop", "moved"))]
        there, here = attempt(client, work, *urls), asyncio.run(all_here(urls))
    for url, ours, theirs in zip(urls, here, there, strict=True):
        assert isinstance(ours, Exception) is isinstance(theirs, Exception), url
        if isinstance(ours, Exception):
            assert classify(theirs, Retry(), 1.7e9) == classify(ours, Retry(), 1.7e9), url
            assert Path(__file__).name in theirs.__notes__[-1]


def test_work_that_cancels_itself_is_told_as_here(client, live, wait_for):
    async def work(item):
        raise asyncio.CancelledError

    session = live(work, [1], backend=Dask(client), retry=Retry(attempts=1))
    session.start()
    assert wait_for(session, 100).counts.failed == 1
    assert row(session)["error"] == "something cancelled the attempt from outside"


# Cancels


def test_a_cancelled_coroutine_has_ended_when_the_cancel_returns(client, tmp_path):
    async def work(folder):
        Path(folder, "begun").touch()
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.1)
            Path(folder, "ended").touch()

    async def run():
        async with opened(client) as backend:
            running = asyncio.ensure_future(backend.run(work, (str(tmp_path),)))
            await until(Path(tmp_path, "begun").exists)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert Path(tmp_path, "ended").exists()

    asyncio.run(run())


def test_one_that_ignores_it_is_cancelled_again_then_left_to_itself(client, tmp_path, monkeypatch):
    """The backend says that it goes on, and when it has ended."""

    async def work(folder):
        Path(folder, "begun").touch()
        while not Path(folder, "end").exists():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    def hurry():
        worker_side.AGAIN_S = 0.01

    async def run():
        async with opened(client) as backend:
            running = asyncio.ensure_future(backend.run(work, (str(tmp_path),)))
            await until(Path(tmp_path, "begun").exists)
            running.cancel()
            with pytest.raises(StillRunning) as raised:
                await running
            ended = raised.value.ended
            assert not ended.done()
            Path(tmp_path, "end").touch()
            await asyncio.wait([ended])

    client.run(hurry)
    asyncio.run(run())


def test_a_session_ends_at_a_cancel_and_at_its_time(client, live, wait_for, tmp_path):
    def names():
        return {path.name for path in tmp_path.iterdir()}

    async def work(item):
        Path(tmp_path, str(item)).touch()
        try:
            await asyncio.sleep(3600)
        finally:
            Path(tmp_path, f"{item} ended").touch()

    session = live(work, [1, 2], backend=Dask(client), limits=Limits(concurrency=2))
    session.start()
    while not {"1", "2"} <= names():
        time.sleep(0.01)
    session.cancel()
    assert wait_for(session, 100).counts.cancelled == 2
    assert {"1 ended", "2 ended"} <= names()
    session = live(work, [3], backend=Dask(client), timeout_s=0.2, retry=Retry(attempts=1), name="late")
    session.start()
    assert wait_for(session, 100).counts.timeout == 1
    assert row(session)["error"] == "Exceeded 0.2 s"
    assert Path(tmp_path, "3 ended").exists()


# What an attempt asks for


def test_an_attempt_knows_itself_and_asks_the_driver(client, live, wait_for):
    """The 2nd and the 3rd request of each item take permits of the driver's limiter, and its windows count them."""

    async def work(item, attempt):
        if attempt.number == 1:
            attempt.settle(tokens=7)
            raise ipybatch.Transient("once more", counts=False)
        async with attempt.permit():
            pass
        async with attempt.permit({"tokens": 5}):
            pass
        return [attempt.key, attempt.number, attempt.requests]

    rates = [Rate(100, per_s=3600), Rate(1000, per_s=3600, unit="tokens")]
    session = live(
        work, [1, 2], backend=Dask(client), limits=Limits(concurrency=2, rates=rates), resource="shop", cost=lambda _: 2
    )
    session.start()
    assert wait_for(session, 100).counts.completed == 2, session.errors().to_dict("records")
    assert list(session.results()["result"]) == [["1", 2, 3], ["2", 2, 3]]
    windows = session._run.runner.resource.limiter.windows
    requests, tokens = [windows[rate].used(time.monotonic()) for rate in rates]
    assert (requests, tokens) == (2 * (1 + 3), 2 * (7 + 2 + 5))


def test_a_plain_function_in_a_thread_has_its_attempt(client, live, wait_for):
    def work(item, attempt):
        with attempt.permit(), attempt.waiting():
            pass
        return attempt.requests

    session = live(work, [1], backend=Dask(client, isolate=False), limits=Limits(rates=[Rate(5, per_s=3600)]))
    session.start()
    wait_for(session, 100)
    assert row(session)["result"] == 2


def test_a_permit_that_can_never_be_is_refused_there(client, live, wait_for):
    async def work(item, attempt):
        async with attempt.permit({"tokens": 2000}):
            raise AssertionError

    limits = Limits(rates=[Rate(1000, per_s=3600, unit="tokens")])
    session = live(work, [1], backend=Dask(client), limits=limits, cost=lambda _: 1)
    session.start()
    assert wait_for(session, 100).counts.failed == 1
    assert "2000" in row(session)["error"]


def test_a_permit_that_is_waited_for_is_withdrawn_with_its_attempt(client, live, wait_for, tmp_path):
    """No permit is left taken: the next item gets it."""

    async def work(item, attempt):
        if item == "second":
            return "well"
        Path(tmp_path, "begun").touch()
        async with attempt.permit():
            raise AssertionError

    session = live(work, ["first"], backend=Dask(client), limits=Limits(rates=[Rate(1, per_s=3600)]), timeout_s=None)
    session.start()
    while not Path(tmp_path, "begun").exists():
        time.sleep(0.01)
    session.cancel()
    assert wait_for(session, 100).counts.cancelled == 1


def test_what_an_answer_says_is_heeded_by_the_driver(client, live, wait_for):
    async def work(item, attempt):
        attempt.heed({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3000"})
        return "well"

    session = live(work, [1], backend=Dask(client), limits=Limits(rates=[Rate(100, per_s=3600)]), resource="heeding")
    session.start()
    wait_for(session, 100)
    cool_s = session.ask(lambda: session._run.runner.resource.limiter.wait_s(time.monotonic()))
    assert cool_s > 1000


def test_odd_text_of_a_service_or_of_the_work_hangs_nothing(client, live, wait_for):
    """Aiohttp keeps bytes of a header that are no UTF-8 as halves of characters, which no message can hold."""

    async def work(item, attempt):
        if item == "header":
            attempt.heed({"X-Shop": "caf\udce9", "X-Other": b"caf\xe9"})
        elif item == "number":
            async with attempt.permit({1: 5}):
                raise AssertionError
        elif item == "half":
            attempt.settle(**{"\ud800": 3})
        return item

    items = ["header", "number", "half", "well"]
    session = live(work, items, backend=Dask(client), limits=Limits(concurrency=4), retry=Retry(attempts=1))
    session.start()
    wait_for(session)
    results = session.results().set_index("key")
    assert list(results["status"]) == ["completed", "failed", "failed", "completed"]
    assert "cost must name each unit by text, got 1" in results["error"]["number"]
    assert "settle() must name each unit by text" in results["error"]["half"]


def test_add_is_refused_in_one_sentence(client, live, wait_for):
    async def work(item, attempt):
        return attempt.add([2])

    session = live(work, [1], backend=Dask(client))
    session.start()
    assert wait_for(session, 100).counts.failed == 1
    assert "attempt.add() cannot be asked from a Dask worker" in row(session)["error"]


def test_a_process_of_its_own_takes_the_item_alone(client, live, wait_for):
    session = live(lambda item, attempt: item, [1], backend=Dask(client))
    session.start()
    assert wait_for(session, 100).counts.failed == 1
    assert "attempt cannot be used there" in row(session)["error"]


def test_nothing_is_logged_by_the_workers(client, live, wait_for, caplog):
    """A line for each request of the driver would fill their logs."""

    async def work(item):
        return item

    with caplog.at_level(logging.INFO):
        session = live(work, range(100), backend=Dask(client), limits=Limits(concurrency=10))
        session.start()
        wait_for(session, 100)
    told = [text for lines in client.get_worker_logs().values() for _, text in lines if "Run out-of-band" in text]
    assert len(told) < 100
