"""Errors: what each means for its item, the resource and the session."""

import asyncio
import email.utils
from itertools import pairwise

import httpx
import pytest

from ipybatch import Breaker, Limits, Permanent, RateLimited, Refused, Retry, Transient
from ipybatch.engine.data import events, masking
from ipybatch.testing import START_UNIX_S
from tests.works import Failing

ONE = Limits(concurrency=1)


def http_error(status, **headers):
    request = httpx.Request("GET", "http://store.invalid")
    response = httpx.Response(status, headers=headers, request=request)
    return httpx.HTTPStatusError(f"{status}", request=request, response=response)


def transport_error(kind):
    return kind("the line dropped", request=httpx.Request("GET", "http://store.invalid"))


TRANSIENT = {
    "Transient": Transient("later"),
    "ConnectionError": ConnectionError("refused"),
    "ConnectionResetError": ConnectionResetError(),
    "408": http_error(408),
    "500": http_error(500),
    "503": http_error(503),
    "httpx.ConnectError": transport_error(httpx.ConnectError),
    "httpx.ReadTimeout": transport_error(httpx.ReadTimeout),
    "httpx.RemoteProtocolError": transport_error(httpx.RemoteProtocolError),
    "TimeoutError": TimeoutError(),
}


PERMANENT = {
    "Permanent": Permanent("no such game"),
    "ValueError": ValueError("bad item"),
    "404": http_error(404),
    "400": http_error(400),
    "OSError": OSError("disk"),
    "KeyError": KeyError("name"),
}


REFUSED = {"Refused": Refused("banned"), "401": http_error(401), "403": http_error(403)}


@pytest.mark.parametrize("error", TRANSIENT.values(), ids=TRANSIENT)
def test_a_transient_error_is_tried_again_and_counts_for_the_breaker(plan, clock, error):
    work = Failing(clock, error)
    session = plan(work, [1], limits=ONE)
    failures = []
    session.on(lambda event: failures.append(event.failures) if isinstance(event, events.BreakerMoved) else None)
    assert clock.run(session).counts.completed == 1
    assert len(work.calls) == 2
    assert failures[0] == 1


@pytest.mark.parametrize("error", PERMANENT.values(), ids=PERMANENT)
def test_a_permanent_error_fails_its_item_at_once_and_is_neutral_to_the_breaker(plan, clock, error):
    work = Failing(clock, error, error, error, error)
    session = plan(work, [1, 2, 3, 4, 5], limits=ONE, breaker=Breaker(failures=2))
    moves = []
    session.on(lambda event: moves.append(event) if isinstance(event, events.BreakerMoved) else None)
    assert clock.run(session).counts.failed == 4
    assert len(work.calls) == 5
    assert moves == []


@pytest.mark.parametrize("error", REFUSED.values(), ids=REFUSED)
def test_a_refusal_stops_the_session_at_once_with_one_error(plan, clock, error):
    """A wrong key is one error, not five hundred; what is left is skipped, and a later run goes on."""
    work = Failing(clock, error)
    session = plan(work, list(range(10)), limits=ONE)
    summary = clock.run(session)
    assert (summary.state, summary.counts.completed, summary.counts.failed, summary.counts.skipped) == (
        "failed",
        0,
        1,
        9,
    )
    assert str(error) in summary.reason
    assert len(work.calls) == 1
    assert clock.run(plan(Failing(clock), list(range(10)))).counts.completed == 10


def test_a_refusal_ends_what_is_in_flight(plan, clock):
    async def work(item):
        if item == 0:
            await asyncio.sleep(1)
            raise Refused("wrong key")
        await asyncio.sleep(1000)

    summary = clock.run(plan(work, list(range(10)), limits=Limits(concurrency=4)))
    assert (summary.counts.failed, summary.counts.cancelled, summary.counts.skipped) == (1, 3, 6)
    assert clock.now_s() < 2


def test_attempts_is_the_number_of_tries_in_all(plan, clock):
    work = Failing(clock, *[ConnectionError("down")] * 9)
    session = plan(work, [1], retry=Retry(attempts=4), breaker=None)
    assert clock.run(session).counts.failed == 1
    assert len(work.calls) == 4
    assert session.results()[["attempts", "error"]].to_numpy().tolist() == [[4, "ConnectionError: down"]]


def test_a_retry_frees_its_slot_meanwhile(plan, clock):
    """With one slot, the next item runs while the first one waits."""
    work = Failing(clock, ConnectionError())
    clock.run(plan(work, [1, 2, 3], limits=ONE, retry=Retry(initial_s=100, max_s=100), breaker=None))
    assert [item for item, _ in work.calls][:2] == [1, 2]


def test_back_off_is_jittered_between_nothing_and_a_doubling_bound(plan, clock):
    work = Failing(clock, *[ConnectionError()] * 5)
    clock.run(plan(work, [1], retry=Retry(attempts=6, initial_s=1, max_s=4), breaker=None))
    times = [at for _, at in work.calls]
    waits = [later - at - 0.1 for at, later in pairwise(times)]
    assert all(-1e-6 <= wait <= bound + 1e-6 for wait, bound in zip(waits, [1, 2, 4, 4, 4], strict=True))
    assert len(set(waits)) == 5


@pytest.mark.parametrize("on", [KeyError, (KeyError, OSError), lambda error: isinstance(error, KeyError)], ids=str)
def test_retry_on_makes_an_error_transient(plan, clock, on):
    work = Failing(clock, KeyError("x"))
    assert clock.run(plan(work, [1], retry=Retry(on=on))).counts.completed == 1


def test_a_retry_function_that_raises_fails_that_item_alone(plan, clock):
    def broken(error):
        raise ZeroDivisionError

    session = plan(Failing(clock, KeyError("x")), [1, 2], limits=ONE, retry=Retry(on=broken))
    assert str(clock.run(session)) == "wishlist completed: 1/2 successful, 1 failed, 0 skipped"


@pytest.mark.parametrize(
    ("error", "wait_s"),
    [
        (http_error(429, **{"Retry-After": "30"}), 30),
        (http_error(503, **{"Retry-After": "45"}), 45),
        (http_error(429, **{"Retry-After": email.utils.formatdate(START_UNIX_S + 60, usegmt=True)}), 60),
        (RateLimited(retry_after_s=20), 20),
        (Transient(retry_after_s=25), 25),
    ],
    ids=["429 in seconds", "503 in seconds", "429 with a date", "RateLimited", "Transient"],
)
def test_the_services_own_word_cools_the_whole_resource_down(plan, clock, error, wait_s):
    """Retry-After wins over our back-off, and no item starts before it, not only the one that was told."""
    work = Failing(clock, error)
    clock.run(plan(work, [1, 2, 3], limits=ONE))
    assert work.calls[1][1] == pytest.approx(wait_s, abs=0.2)


def test_a_429_without_a_time_backs_off_and_does_not_count_for_the_breaker(plan, clock):
    work = Failing(clock, *[http_error(429)] * 4)
    session = plan(work, [1], limits=ONE, retry=Retry(attempts=5), breaker=Breaker(failures=1))
    assert clock.run(session).counts.completed == 1
    assert session.snapshot.breaker.state == "closed"
    times = [at for _, at in work.calls]
    waits = [later - at for at, later in pairwise(times)]
    assert waits == sorted(waits)
    assert waits[0] >= 1


def test_next_second_answers_a_429_50_ms_after_a_full_second(plan, clock):
    clock.advance(0.3)
    """As often as it must, and it costs no attempt; while nothing is let through, the waits grow."""
    work = Failing(clock, *[http_error(429)] * 4)
    session = plan(work, [1], limits=ONE, retry=Retry(attempts=1, strategy="next_second"))
    assert clock.run(session).counts.completed == 1
    assert [at for _, at in work.calls] == pytest.approx([0.3, 1.05, 3.05, 7.05, 15.05])


def test_a_client_of_another_loop_fails_once_with_the_remedy(live):
    """Not once per item: the session stops and says where to open the client."""
    loop = asyncio.new_event_loop()
    foreign = loop.create_future()

    async def work(item):
        await foreign

    summary = live(work, list(range(10)), limits=ONE).run()
    loop.close()
    assert (summary.state, summary.counts.failed, summary.counts.skipped) == ("failed", 1, 9)
    assert "open it in __aenter__ of the work object" in summary.reason


def test_secrets_are_masked_wherever_errors_go(plan, clock, journal, monkeypatch):
    """Promise 11: journal, event, error, reason; registered secrets, passwords and keys in addresses."""
    monkeypatch.setattr(masking, "_secrets", set())
    masking.register("s3cr3t-token")
    address = "http://me:pa55word@store.invalid/api?key=qu3rykey&appids=1"

    async def work(item):
        if item == 3:
            return {"token": "s3cr3t-token"}
        error = f"denied s3cr3t-token at {address}"
        raise Refused(error) if item == 2 else ConnectionError(error)

    session = plan(work, [3, 1, 2], limits=ONE, retry=Retry(attempts=2, initial_s=0), breaker=None)
    summary = clock.run(session)
    texts = [summary.reason, str(summary), session.log().to_string(), session.results().to_string(), repr(session)]
    texts += [path.read_bytes().decode("utf-8", "replace") for path in journal.parent.glob("journal.db*")]
    for secret in ("s3cr3t-token", "pa55word", "qu3rykey"):
        assert not any(secret in text for text in texts)
    assert "***" in summary.reason


def test_secrets_are_masked_in_notes(plan, clock, monkeypatch):
    monkeypatch.setattr(masking, "_secrets", set())
    masking.register("s3cr3t-token")

    def broken(event):
        raise RuntimeError("s3cr3t-token")

    session = plan(Failing(clock), [1])
    session.on(broken)
    clock.run(session)
    assert "s3cr3t-token" not in session.snapshot.notes[0]


class Odd(Exception):
    """An error of some client that names its headers otherwise."""

    status = 503

    def __init__(self, headers):
        super().__init__("odd")
        self.headers = headers


@pytest.mark.parametrize(
    "headers",
    [
        None,
        {},
        {"Retry-After": "soon"},
        {"Retry-After": ""},
        {"Retry-After": "-5"},
        {"Retry-After": "nan"},
        [("Retry-After", "5")],
    ],
    ids=str,
)
def test_headers_that_make_no_sense_are_no_word_of_the_service(plan, clock, headers):
    assert clock.run(plan(Failing(clock, Odd(headers)), [1, 2], limits=ONE)).counts.completed == 2


@pytest.mark.parametrize(
    ("policy", "arguments", "complaint"),
    [
        (Retry, {"attempts": 0}, "attempts must be a whole number >= 1, got 0"),
        (Retry, {"initial_s": 5, "max_s": 1}, "max_s must be >= 5, got 1"),
        (Retry, {"strategy": "linear"}, "strategy must be 'exponential' or 'next_second'"),
        (Breaker, {"failures": 0}, "failures must be a whole number >= 1, got 0"),
        (Breaker, {"break_s": 60, "max_break_s": 10}, "max_break_s must be >= 60, got 10"),
        (Breaker, {"give_up_after": 0}, "give_up_after must be a whole number >= 1, got 0"),
        (Retry, {"on": "nonsense"}, "on must be"),
    ],
    ids=str,
)
def test_a_policy_out_of_range_is_refused_by_field(policy, arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        policy(**arguments)


class BadRow(Permanent):
    kind = "bad_row"
    advice = "correct the row"


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        (BadRow("row 7"), "bad_row", "correct the row"),
        (Permanent("gone"), "permanent", ""),
        (ValueError("Invalid alpha"), "permanent", ""),
        (TimeoutError(), "timeout", ""),
        (ConnectionError(), "transient", ""),
    ],
)
def test_an_outcome_says_how_it_failed_in_one_word(plan, clock, error, kind, advice):
    """So that nobody searches the text of an error."""

    async def work(item):
        raise error

    outcomes, seen = [], []
    session = plan(work, [1], retry=Retry(attempts=1))
    session.on_outcomes(outcomes.extend)
    session.on("failed", seen.append)
    clock.run(session)
    assert [(outcome.kind, outcome.advice) for outcome in outcomes] == [(kind, advice)]
    assert [event.kind for event in seen] == [kind]


class Vague(Permanent):
    def __init__(self, kind, advice=""):
        super().__init__("odd")
        self.kind, self.said = kind, advice

    @property
    def advice(self):
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


@pytest.mark.parametrize(
    "error", [Vague(7), Vague(None), Vague(object()), Vague("odd", 7), Vague("odd", ValueError("no"))]
)
def test_an_odd_kind_or_advice_harms_its_own_item_alone(plan, clock, error):
    async def work(item):
        if item == 2:
            raise error

    outcomes = []
    session = plan(work, [1, 2, 3], retry=Retry(attempts=1))
    session.on_outcomes(outcomes.extend)
    counts = clock.run(session).counts
    assert (counts.completed, counts.failed) == (2, 1)
    (failed,) = [outcome for outcome in outcomes if outcome.status == "failed"]
    assert failed.kind in ("odd", "permanent")
    assert failed.advice == ""
