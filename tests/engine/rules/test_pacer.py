"""A pacer's say in when a request may start."""

import math

from ipybatch import Limits, Rate
from ipybatch.engine.data.policy import Pacer
from ipybatch.engine.rules.limiter import Limiter, Window


class Every:
    """One start every so many seconds."""

    def __init__(self, gap_s: float) -> None:
        self.gap_s = gap_s
        self.windows = [Window(Rate(1, per_s=gap_s))]
        self.next_s = -math.inf
        self.ended: list[dict[str, float]] = []

    def wait_s(self, now_s, cost):
        return max(0.0, self.next_s - now_s)

    def start(self, now_s, cost):
        self.next_s = now_s + self.gap_s

    def end(self, now_s, started_s, cost, actual):
        self.ended.append({**cost, **actual})

    def anew(self) -> Pacer:
        return Every(self.gap_s)


def joined(pacer, **limits):
    limiter = Limiter()
    limiter.join("session", Limits(pacer=pacer, **limits))
    return limiter


def test_a_start_waits_for_limits_and_pacer_alike():
    limiter = joined(Every(3.0), spacing_s=1.0)
    limiter.acquire(0.0)
    assert limiter.wait_s(0.5) == 2.5
    limiter = joined(Every(1.0), spacing_s=3.0)
    limiter.acquire(0.0)
    assert limiter.wait_s(0.5) == 2.5


def test_it_is_told_what_a_request_really_cost():
    pacer = Every(1.0)
    limiter = joined(pacer)
    permit = limiter.acquire(0.0, {"tokens": 500.0})
    limiter.respond(1.0, permit, {"tokens": 731.0})
    assert pacer.ended == [{"tokens": 731.0}]


def test_every_session_of_a_resource_waits_for_the_pacers_of_all():
    limiter = joined(Every(1.0))
    limiter.join("other", Limits(pacer=Every(5.0)))
    limiter.acquire(0.0)
    assert limiter.wait_s(0.0) == 5.0
    limiter.leave("other")
    assert limiter.wait_s(0.0) == 1.0


def test_its_windows_start_with_what_was_used_before():
    pacer = Every(10.0)
    Limiter().join(
        "session", Limits(pacer=pacer), now_s=100.0, spent=[(95.0, "requests", 1.0), (80.0, "requests", 1.0)]
    )
    assert pacer.windows[0].used(100.0) == 1.0


def test_the_estimate_takes_it_along_and_leaves_it_as_it_was(plan):
    pacer = Every(2.0)
    session = plan(lambda item: None, list(range(10)), limits=Limits(pacer=pacer))
    assert 18.0 <= session.estimate(latency_s=0.1).seconds <= 18.2
    assert pacer.next_s == -math.inf


def test_a_session_keeps_its_pace(plan, clock):
    async def work(item):
        return item

    session = plan(work, list(range(5)), limits=Limits(pacer=Every(2.0)))
    clock.run(session)
    assert 8.0 <= clock.now_s() < 8.5
