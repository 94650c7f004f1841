"""The watchdog's beats: from when there is work on, whenever its thread comes to run."""

import asyncio
import threading

import pytest

from ipybatch.engine.run import watchdog as watchdogs
from ipybatch.engine.run.engine_thread import engine_thread
from ipybatch.engine.run.watchdog import Stall, Watchdog


class Watched(Stall):
    """Notes whether there was work each time that a watchdog ended the beats; others may be there, of earlier loops."""

    def __init__(self):
        self.watchdog, self.ended_at_work = None, []

    def __setattr__(self, name, value):
        if name == "beat_s" and value is None and self.watchdog is not None:
            has_work = self.watchdog._has_work
            if threading.current_thread() is has_work.asked_by:
                self.ended_at_work.append(has_work.has_work)
        super().__setattr__(name, value)


class Raced(threading.Event):
    """Work comes just after the watchdog's thread has seen that there is none."""

    def __init__(self, begin):
        super().__init__()
        self._begin, self.is_over = begin, threading.Event()
        self.asked_by = None  # the watchdog's thread

    @property
    def has_work(self):
        return super().is_set()

    def is_set(self):
        was_set = super().is_set()
        if threading.current_thread().name == "ipybatch-watchdog" and not self.is_over.is_set():
            self.asked_by = threading.current_thread()
            beginning = threading.Thread(target=self._begin)
            beginning.start()
            beginning.join(0.2)  # or it waits until the thread has drawn its conclusion
            self.is_over.set()
        return was_set


@pytest.fixture
def turning():
    """A loop that turns, and its thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop, thread
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_work_that_comes_as_the_thread_rests_is_watched_at_once(monkeypatch, turning):
    """Else a process that is stopped just then would have seen an outage."""
    latest = Watched()
    monkeypatch.setattr(watchdogs, "LATEST", latest)
    monkeypatch.setattr(watchdogs, "LOOK_S", 0.0)
    watchdog = Watchdog(*turning, lambda text, context: None)
    resting, watchdog._has_work = watchdog._has_work, Raced(lambda: watchdog.watch(1))
    latest.watchdog = watchdog
    resting.set()
    assert watchdog._has_work.is_over.wait(20)
    assert watchdog._has_work.wait(20)
    assert latest.ended_at_work == [False]


def test_what_runs_is_watched_before_it_begins_though_its_caller_waits_for_the_processor(monkeypatch):
    """Else a process that is stopped just then would have seen an outage."""
    latest, begun = Stall(), threading.Event()
    monkeypatch.setattr(watchdogs, "LATEST", latest)
    start = asyncio.run_coroutine_threadsafe

    def start_and_wait(coroutine, loop):
        running = start(coroutine, loop)
        assert begun.wait(20)
        return running

    async def work():
        beat_s = latest.beat_s
        begun.set()
        return beat_s

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", start_and_wait)
    assert engine_thread().spawn(work()).result(20) is not None


def test_it_watches_while_anything_runs(monkeypatch, turning):
    """It counts by itself: of two threads, one that told what it had counted before the other would be wrong."""
    monkeypatch.setattr(watchdogs, "LATEST", Stall())
    watchdog = Watchdog(*turning, lambda text, context: None)
    for more, has_work in [(1, True), (1, True), (-1, True), (-1, False), (1, True), (-1, False)]:
        watchdog.watch(more)
        assert watchdog._has_work.is_set() is has_work
