"""Courier: real threads wait for a store, and the loop does not."""

import asyncio
import threading

import pytest

from ipybatch import BatchSession, Limits, Rate
from ipybatch.engine.data.clock import SystemClock
from ipybatch.engine.rules.limiter import NO_COST
from ipybatch.engine.store import courier
from ipybatch.engine.store.courier import MOST, NAME, courier_of
from ipybatch.engine.store.shared_limiter import SharedLimiter
from ipybatch.testing import MemoryLimits, VirtualClock

WAIT_S = 30.0  # for what must come; only a defect takes so long


class Remote(MemoryLimits):
    """A store whose answers come when they are let go."""

    is_remote = True

    def __init__(self, *now_s):
        super().__init__(*now_s)
        self.go_on = threading.Event()
        self.go_on.set()
        self.asked = threading.Event()
        self.threads = set()

    def exchange(self, report):
        answer = super().exchange(report)
        self.threads.add(threading.current_thread())
        if not self.go_on.is_set():
            self.asked.set()
            assert self.go_on.wait(WAIT_S)
        return answer


def ours():
    return [thread for thread in threading.enumerate() if thread.name == NAME]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    for thread in ours():
        thread.join(WAIT_S)
    assert (ours(), courier._couriers) == ([], {})


def test_the_loop_turns_while_an_exchange_hangs():
    """And when its answer comes, whoever waits for a permit is woken, and has it."""
    store = Remote()

    async def act():
        woken = asyncio.Event()
        limiter = SharedLimiter(store, "api", "owner", SystemClock(), woken.set, print, is_private=False)
        limiter.enter(limiter, Limits(rates=[Rate(5, per_s=1.0)]), asyncio.get_running_loop(), "")
        woken.clear()
        store.go_on.clear()
        assert limiter.start(limiter.clock.now_s(), NO_COST) is None
        turns = 0
        while not store.asked.is_set() or turns < 100:
            await asyncio.sleep(0)
            turns += 1
        assert limiter.start(limiter.clock.now_s(), NO_COST) is None
        store.go_on.set()
        await asyncio.wait_for(woken.wait(), WAIT_S)
        permit = limiter.start(limiter.clock.now_s(), NO_COST)
        assert permit is not None
        limiter.respond(limiter.clock.now_s(), permit, slot=True)
        limiter.leave(limiter)

    asyncio.run(act())


def test_an_answer_that_comes_after_the_loop_has_ended_hurts_nobody():
    store = Remote()
    limiter = SharedLimiter(store, "api", "owner", SystemClock(), print, print, is_private=False)

    async def begin():
        limiter.enter(limiter, Limits(rates=[Rate(5, per_s=1.0)]), asyncio.get_running_loop(), "")
        store.go_on.clear()
        assert limiter.start(limiter.clock.now_s(), NO_COST) is None

    async def end():
        limiter.enter("another", Limits(), asyncio.get_running_loop(), "")
        limiter.leave("another")
        limiter.leave(limiter)

    asyncio.run(begin())
    store.go_on.set()
    asyncio.run(end())


def test_a_few_threads_serve_all_and_end_with_the_last_user():
    store = Remote()
    threads = courier_of(store)
    store.go_on.clear()
    found = [threads.call(user, store.go_on.wait) for user in range(3 * MOST)]
    assert len(ours()) == MOST
    assert courier_of(store) is threads
    store.go_on.set()
    for one in found:
        threads.wait(one, WAIT_S)
        assert one.result()
    for user in range(3 * MOST):
        assert courier_of(store) is threads
        threads.leave(user)


def test_what_a_function_raises_is_handed_over():
    threads = courier_of(object())
    failed = threads.call("user", lambda: 1 / 0)
    threads.wait(failed, WAIT_S)
    assert isinstance(failed.exception(), ZeroDivisionError)
    threads.leave("user")


def test_virtual_time_stands_while_a_store_is_asked(journal):
    """A session in virtual time has a store in real threads."""
    clock = VirtualClock()
    store = Remote(clock.now_s)
    limits = Limits(concurrency=8, rates=[Rate(10, per_s=60.0)], store=store)
    session = BatchSession("far", lambda item: item, range(35), limits=limits, clock=clock, journal=journal)
    summary = clock.run(session)
    assert summary.counts.completed == 35
    assert 180.0 < clock.now_s() < 200.0
    assert {thread.name for thread in store.threads} == {NAME, threading.current_thread().name}
