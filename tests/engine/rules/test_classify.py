"""Classify: what every kind of error means, a row each."""

import asyncio
import pickle
import ssl
import urllib.error

import httpx
import pytest
import requests

from ipybatch import InputError, JournalFull, JournalLocked, Permanent, RateLimited, Refused, Retry, Transient
from ipybatch.engine.rules.classify import Judged, Kind, Verdict, classify, culprit
from ipybatch.engine.rules.rate_headers import Quota, Told
from ipybatch.errors import Withheld

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
    "error",
    [RateLimited(retry_after_s=9), AnswerError(429, {"Retry-After": "9"}), StatusError(429, {"Retry-After": "9"})],
)
def test_the_services_own_word_is_carried(error):
    """From our own errors as from a header."""
    verdict = classify(error, Retry(), NOW_S)
    assert (verdict.kind, verdict.told) == (Kind.RATE_LIMITED, Told(9.0))


def answered(make, status, **headers):
    return make(status, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize("make", [AnswerError, StatusError])
@pytest.mark.parametrize(
    ("status", "headers", "scope"),
    [
        (401, {}, "account"),
        (402, {}, "account"),
        (403, {}, "account"),
        (403, {"Retry_After": "7"}, "rate"),
        (403, {"X_RateLimit_Remaining": "0"}, "rate"),
        (403, {"X_RateLimit_Remaining": "5"}, "account"),
        (404, {"X_RateLimit_Remaining": "0"}, "item"),
        (407, {}, "us"),
        (408, {}, "service"),
        (420, {}, "rate"),
        (425, {}, "service"),
        (429, {}, "rate"),
        (500, {"X_RateLimit_Remaining": "0"}, "service"),
        (502, {"Retry_After": "7"}, "service"),
        (503, {"Retry_After": "7"}, "rate"),
        (503, {"RateLimit": '"a";r=0'}, "rate"),
        (503, {}, "service"),
        (599, {}, "service"),
        (301, {"Location": "/there"}, "item"),
        (451, {}, "item"),
        (200, {}, "item"),
        (True, {}, "item"),
        ("503", {}, "item"),
        (1006, {}, "item"),
    ],
)
def test_status_and_headers_say_whose_fault_it_is(make, status, headers, scope):
    """The last 404 of a window is still a 404: only refusals and 503 may mean 429."""
    verdict = classify(answered(make, status, **headers), Retry(), NOW_S)
    assert verdict.scope == scope
    assert bool(verdict.advice) is (scope == "us" or "Location" in headers)


def test_what_is_used_up_says_when_to_come_back():
    """A 429 without Retry-After waits for the reset of what has nothing left."""
    error = answered(AnswerError, 429, X_RateLimit_Remaining="0", X_RateLimit_Reset="9")
    assert classify(error, Retry(), NOW_S).told == Told(9.0, (Quota(None, 0.0, 9.0),))
    error = answered(AnswerError, 429, X_RateLimit_Remaining="3", X_RateLimit_Reset="9")
    assert classify(error, Retry(), NOW_S).retry_after_s is None


def test_a_redirect_says_where_it_leads():
    assert "/there" in classify(answered(AnswerError, 301, Location="/there"), Retry(), NOW_S).advice


@pytest.mark.parametrize(
    ("error", "scope"),
    [
        (AnswerError(403), "item"),
        (AnswerError(401), "account"),
        (AnswerError(407), "us"),
        (Refused("this key is banned"), "account"),
        (answered(AnswerError, 403, Retry_After="7"), "rate"),
        (requests.exceptions.MissingSchema("shop.example"), "item"),
        (ssl.SSLCertVerificationError(1, "self-signed"), "item"),
        (RuntimeError("Session is closed"), "us"),
        (httpx.PoolTimeout(""), "us"),
    ],
)
def test_what_refuses_one_item_is_that_items_where_others_succeed(error, scope):
    """One character answers 403, one of many addresses lacks its https://: the session goes on."""
    verdict = classify(error, Retry(), NOW_S, has_succeeded=True)
    assert verdict.scope == scope
    assert (verdict.kind is Kind.PERMANENT) is (scope == "item")


def group(*errors):
    return BaseExceptionGroup("unhandled errors in a TaskGroup", errors)


OWN = Permanent("no such game")


@pytest.mark.parametrize(
    ("members", "decides"),
    [
        ([AnswerError(429)], 0),
        ([ValueError(), AnswerError(429)], 1),
        ([AnswerError(429), asyncio.CancelledError(), asyncio.CancelledError()], 0),
        ([AnswerError(503), AnswerError(429), AnswerError(404)], 1),
        ([AnswerError(429), Refused("banned")], 1),
        ([AnswerError(429), AnswerError(401)], 1),
        ([Withheld("no budget"), AnswerError(401)], 1),
        ([AnswerError(429), Withheld("no budget")], 1),
        ([AnswerError(429), httpx.UnsupportedProtocol("")], 1),
        ([AnswerError(429), OWN], 1),
        ([httpx.PoolTimeout(""), ConnectionResetError()], 1),
        ([AnswerError(404), httpx.PoolTimeout("")], 1),
        ([KeyError(), AnswerError(503)], 1),
        ([asyncio.CancelledError(), KeyError("name")], 1),
        ([KeyError("a"), KeyError("b")], 0),
    ],
)
def test_the_gravest_member_of_a_group_decides(members, decides):
    """And is what is told, however deep it lies."""
    for error in (group(*members), group(group(*members))):
        assert classify(error, Retry(), NOW_S) == classify(members[decides], Retry(), NOW_S)
        assert culprit(error) is members[decides]


def test_an_error_of_its_own_is_its_own_culprit():
    error = ValueError()
    assert culprit(error) is error


def raised_from(error, cause):
    try:
        raise error from cause
    except Exception as found:
        return found


def raised_while_handling(error, handled, *, parts=False):
    try:
        try:
            raise handled
        except Exception:
            if parts:
                raise error from None
            raise error  # noqa: B904  # as many do
    except Exception as found:
        return found


class NoPrice(Exception):
    """A user's own, which says nothing."""


CAUSES = [
    (httpx.ConnectError(""), "service"),
    (requests.exceptions.ConnectionError(), "service"),
    (AnswerError(429, {"Retry-After": "7"}), "rate"),
    (AnswerError(401), "account"),
    (AnswerError(404), "item"),
    (httpx.UnsupportedProtocol(""), "us"),
    (Transient(), "service"),
    (RateLimited(), "rate"),
    (Refused(), "account"),
    (group(ValueError(), AnswerError(503)), "service"),
    (KeyError("name"), "item"),
]


@pytest.mark.parametrize(("cause", "scope"), CAUSES)
def test_what_says_nothing_is_what_caused_it(cause, scope):
    """``raise NoPrice() from error``, and without "from"; ``from None`` parts the two."""
    for error in (NoPrice("440"), ValueError("440"), RuntimeError("440")):
        assert classify(raised_from(error, cause), Retry(), NOW_S).scope == scope
    assert classify(raised_from(NoPrice(), raised_from(NoPrice(), cause)), Retry(), NOW_S).scope == scope
    assert classify(raised_while_handling(NoPrice(), cause), Retry(), NOW_S).scope == scope
    assert classify(raised_while_handling(NoPrice(), cause, parts=True), Retry(), NOW_S).scope == "item"


@pytest.mark.parametrize("slip", [NameError(), AttributeError(), TypeError(), ImportError()])
def test_a_slip_of_the_pen_in_a_handler_is_no_outage(slip):
    """It will be there at the next attempt too."""
    assert classify(raised_while_handling(slip, httpx.ConnectError("")), Retry(), NOW_S).scope == "item"


@pytest.mark.parametrize(
    ("error", "scope"),
    [
        (Permanent("gone"), "item"),
        (Transient("later"), "service"),
        (RateLimited(), "rate"),
        (Refused(), "account"),
        (Withheld(), "account"),
        (AnswerError(404), "item"),
        (httpx.ReadTimeout(""), "service"),
    ],
)
@pytest.mark.parametrize("cause", [AnswerError(401), AnswerError(503), Refused(), httpx.UnsupportedProtocol("")])
def test_what_says_something_is_not_asked_for_its_cause(error, scope, cause):
    """The work's own word counts most, and an answer more than the one before it."""
    assert classify(raised_from(error, cause), Retry(), NOW_S).scope == ("us" if error_of_us(error, cause) else scope)


def error_of_us(error, cause):
    """A line that failed may hide what is ours."""
    return isinstance(error, httpx.ReadTimeout) and isinstance(cause, httpx.UnsupportedProtocol)


def test_causes_that_go_in_a_circle_come_to_an_end():
    first, second = NoPrice("a"), NoPrice("b")
    first.__cause__, second.__cause__ = second, first
    assert classify(first, Retry(), NOW_S).scope == "item"


def test_a_chain_without_end_comes_to_an_end():
    error = httpx.ConnectError("")
    for number in range(2000):
        error = raised_from(NoPrice(str(number)), error)
    assert classify(error, Retry(), NOW_S).scope == "item"


@pytest.mark.parametrize("is_own", [True, False])
def test_a_verdict_says_whether_the_work_said_it_itself(is_own):
    """A status behind it makes it the service's word."""
    error = Permanent("no such game")
    if not is_own:
        error.status = 410
    verdict = classify(error, Retry(), NOW_S)
    assert (verdict.is_own, verdict.status) == (is_own, None if is_own else 410)
    assert not classify(ValueError(), Retry(), NOW_S).is_own


@pytest.mark.parametrize(
    ("on", "error", "scope"),
    [
        (KeyError, KeyError(), "service"),
        (KeyError, group(KeyError(), ValueError()), "service"),
        (ExceptionGroup, ExceptionGroup("", [KeyError()]), "service"),
        (Exception, AnswerError(404), "service"),
        (Exception, AnswerError(401), "service"),
        (Exception, AnswerError(429), "rate"),
        (Exception, httpx.PoolTimeout(""), "us"),
        (Exception, httpx.UnsupportedProtocol(""), "us"),
        (Exception, Permanent("gone"), "item"),
        (Exception, Refused(), "account"),
        (ValueError, KeyError(), "item"),
    ],
)
def test_the_policy_turns_only_what_it_names_and_what_can_be_turned(on, error, scope):
    """The item's and the account's are tried again; a 429, our set-up and the work's own word stay what they are."""
    assert classify(error, Retry(on=on), NOW_S).scope == scope


@pytest.mark.parametrize("verdict", [Verdict(Kind.SETUP, advice="give it"), Verdict(Kind.TRANSIENT, whose="us")])
def test_what_was_judged_elsewhere_stays_judged(verdict):
    """Also after it has travelled."""
    error = pickle.loads(pickle.dumps(Judged("it failed", verdict)))
    assert classify(error, Retry(), NOW_S) == verdict
    assert (str(error), error.kind, error.advice) == ("it failed", verdict.kind.value, verdict.advice)


def odd(kind=Exception, **attributes):
    error = kind("odd")
    error.__dict__.update(attributes)
    return error


class OddSystemError(OSError):
    errno = ([],)


@pytest.mark.parametrize(
    "error",
    [
        odd(response=object()),
        odd(response={}),
        odd(response={"ResponseMetadata": 7}),
        odd(response=odd(status_code=[]), headers=7),
        odd(status=503.0, headers=[]),
        odd(status=True),
        odd(reason=7, os_error="x", certificate_error=odd),
        odd(code=404),
        OddSystemError(),
        ExceptionGroup("", [odd(response=object())]),
    ],
)
def test_odd_attributes_say_nothing(error):
    """Whatever a class keeps under the names that are looked at."""
    assert classify(error, Retry(), NOW_S) == Verdict(Kind.PERMANENT)


def test_an_error_that_wraps_itself_comes_to_an_end():
    error = urllib.error.URLError("")
    error.reason = error
    assert classify(error, Retry(), NOW_S).scope == "item"
