"""Drawing: a generator is read in a thread of its own, a chunk at a time, and holds nobody up."""

import gc
import sqlite3
import threading
from contextlib import closing

import pytest

from ipybatch import Limits, Withheld
from ipybatch.engine.data.plan import Keying
from ipybatch.engine.store.drawing import CHUNK, ItemReader


async def fine(item):
    return item


@pytest.fixture
def page():
    """A page that comes when the test lets it."""
    arrived = threading.Event()
    yield arrived
    arrived.set()


def pages(page, asked):
    yield 0
    asked.set()
    assert page.wait(20)
    yield from (1, 2)


def test_a_generator_that_blocks_holds_no_other_session_up(live, page):
    asked = threading.Event()
    blocked = live(fine, pages(page, asked), name="pages")
    blocked.start()
    assert asked.wait(20)
    assert live(fine, range(100), name="other").run().counts.completed == 100
    page.set()
    assert blocked.run().counts.completed == 3


@pytest.mark.parametrize("command", ["cancel", "pause"])
def test_a_session_whose_generator_blocks_is_stopped_at_once(live, page, command):
    asked = threading.Event()
    session = live(fine, pages(page, asked))
    session.start()
    assert asked.wait(20)
    assert getattr(session, command)() == "done"
    assert session.state == {"cancel": "cancelled", "pause": "paused"}[command]
    page.set()
    session.resume()
    assert session.run().counts.completed == 3
    assert session.results()["key"].tolist() == [0, 1, 2]


def test_what_it_waits_for_is_told(live, page):
    asked = threading.Event()
    session = live(fine, pages(page, asked))
    session.start()
    assert asked.wait(20)
    while session.counts.completed == 0:
        threading.Event().wait(0.01)
    assert session.ask(lambda: session.live_status).waiting == "waiting for the next items of the generator"


def test_one_thread_reads_all_of_a_generator(live, tmp_path):
    """A cursor belongs to the thread that made it."""
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as shop, shop:
        shop.execute("CREATE TABLE game (id INTEGER)")
        shop.executemany("INSERT INTO game VALUES (?)", [(n,) for n in range(1000)])

    def games():
        with closing(sqlite3.connect(path)) as shop:
            yield from (game for (game,) in shop.execute("SELECT id FROM game"))

    session = live(fine, games(), limits=Limits(concurrency=50))
    assert session.run().counts.completed == 1000
    assert session.results()["key"].tolist() == list(range(1000))


def test_a_batch_waits_until_it_is_whole(live, page):
    """Items that come late belong to the batch that they would have been in."""
    asked = threading.Event()
    session = live(fine, pages(page, asked), limits=Limits(batch_size=3))
    session.start()
    assert asked.wait(20)
    page.set()
    session.run()
    assert [group.items for group in session.snapshot.groups.values()] == [3]


def test_a_generator_that_raised_raises_at_every_start(live):
    """It cannot be asked again: the session is never "completed" with a part of its items."""

    def items():
        yield 1
        msg = "page 2 is gone"
        raise OSError(msg)

    session = live(fine, items())
    for _ in range(2):
        session.resume() if session.state == "failed" else session.start()
        summary = session.run()
        assert (summary.state, summary.counts.completed, summary.counts.total) == ("failed", 1, None)
        assert "page 2 is gone" in summary.reason


def test_a_chunk_is_no_larger_than_what_is_asked_for():
    drawn = []

    def items():
        for n in range(2 * CHUNK):
            drawn.append(n)
            yield n

    reader, read = ItemReader(items(), Keying()), threading.Semaphore(0)
    reader.on_read = read.release
    for size in (1, 4, CHUNK):
        reader.ask(size)
        assert read.acquire(timeout=20)
        before = len(drawn) - size
        assert [task.seq for task in reader.take().tasks] == list(range(before, before + size))


def test_what_was_drawn_is_not_held_back_by_an_item_that_takes_long(live):
    """Nine items of a page run while the next page is fetched, however large a chunk was asked for."""
    arrived, done = threading.Event(), threading.Semaphore(0)

    def items():
        yield from range(40)  # by now, chunks are large
        assert arrived.wait(20)
        yield 40

    async def work(item):
        done.release()
        return item

    session = live(work, items(), limits=Limits(concurrency=4))
    session.start()
    for _ in range(40):
        assert done.acquire(timeout=20)
    arrived.set()
    assert session.run().counts.completed == 41


def test_a_reader_asks_for_one_chunk_at_a_time():
    reader, read = ItemReader(iter(range(10)), Keying()), threading.Semaphore(0)
    reader.on_read = read.release
    reader.ask(2)
    assert read.acquire(timeout=20)
    reader.ask(2)  # one waits
    assert len(reader.take().tasks) == 2
    assert reader.take() is None
    reader.ask(100)
    assert read.acquire(timeout=20)
    assert reader.take().is_last
    reader.ask(1)
    assert not reader.is_reading


def test_the_thread_ends_with_its_reader():
    reader, read = ItemReader(iter(range(10)), Keying()), threading.Semaphore(0)
    reader.on_read = read.release
    reader.ask(1)
    assert read.acquire(timeout=20)
    thread = reader._thread
    del reader
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("limits", [Limits(concurrency=1), Limits(concurrency=2, batch_size=2)])
@pytest.mark.parametrize("good", [1, 2, 3])
def test_what_a_generator_gave_before_it_raised_runs(live, good, limits):
    def items():
        yield from range(good)
        raise OSError("page 2 is gone")

    session = live(fine, items(), limits=limits)
    summary = session.run()
    assert (summary.state, summary.counts.completed, summary.counts.total) == ("failed", good, None)
    assert "page 2 is gone" in summary.reason


def test_what_was_withheld_of_a_generator_runs_at_the_next_start(live):
    """It gives an item once: what was not sent is kept for the resume."""
    withholds = True

    async def work(item):
        if withholds and item == 1:
            raise Withheld("the budget is spent")
        return item

    session = live(work, (n for n in range(4)), limits=Limits(concurrency=1))
    assert session.run().state == "failed"
    withholds = False
    session.resume()
    assert session.run().counts.completed == 4
