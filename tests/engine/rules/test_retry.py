import asyncio
import random
from email.utils import formatdate

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import InputError, JournalFull, JournalLocked, Permanent, RateLimited, Refused, Retry, Transient
from ipybatch.engine.rules.retry import Kind, Verdict, back_off_s, classify, cool_down_s, is_last, parse_retry_after

NOW_S = 1_700_000_000.0


class AnswerError(Exception):
    """An HTTP library's error: a response with a status and headers."""

    def __init__(self, status, headers=None):
        super().__init__(f"HTTP {status}")
        self.response = type("Response", (), {"status_code": status, "headers": headers or {}})()


class StatusError(Exception):
    """The other shape in use: status and headers on the error itself."""

    def __init__(self, status, headers=None):
        super().__init__(f"HTTP {status}")
        self.status, self.headers = status, headers


def kind_of(error, retry=None):
    return classify(error, retry or Retry(), NOW_S).kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), Kind.TIMEOUT),
        (ConnectionResetError(), Kind.TRANSIENT),
        (BrokenPipeError(), Kind.TRANSIENT),
        (httpx.ConnectError("no route"), Kind.TRANSIENT),
        (httpx.ReadTimeout("too slow"), Kind.TRANSIENT),
        (httpx.RemoteProtocolError("cut off"), Kind.TRANSIENT),
        (Transient(), Kind.TRANSIENT),
        (RateLimited(), Kind.RATE_LIMITED),
        (Permanent("no such game"), Kind.PERMANENT),
        (Refused("wrong key"), Kind.REFUSED),
        (ValueError("bad input"), Kind.PERMANENT),
        (KeyError("name"), Kind.PERMANENT),
        (InputError("bad"), Kind.PERMANENT),
        (OSError(28, "disk full"), Kind.PERMANENT),
        (asyncio.CancelledError(), Kind.PERMANENT),
        (SystemExit(1), Kind.PERMANENT),
    ],
)
def test_an_error_means_what_the_contract_says(error, kind):
    """Timeouts, lost lines and transport errors are transient; whatever says nothing of the service is permanent."""
    assert kind_of(error) is kind


@pytest.mark.parametrize("make", [AnswerError, StatusError])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Kind.PERMANENT),
        (401, Kind.REFUSED),
        (403, Kind.REFUSED),
        (404, Kind.PERMANENT),
        (408, Kind.TRANSIENT),
        (410, Kind.PERMANENT),
        (429, Kind.RATE_LIMITED),
        (500, Kind.TRANSIENT),
        (502, Kind.TRANSIENT),
        (503, Kind.TRANSIENT),
        (504, Kind.TRANSIENT),
    ],
)
def test_a_status_means_the_same_on_every_client(make, status, kind):
    """The status decides, wherever a library keeps it."""
    assert kind_of(make(status)) is kind


def test_an_httpx_status_error_is_understood():
    """What ``raise_for_status`` raises, with the service's own word on when to come back."""
    request = httpx.Request("GET", "https://store.example/api")
    response = httpx.Response(503, headers={"retry-after": "7"}, request=request)
    with pytest.raises(httpx.HTTPStatusError) as raised:
        response.raise_for_status()
    assert classify(raised.value, Retry(), NOW_S) == Verdict(Kind.TRANSIENT, 7.0)


@pytest.mark.parametrize(
    ("verdict", "counts"),
    [
        (Kind.TRANSIENT, True),
        (Kind.TIMEOUT, True),
        (Kind.RATE_LIMITED, False),
        (Kind.PERMANENT, False),
        (Kind.REFUSED, False),
    ],
)
def test_only_failures_of_the_service_count_for_the_breaker(verdict, counts):
    """429, 404 and bad input say nothing about its health."""
    assert Verdict(verdict).counts is counts


@pytest.mark.parametrize("counts", [True, False])
def test_a_failure_that_says_nothing_of_the_service_is_neutral(counts):
    """The work knows better: it may say that a transient failure is not the service's."""
    verdict = classify(Transient("one of many", counts=counts), Retry(), NOW_S)
    assert (verdict.kind, verdict.counts) == (Kind.TRANSIENT, counts)


@pytest.mark.parametrize("error", [JournalLocked("busy"), JournalFull("no room")])
def test_what_the_journal_refuses_is_no_fault_of_the_item(error):
    """`attempt.add` writes: the item runs again, and the breaker does not count it."""
    verdict = classify(error, Retry(), NOW_S)
    assert (verdict.kind, verdict.counts) == (Kind.TRANSIENT, False)


def test_the_user_may_call_an_error_transient():
    """``Retry(on=...)`` wins over a permanent reading, by type or by status, and keeps the service's word."""
    assert kind_of(KeyError(), Retry(on=LookupError)) is Kind.TRANSIENT
    again = Retry(on=lambda error: "409" in str(error))
    assert classify(AnswerError(409, {"Retry-After": "3"}), again, NOW_S) == Verdict(Kind.TRANSIENT, 3.0)


def test_the_user_cannot_turn_a_429_into_a_failure_of_the_service():
    """It stays a request to slow down, which the breaker does not count."""
    assert kind_of(AnswerError(429), Retry(on=Exception)) is Kind.RATE_LIMITED


def test_what_the_work_said_itself_is_final():
    """``Permanent`` raised by the work is not second-guessed by ``on``."""
    assert kind_of(Permanent("gone"), Retry(on=Exception)) is Kind.PERMANENT


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "12"}, 12.0),
        ({"retry-after": "1.5"}, 1.5),
        (httpx.Headers({"RETRY-AFTER": "3"}), 3.0),
        ({"Retry-After": formatdate(NOW_S + 90, usegmt=True)}, 90.0),
        ({"Retry-After": formatdate(NOW_S - 90, usegmt=True)}, 0.0),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": ""}, None),
        ({}, None),
        (None, None),
        ("not a mapping", None),
        ([("Retry-After", "5")], None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(headers, wait_s):
    """Seconds or a date; the past means now, and what cannot be read says nothing."""
    assert parse_retry_after(headers, NOW_S) == wait_s


@given(value=st.one_of(st.text(), st.binary(), st.integers(), st.none(), st.lists(st.text())))
def test_no_header_of_a_service_can_break_the_engine(value):
    """Whatever stands in Retry-After: a wait that is not negative and finite, or none."""
    wait_s = parse_retry_after({"Retry-After": value}, NOW_S)
    assert wait_s is None or 0.0 <= wait_s < float("inf")


@pytest.mark.parametrize(
    "error",
    [RateLimited(retry_after_s=9), AnswerError(429, {"Retry-After": "9"}), StatusError(429, {"Retry-After": "9"})],
)
def test_the_services_own_word_is_carried(error):
    """From our own errors as from a header."""
    assert classify(error, Retry(), NOW_S) == Verdict(Kind.RATE_LIMITED, 9.0)


@given(seed=st.integers(0, 2**32), attempt=st.integers(1, 2000), initial_s=st.floats(0, 10), max_s=st.floats(10, 90))
def test_full_jitter_stays_under_the_doubling_back_off(seed, attempt, initial_s, max_s):
    """Between 0 and min(max_s, initial_s * 2**(attempt - 1)), for any number of attempts."""
    retry = Retry(initial_s=initial_s, max_s=max_s)
    bound_s = min(max_s, initial_s * 2 ** min(attempt - 1, 100))
    assert 0.0 <= back_off_s(retry, attempt, random.Random(seed)) <= bound_s


def test_jitter_is_spread_over_the_whole_range():
    """Failing items do not march in step: a thousand waits fill the range evenly."""
    chance = random.Random(7)
    waits = [back_off_s(Retry(initial_s=1, max_s=60), 4, chance) for _ in range(1000)]
    assert min(waits) < 0.1
    assert max(waits) > 7.9
    assert sum(waits) / 1000 == pytest.approx(4.0, abs=0.3)


def test_cool_downs_in_a_row_grow():
    """A 429 that names no time: initial_s, twice that, and so on up to max_s."""
    retry = Retry(initial_s=2, max_s=15)
    assert [cool_down_s(retry, n, NOW_S) for n in range(5)] == [2, 4, 8, 15, 15]
    assert cool_down_s(retry, 5000, NOW_S) == 15


@given(now_s=st.floats(1.6e9, 1.8e9))
def test_next_second_waits_for_the_next_full_second(now_s):
    """Battle.net counts by the full second: 50 ms after the next one."""
    wait_s = cool_down_s(Retry(strategy="next_second"), 0, now_s)
    assert 0.05 - 1e-6 < wait_s <= 1.05
    assert (now_s + wait_s) % 1.0 == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "strategy", "attempt", "last"),
    [
        (Kind.TRANSIENT, "exponential", 2, False),
        (Kind.TRANSIENT, "exponential", 3, True),
        (Kind.TIMEOUT, "exponential", 2, False),
        (Kind.RATE_LIMITED, "exponential", 2, False),
        (Kind.RATE_LIMITED, "exponential", 3, True),
        (Kind.PERMANENT, "exponential", 1, True),
        (Kind.REFUSED, "exponential", 1, True),
        (Kind.RATE_LIMITED, "next_second", 1, False),
        (Kind.RATE_LIMITED, "next_second", 2, True),
        (Kind.TRANSIENT, "next_second", 2, False),
    ],
)
def test_an_item_is_given_up_after_its_attempts(kind, strategy, attempt, last):
    """Three tries in all; permanent errors get one; "next_second" answers a 429 once."""
    assert is_last(Retry(attempts=3, strategy=strategy), attempt, Verdict(kind)) is last


def test_one_attempt_means_no_retry():
    """``attempts=1`` holds for every strategy."""
    assert is_last(Retry(attempts=1, strategy="next_second"), 1, Verdict(Kind.RATE_LIMITED))
    assert is_last(Retry(attempts=1), 1, Verdict(Kind.TRANSIENT))
