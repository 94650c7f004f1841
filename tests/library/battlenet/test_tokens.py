from __future__ import annotations

import asyncio
import logging
import math
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import Breaker, Limits, Rate
from ipybatch.engine.data.masking import mask
from ipybatch.library import Character
from ipybatch.library.battlenet.tokens import GRACE_S, ServerClock, read_date
from ipybatch.simulators import Faults
from tests.library.conftest import Azeroth

LIMITS = Limits(concurrency=5)


def many(count: int, start: int = 0) -> list[Character]:
    return [Character("Kel'Thuzad", f"Orc{n}") for n in range(start, start + count)]


def test_one_token_serves_all_requests_and_sessions(azeroth: Azeroth) -> None:
    source = azeroth.source()
    first, second = (azeroth.session(many(20, at), source=source, name=str(at)) for at in (0, 50))

    async def both() -> None:
        await asyncio.gather(first.drive(), second.drive())

    azeroth.clock.run_coroutine(both())
    third = azeroth.run(many(20, 100), source=source, name="third")
    assert first.counts.completed + second.counts.completed + third.counts.completed == 60
    assert azeroth.simulator.stats()["tokens"] == 1


def test_a_token_is_renewed_before_it_ends(azeroth: Azeroth) -> None:
    """No request meets an ended token, and none is renewed much too early."""
    azeroth.open(token_lifetime_s=10)
    session = azeroth.run(many(300), limits=Limits(concurrency=5, spacing_s=0.2))
    stats = azeroth.simulator.stats()
    assert session.counts.completed == 300
    assert stats["statuses"] == {"200": 300 + stats["tokens"]}
    assert stats["tokens"] == 7  # 60 s, renewed every 9.5 s


def test_a_token_request_costs_no_permit(azeroth: Azeroth) -> None:
    """Two requests in 10 s, though a token goes before each of them."""
    azeroth.open(token_lifetime_s=5)
    azeroth.run(many(2), limits=Limits(rates=[Rate(1, per_s=10)]))
    first_s, second_s = azeroth.simulator.stats()["arrivals"]
    assert azeroth.simulator.stats()["tokens"] == 2
    assert second_s - first_s < 10.1


def test_a_wrong_secret_is_asked_about_once(azeroth: Azeroth) -> None:
    """Twenty attempts wait for a token; the first answer stops them all."""
    session = azeroth.run(many(100), source=azeroth.source(client_secret="wrong-secret-1"))
    assert session.state == "failed"
    assert session.reason.startswith("Battle.net's token service answered 401: it does not accept client_id and")
    assert len(azeroth.sent) == 1
    assert session.counts.failed == 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (
            301,
            "answered 301: it has moved to https://new.battle.invalid; set its address accordingly; there is no token",
        ),
        (400, "answered 400: gone, Try elsewhere; there is no token to be had"),
        (403, "answered 403: it does not accept client_id and client_secret"),
        (404, "answered 404: gone, Try elsewhere; there is no token to be had"),
    ],
)
@pytest.mark.parametrize("is_limited", [True, False])
def test_a_token_that_cannot_be_had_is_one_error(azeroth: Azeroth, fault: Any, says: str, is_limited: bool) -> None:
    """Of 200 items none is lost: one request, the service's own sentence, and the next call runs them all."""
    limits = LIMITS if is_limited else Limits(concurrency=200)
    azeroth.open(token_fault=fault)
    session = azeroth.run(many(200), limits=limits)
    assert session.state == "failed"
    assert session.reason.startswith(f"Battle.net's token service {says}")
    assert len(azeroth.sent) == 1
    azeroth.open()
    assert azeroth.run(many(200), limits=limits).counts.completed == 200


@pytest.mark.parametrize("breaker", [Breaker(), None], ids=["breaker", "no breaker"])
def test_a_token_service_that_vanished_is_not_asked_for_every_item(azeroth: Azeroth, breaker: Breaker | None) -> None:
    """Three requests, and those who wait share the answer; a probe for each further opening."""
    azeroth.open(token_fault="drop")
    session = azeroth.run(many(200), limits=Limits(concurrency=20), breaker=breaker)
    assert session.counts.completed == 0
    if breaker is None:
        assert len(azeroth.sent) <= 3 + azeroth.clock.now_s()
    else:
        assert session.state == "failed"
        assert len(azeroth.sent) <= 3 + 4
    azeroth.open()
    assert azeroth.run(many(200)).counts.completed == 200


def test_trouble_of_the_token_service_passes(azeroth: Azeroth) -> None:
    azeroth.script["/oauth/token"] = [503, 429]
    session = azeroth.run(many(10), limits=LIMITS)
    assert session.counts.completed == 10
    assert azeroth.asked != []


def test_a_dead_token_service_is_left_alone(azeroth: Azeroth) -> None:
    azeroth.open(faults=Faults(outages=((0.0, 1e9),), outage_kind="503"))
    session = azeroth.run(many(100), limits=LIMITS)
    assert session.state == "failed"
    assert "breaker opened" in session.reason
    assert len(azeroth.sent) <= 3 + 5 + 4  # failures, those in flight, a probe for each further opening


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        {"access_token": "", "expires_in": 5},
        {"access_token": "abcdefgh", "expires_in": None},
        {"access_token": "abcdefgh", "expires_in": "nan"},
        {"access_token": "abcdefgh", "expires_in": 0},
        {"access_token": "ab\ncdefgh", "expires_in": 5},
        {"access_token": 7, "expires_in": 5},
        {"access_token": "abcdefgh", "expires_in": "soon"},
    ],
)
def test_an_answer_without_a_token_is_tried_again(azeroth: Azeroth, answer: Any) -> None:
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json=answer)))
    session = azeroth.run(many(1), source=azeroth.source(client=client), breaker=None)
    row = session.results().iloc[0]
    assert (row["attempts"], row["error"]) == (3, "Battle.net's token service answered without a token")


@pytest.mark.parametrize("told", [{}, {"expires_in": "86399"}, {"expires_in": 1e300}, {"expires_in": 86399.0}], ids=str)
def test_a_lifetime_may_be_a_text_or_not_be_told(azeroth: Azeroth, told: dict[str, Any]) -> None:
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        return httpx2.Response(200, json={"access_token": "abcdefgh", "name": "Orc", **told})

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    session = azeroth.run(many(20), source=azeroth.source(client=client))
    assert session.counts.completed == 20
    assert asked.count("/oauth/token") == 1


def test_no_secret_is_written_anywhere(azeroth: Azeroth, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Id, secret and token: in no file, no event, no log line, no text of an error."""
    caplog.set_level(logging.DEBUG)
    faults = Faults(seed=1, rate_500=0.3, rate_429=0.1)
    azeroth.open(faults=faults)
    session = azeroth.run(many(20), breaker=None)
    tokens = {request.headers["authorization"].split()[1] for request in azeroth.sent}
    assert len(tokens) == 2  # the token, and id with secret
    told = [
        session.log().to_string(),
        session.results().to_string(),
        repr(session),
        caplog.text,
        mask(" ".join(tokens)),
    ]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2
    for secret in (azeroth.ID, azeroth.SECRET, *tokens):
        assert not any(secret in text for text in told)
        assert not any(secret.encode() in file for file in files)


# The server's clock

AHEAD_S = st.floats(-1e6, 1e6)  # of the server's clock over ours
WAYS_S = st.tuples(st.floats(0.0, 0.5), st.floats(0.0, 0.5))  # there and back


def answer(clock: ServerClock, sent_s: float, way_s: tuple[float, float], ahead_s: float) -> tuple[float, float]:
    """Let one answer be learnt from; return its stamp and when it was received."""
    stamped_s = math.floor(sent_s + way_s[0] + ahead_s)
    received_s = sent_s + sum(way_s)
    clock.learn(stamped_s, sent_s, received_s)
    return stamped_s, received_s


@given(AHEAD_S, st.lists(st.tuples(st.floats(0.0, 100.0), WAYS_S), min_size=1, max_size=20))
def test_it_is_never_early(ahead_s: float, asked: list[tuple[float, tuple[float, float]]]) -> None:
    """Whatever the lines do and the clocks say: when the wait is over, the server's next second has begun."""
    clock = ServerClock()
    for sent_s, way_s in sorted(asked):
        stamped_s, received_s = answer(clock, sent_s, way_s, ahead_s)
        over_s = received_s + clock.until_next_s(stamped_s, received_s)
        assert over_s + ahead_s >= stamped_s + 1.0 + GRACE_S - 1e-6


@given(st.floats(-1e6, 1e6))
def test_a_second_of_answers_leaves_little_doubt(ahead_s: float) -> None:
    """A hundred answers a second, 10 ms each way: the wait ends at most 30 ms after the earliest moment."""
    clock = ServerClock()
    for nth in range(150):
        stamped_s, received_s = answer(clock, nth / 100, (0.01, 0.01), ahead_s)
    over_s = received_s + clock.until_next_s(stamped_s, received_s)
    assert over_s + ahead_s <= max(stamped_s + 1.0 + GRACE_S, received_s + ahead_s) + 0.03 + 1e-6


@pytest.mark.parametrize("jump_s", [-100.0, 100.0])
def test_a_clock_that_was_set_is_learnt_anew(jump_s: float) -> None:
    clock = ServerClock()
    answer(clock, 0.0, (0.0, 0.0), 0.5)
    stamped_s, received_s = answer(clock, 10.0, (0.0, 0.0), 0.5 + jump_s)
    assert 0.5 < clock.until_next_s(stamped_s, received_s) <= 1.0 + GRACE_S + 1e-6


def test_a_date_header_is_read() -> None:
    assert read_date(formatdate(1_700_000_000, usegmt=True)) == 1_700_000_000
    assert [read_date(text) for text in (None, "", "soon")] == [None, None, None]
