import asyncio
from email.utils import formatdate

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import InputError, JournalFull, JournalLocked, Permanent, RateLimited, Refused, Retry, Transient
from ipybatch.engine.rules.classify import Kind, Verdict, classify, parse_retry_after
from ipybatch.engine.rules.rate_headers import Told

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
    assert classify(raised.value, Retry(), NOW_S) == Verdict(Kind.RATE_LIMITED, Told(7.0), status=503)


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
    assert classify(AnswerError(409, {"Retry-After": "3"}), again, NOW_S) == Verdict(
        Kind.TRANSIENT, Told(3.0), status=409
    )


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
    verdict = classify(error, Retry(), NOW_S)
    assert (verdict.kind, verdict.told) == (Kind.RATE_LIMITED, Told(9.0))
