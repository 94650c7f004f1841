"""What work asks of the engine: from any thread and loop, checked, and nothing after its end."""

import asyncio
import contextlib
import decimal
import math
import sys
import threading
import time
from collections import Counter

import pytest

from ipybatch import Attempt, Breaker, InputError, Limits, Permanent, Rate, Retry, Withheld
from tests.engine.run.test_runner import on_disk
from tests.works import worst


@pytest.fixture
def quick_switches():
    """Let threads interrupt each other as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_plain_functions_add_items_at_the_same_time(live, journal, quick_switches):
    """Eight threads: every item runs once, with its own result, and is on disk."""
    ran, together = Counter(), threading.Barrier(8)

    def work(item, attempt):
        ran[item] += 1
        if "/" not in item:
            together.wait(20)
            assert attempt.add(f"{item}/member {n}" for n in range(20)) == 20
        return item

    session = live(work, [f"guild {n}" for n in range(40)], limits=Limits(concurrency=8))
    assert session.run().counts.completed == 40 * 21
    results = session.results()
    assert set(ran.values()) == {1}
    assert results["key"].tolist() == results["result"].tolist()
    assert len(set(on_disk(journal))) == 40 * 21


def by_with(attempt, cost):
    with attempt.permit(cost):
        pass


def by_a_loop_of_its_own(attempt, cost):
    async def ask():
        async with attempt.permit(cost):
            pass

    asyncio.run(ask())


@pytest.mark.parametrize("ask", [by_with, by_a_loop_of_its_own])
def test_plain_functions_ask_for_permits(live, ask):
    """Each request takes its own permit, whatever thread or loop asks for it."""

    def work(item, attempt):
        for _ in range(3):
            ask(attempt, {})
        return attempt.requests

    session = live(work, range(4), limits=Limits(concurrency=4, rates=[Rate(1000, per_s=60)]))
    assert session.run().counts.completed == 4
    assert session.results()["result"].tolist() == [4] * 4
    (window,) = session._run._membership.resource.limiter.windows.values()
    assert window.in_flight == 0
    assert window.used(0.0) == 16


def test_with_is_refused_where_it_would_block_the_engine(live):
    async def work(item, attempt):
        with attempt.permit():
            pass

    session = live(work, [1], retry=Retry(attempts=1))
    assert session.run().counts.failed == 1
    assert "use async with" in session.results()["error"][0]


def test_a_thread_that_waits_for_a_permit_is_turned_away_when_its_attempt_is_given_up(live):
    """Else it would take a place in the window for nothing."""
    turned_away = threading.Event()

    def work(item, attempt):
        try:
            with attempt.permit():
                pass
        except Withheld:
            turned_away.set()
            raise

    session = live(work, [1], timeout_s=30, limits=Limits(rates=[Rate(1, per_s=3600)]))
    session.start()
    while not session._run.runner or not session._run.runner._permits.waiting:
        threading.Event().wait(0.01)
    session.cancel()
    assert turned_away.wait(10)
    assert session.state == "cancelled"


LATE = [
    ("add", lambda attempt: attempt.add([99])),
    ("permit", lambda attempt: by_with(attempt, {})),
    ("settle", lambda attempt: attempt.settle(tokens=1)),
    ("join", lambda attempt: attempt.join(1)),
    ("waiting", lambda attempt: attempt.waiting().__enter__()),
]


@pytest.mark.parametrize(("name", "ask"), LATE, ids=[name for name, _ in LATE])
def test_nothing_is_asked_for_an_attempt_that_has_ended(live, name, ask):
    """Of a thread that was given up, or that the work left behind."""
    kept = []

    def work(item, attempt):
        kept.append(attempt)

    session = live(work, [1])
    session.run()
    with pytest.raises(Withheld, match="has ended"):
        ask(kept[0])
    assert session.counts.total == 1


BAD = [None, "731", math.nan, math.inf, -1, True, [5], decimal.Decimal(5), 10**400]


@pytest.mark.parametrize("bad", BAD, ids=repr)
@pytest.mark.parametrize("method", ["settle", "permit", "permit as number"])
def test_a_bad_amount_fails_its_item_alone(plan, clock, method, bad):
    """Nothing of it reaches the windows or the journal, and the slot is given back."""

    async def work(item, attempt):
        amount = bad if item == 3 else 10
        if method == "settle":
            attempt.settle(tokens=amount)
        else:
            async with attempt.permit({"tokens": amount} if method == "permit" or item != 3 else amount):
                pass
        return item

    session = plan(
        work,
        range(10),
        cost=lambda item: 10,
        limits=Limits(concurrency=2, rates=[Rate(10_000, per_s=60, unit="tokens")]),
    )
    summary = clock.run(session)
    assert (summary.state, summary.counts.completed, summary.counts.failed) == ("completed", 9, 1)
    assert "InputError" in session.results()["error"][3]
    assert session._run._membership.resource.limiter.running == 0


@pytest.mark.parametrize("bad", [None, -1, 1.5, "one", True, 2**31, 2**63], ids=repr)
def test_a_group_that_is_none_fails_its_item_alone(plan, clock, bad):
    """What the journal cannot hold as a number ends no session."""

    async def work(item, attempt):
        attempt.join(bad if item == 3 else item)

    session = plan(work, range(10), limits=Limits(concurrency=2))
    assert str(clock.run(session)) == "wishlist completed: 9/10 successful, 1 failed, 0 skipped"
    assert "group must be a whole number >= 0 and <= 2147483647" in session.results()["error"][3]


@pytest.mark.parametrize("name", ["actual", "requests", "close"])
def test_what_the_engine_reckons_with_is_not_the_work_s_to_set(plan, clock, name):
    """A cost goes through `settle`, which checks it; the number of requests and the end are the engine's."""

    async def work(item, attempt):
        if item == 3:
            assert name == "requests" or not hasattr(attempt, name)
            setattr(attempt, name, None)
        return attempt.requests

    limits = Limits(concurrency=2, rates=[Rate(100, per_s=0.1, unit="tokens")])
    session = plan(work, range(10), limits=limits, cost=lambda item: 1)
    assert clock.run(session).counts.completed == (9 if name == "requests" else 10)


@pytest.mark.parametrize("bad", [None, 5, "abc", b"abc"], ids=repr)
def test_what_is_added_is_a_list_of_items(bad):
    with pytest.raises(InputError, match="items must be a list"):
        Attempt('"a"', 1, None).add(bad)


def test_a_cost_in_numpy_s_numbers_is_a_number(plan, clock):
    numpy = pytest.importorskip("numpy")

    async def work(item, attempt):
        attempt.settle(tokens=numpy.int64(5))
        async with attempt.permit({"tokens": numpy.float32(2)}):
            pass

    limits = Limits(rates=[Rate(100, per_s=60, unit="tokens")])
    assert clock.run(plan(work, [1], cost=lambda item: 1, limits=limits)).counts.completed == 1


async def asks_once_more(item, attempt):
    async with attempt.permit():
        await asyncio.sleep(0.1)
    return item


def test_waiting_for_our_own_limits_is_no_timeout(plan, clock):
    """The attempt's clock stands while it waits for a permit: the service did nothing wrong."""
    limits = Limits(concurrency=4, rates=[Rate(2, per_s=30)])
    session = plan(asks_once_more, range(8), limits=limits, timeout_s=1.0, retry=Retry(attempts=1))
    assert clock.run(session).counts.completed == 8
    assert max(session.results()["seconds"]) < 1.0


def test_what_is_on_its_way_runs_against_the_timeout_while_more_waits(plan, clock):
    """Else two requests that wait for each other would never end."""

    async def work(item, attempt):
        async def hangs():
            async with attempt.permit():
                await asyncio.sleep(3600)

        await asyncio.gather(hangs(), hangs())

    limits = Limits(concurrency=1, rates=[Rate(2, per_s=30)])
    session = plan(work, [1], limits=limits, timeout_s=5.0, retry=Retry(attempts=1))
    assert clock.run(session).counts.timeout == 1
    assert clock.now_s() < 60


@pytest.mark.parametrize("seconds", [0.5, 2.0], ids=["in time", "too slow"])
def test_waiting_for_what_the_work_says_is_no_timeout(plan, clock, seconds):
    """A person's answer, for instance; what comes after it counts again."""

    async def work(item, attempt):
        with attempt.waiting():
            await asyncio.sleep(600)
        await asyncio.sleep(seconds)

    session = plan(work, [1], timeout_s=1.0, retry=Retry(attempts=1))
    assert clock.run(session).counts.completed == (seconds < 1.0)
    assert session.results()["seconds"].tolist() == [pytest.approx(min(seconds, 1.0), abs=0.1)]


class Slow:
    """A limiter of the user's, as in ``Limits(also=[...])``, that lets one in every ten seconds."""

    def __init__(self):
        self._lock = asyncio.Lock()

    async def __aenter__(self):
        async with self._lock:
            await asyncio.sleep(10)

    async def __aexit__(self, *_):
        pass


def test_waiting_for_a_limiter_of_the_user_s_is_no_timeout(plan, clock):
    async def work(item):
        await asyncio.sleep(0.5)

    session = plan(work, range(3), limits=Limits(concurrency=3, also=[Slow()]), timeout_s=1.0, retry=Retry(attempts=1))
    assert clock.run(session).counts.completed == 3


def test_a_timeout_of_the_work_s_own_around_our_waiting_is_no_outage(plan, clock):
    """The breaker counts failures of the service, not waiting for our windows."""

    async def work(item, attempt):
        async with asyncio.timeout(1), attempt.permit():
            pass

    limits = Limits(concurrency=1, rates=[Rate(1, per_s=10)])
    session = plan(work, range(3), limits=limits, retry=Retry(attempts=1), breaker=Breaker(failures=1, give_up_after=1))
    summary = clock.run(session)
    assert (summary.state, summary.counts.timeout) == ("completed", 3)
    assert session.snapshot.breaker_moved == 0


def test_permits_of_threads_keep_to_the_windows(live):
    """As the server would see them."""
    sent, lock = [], threading.Lock()

    def work(item, attempt):
        for _ in range(3):
            with attempt.permit(), lock:
                sent.append(time.monotonic())

    session = live(work, range(6), limits=Limits(concurrency=6, rates=[Rate(10, per_s=0.3)]))
    assert session.run().counts.completed == 6
    assert worst(sent, 0.3) <= 10


def test_a_permit_that_can_never_be_is_refused_in_a_thread(live):
    def work(item, attempt):
        with pytest.raises(Permanent), attempt.permit({"tokens": 1000.0}):
            pass

    limits = Limits(rates=[Rate(10, per_s=60, unit="tokens")])
    assert live(work, [1], limits=limits, cost=lambda item: 1).run().counts.completed == 1


def other_loop(coroutine):
    """Run a coroutine in a loop of the thread's own."""
    return asyncio.run(coroutine)


def test_a_permit_that_came_too_late_is_given_back(live):
    """Of another loop whose own timeout fired as the permit was granted: else the window would be full for ever."""
    limits = Limits(concurrency=4, rates=[Rate(4, per_s=0.05)])

    def work(item, attempt):
        async def ask():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01 * (item % 5)), attempt.permit():
                    pass

        other_loop(ask())
        return item

    session = live(work, range(40), limits=limits)
    assert session.run().counts.completed == 40
    (window,) = session._run._membership.resource.limiter.windows.values()
    assert window.in_flight == 0


def test_a_permit_that_is_never_left_is_given_back_when_the_attempt_ends(plan, clock):
    async def work(item, attempt):
        await attempt.permit().__aenter__()
        return item

    session = plan(work, range(6), limits=Limits(concurrency=2, rates=[Rate(2, per_s=1)]))
    assert clock.run(session).counts.completed == 6
    (window,) = session._run._membership.resource.limiter.windows.values()
    assert window.in_flight == 0


def test_a_permit_is_taken_once(plan, clock):
    async def work(item, attempt):
        permit = attempt.permit()
        async with permit, permit:
            pass

    session = plan(work, [1], retry=Retry(attempts=1), limits=Limits(rates=[Rate(100, per_s=1)]))
    assert clock.run(session).counts.failed == 1
    assert "taken already" in session.results()["error"][0]


def test_a_timeout_of_another_loop_around_our_waiting_is_no_outage(live):
    def work(item, attempt):
        async def ask():
            async with asyncio.timeout(0.05), attempt.permit():
                pass

        other_loop(ask())
        return item

    limits = Limits(concurrency=1, rates=[Rate(1, per_s=3600)])
    session = live(work, [1, 2], limits=limits, retry=Retry(attempts=1), breaker=Breaker(failures=1, give_up_after=1))
    session.start()
    while session.counts.timeout == 0:
        time.sleep(0.01)
    assert session.snapshot.breaker_moved == 0


class FixedWindow:
    """A service that allows 20 in every minute by its own clock, of which another tool takes 12, and tells the rest."""

    def __init__(self, clock, of_others=12):
        self.clock, self.of_others, self.counts, self.refused = clock, of_others, Counter(), 0

    def answer(self):
        minute, passed_s = divmod(self.clock.unix_s(), 60.0)
        self.counts[minute] += 1
        left = 20 - self.of_others - self.counts[minute]
        self.refused += left < 0
        headers = {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": str(max(0, left))}
        return headers | {"X-RateLimit-Reset": str(math.ceil(60.0 - passed_s))}


@pytest.mark.parametrize("rates", [[Rate(20, per_s=60)], []])
def test_what_another_tool_used_is_not_used_again(plan, clock, rates):
    """A good answer's headers say how much is left: none is refused, and nothing waits longer than they say."""
    service = FixedWindow(clock)

    async def work(item, attempt):
        await asyncio.sleep(0.2)
        attempt.heed(service.answer())

    session = plan(work, list(range(32)), limits=Limits(concurrency=1, rates=rates))
    clock.run(session)
    assert (session.counts.completed, service.refused) == (32, 0)
    assert clock.now_s() < 4 * 61.0


@pytest.mark.parametrize("wrapped", ["headers", "email", "mapping", "httpx"])
def test_any_client_s_answer_may_be_handed_over(live, wrapped):
    """From a thread too; those of an error are read without being handed over."""
    import email.message

    import httpx

    fields = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "500"}
    message = email.message.Message()
    for name, value in fields.items():
        message[name] = value
    answers = {
        "headers": type("Response", (), {"headers": fields})(),
        "email": type("HTTPResponse", (), {"headers": message})(),
        "mapping": fields,
        "httpx": httpx.Response(200, headers=fields),
    }
    session = live(lambda item, attempt: attempt.heed(answers[wrapped]), [1, 2], limits=Limits(concurrency=1))
    told = threading.Event()
    session.on(lambda event: told.set() if type(event).__name__ == "CooledDown" else None)
    session.start()
    assert told.wait(20)
    assert 490 < session.snapshot.cool_until_s - time.time() <= 501
    session.cancel()


def test_what_has_no_headers_cannot_be_heeded(plan, clock):
    def work(item, attempt):
        attempt.heed("Retry-After: 5")

    session = plan(work, [1], backend="threads")
    clock.run(session)
    error = session.results()["error"][0]
    assert "heed() must be given a response or a mapping of headers, got 'Retry-After: 5'" in error
