from __future__ import annotations

from typing import Any

import pytest

from ipybatch import Limits
from ipybatch.library import Character
from ipybatch.simulators import Faults

from .conftest import Azeroth

THRALL = Character("Kel'Thuzad", "Thrall")
PATH = "/profile/wow/character/kelthuzad/thrall"
ONE = Limits(concurrency=1)


def outcome(session: Any) -> tuple[str, int]:
    row = session.results().iloc[0]
    return row["status"], row["attempts"]


def many(count: int) -> list[Character]:
    return [Character("Kel'Thuzad", f"Orc{n}") for n in range(count)]


@pytest.mark.parametrize("ahead_s", [0.0, 0.3, 0.7, -12.4])
def test_too_fast_waits_for_the_servers_next_second(azeroth: Azeroth, ahead_s: float) -> None:
    """50 ms into the next second by the server's clock, whatever ours says; its Date tells, to a few milliseconds."""
    azeroth.open(date_offset_s=ahead_s)
    azeroth.script["/profile/wow/character/kelthuzad/orc149"] = [429]
    session = azeroth.run(many(150), limits=Limits(concurrency=1, spacing_s=0.01))
    assert session.counts.completed == 150
    *_, refused_s, again_s = azeroth.simulator.stats()["arrivals"]
    assert int(again_s + ahead_s + 100) == int(refused_s + ahead_s + 100) + 1
    assert 0.05 <= (again_s + ahead_s) % 1 < 0.09


def test_one_429_is_answered_and_a_second_fails_the_item(azeroth: Azeroth) -> None:
    azeroth.script[PATH] = [429]
    assert outcome(azeroth.run([THRALL], name="one")) == ("completed", 2)
    azeroth.library.forget()
    azeroth.script[PATH] = [429, 429]
    assert outcome(azeroth.run([THRALL], name="two")) == ("failed", 2)


@pytest.mark.parametrize(
    ("statuses", "ended"),
    [
        ([500, 429], ("completed", 3)),  # its first 429, though not its first failure
        ([429, 500], ("completed", 3)),
        ([500, 429, 429], ("failed", 3)),
        ([429, 500, 429], ("failed", 3)),
        ([500, 500, 500], ("failed", 3)),
    ],
)
def test_other_failures_do_not_use_the_429s_up(azeroth: Azeroth, statuses: list[int], ended: tuple[str, int]) -> None:
    azeroth.script[PATH] = [*statuses]
    assert outcome(azeroth.run([THRALL])) == ended


def test_a_later_run_may_meet_a_429_again(azeroth: Azeroth) -> None:
    """Each round of attempts begins anew: what the source remembers of an earlier one does not count."""
    source = azeroth.source()
    azeroth.script[PATH] = [429, 429]
    assert outcome(azeroth.run([THRALL], source=source, name="first")) == ("failed", 2)
    azeroth.script[PATH] = [500, 429]
    assert outcome(azeroth.run([THRALL], source=source, name="second")) == ("completed", 3)


def test_a_429_is_no_failure_of_the_service(azeroth: Azeroth) -> None:
    for n in range(10):
        azeroth.script[f"/profile/wow/character/kelthuzad/orc{n}"] = [500, 429] if n % 4 == 3 else [429]
    session = azeroth.run(many(10), limits=ONE)
    assert session.counts.completed == 10
    assert session.snapshot.breaker.openings == 0


def test_the_services_own_word_wins(azeroth: Azeroth) -> None:
    azeroth.open(stray_429_rate=1.0, retry_after_s=7)
    azeroth.run([THRALL])
    first_s, second_s = azeroth.simulator.stats()["arrivals"]
    assert 7.0 <= second_s - first_s < 7.1


def test_a_token_that_ended_early_goes_unnoticed(azeroth: Azeroth) -> None:
    """401: a newer token, the request once more, with a permit of its own; the item has one attempt."""
    azeroth.open(token_lifetime_s=2, token_told_s=86_399)
    session = azeroth.run(many(30), limits=Limits(concurrency=1, spacing_s=0.2))
    stats = azeroth.simulator.stats()
    assert session.counts.completed == 30
    assert set(session.results()["attempts"]) == {1}
    assert stats["statuses"]["401"] == stats["tokens"] - 1 > 1
    gaps_s = [after - before for before, after in zip(stats["arrivals"], stats["arrivals"][1:], strict=False)]
    assert min(gaps_s) >= 0.2 - 0.02  # a token and the way to the service take up to 10 ms each


def test_requests_side_by_side_renew_a_token_once(azeroth: Azeroth) -> None:
    azeroth.open(token_lifetime_s=3, token_told_s=86_399, latency_s=0.5)
    session = azeroth.run(many(100), limits=Limits(concurrency=10))
    stats = azeroth.simulator.stats()
    assert session.counts.completed == 100
    assert stats["tokens"] <= azeroth.clock.now_s() / 3 + 1
    assert stats["statuses"]["401"] > stats["tokens"]


def test_a_second_401_stops_the_session(azeroth: Azeroth) -> None:
    azeroth.script[PATH] = [401, 401]
    session = azeroth.run([THRALL, *many(5)], limits=ONE)
    assert session.state == "failed"
    assert session.reason.startswith("Battle.net answered 401: it does not accept a token it has just given")
    assert azeroth.asked == [PATH, PATH]


def test_a_request_that_hangs_is_given_up(azeroth: Azeroth) -> None:
    """The session sets no limit of time, since a permit may take an hour; each request has one."""
    azeroth.open(faults=Faults(outages=((0.1, 1e9),), outage_kind="hang", latency_s=0.01))
    patient = azeroth.source(client=azeroth.client(timeout=None))
    session = azeroth.run(many(2), source=patient, limits=Limits(concurrency=1, spacing_s=0.2), breaker=None)
    assert session.results()["status"].tolist() == ["completed", "timeout"]
    assert azeroth.clock.now_s() < 400
