"""Rate headers: whatever a service tells of its limits, in every form in use."""

import math
from email.utils import formatdate
from http.client import HTTPMessage

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from requests.structures import CaseInsensitiveDict

from ipybatch.engine.rules.rate_headers import NOTHING_TOLD, Quota, Told, parse_date, read_headers

NOW_S = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "12"}, 12.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"RETRY-AFTER": 3}, 3.0),
        ({"Retry-After": ["5", "9"]}, 9.0),
        ({"Retry-After": "5, 9"}, 9.0),
        ({b"Retry-After": b"5"}, 5.0),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "31536000"}, 31536000.0),
        ({"Retry-After": "1700000030"}, 30.0),  # the Unix time itself
        ({"Retry-After": "1699999990"}, 0.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:14:50 GMT"}, 90.0),
        ({"Retry-After": "Tuesday, 14-Nov-23 22:14:50 GMT"}, 90.0),
        ({"Retry-After": "Tue Nov 14 22:14:50 2023"}, 90.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:14:50 -0000"}, 90.0),
        ({"Retry-After": "Wed, 15 Nov 2023 05:14:50 +0700"}, 90.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:12:00 GMT"}, 0.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"Retry-After": "2", "retry-after-ms": "1500"}, 1.5),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "1e999"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": None}, None),
        ({}, None),
        (None, None),
        ("not a mapping", None),
        ([("Retry-After", "5")], None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers, wait_s):
    """Seconds, milliseconds or a date of any form; the past means now, and what cannot be read says nothing."""
    assert read_headers(headers, NOW_S).retry_after_s == wait_s


@pytest.mark.parametrize("zone", ["Asia/Jakarta", "America/New_York", "UTC"])
@pytest.mark.parametrize("text", ["Tue Nov 14 22:14:50 2023", "Tue, 14 Nov 2023 22:14:50 -0000"])
def test_a_date_without_a_zone_is_utc_wherever_we_are(monkeypatch, zone, text):
    """In Jakarta it would be seven hours ago, in New York five hours ahead."""
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert parse_date(text) == NOW_S + 90
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("wrong_s", [-86_400.0, -3.0, 0.0, 7.0, 1e6])
def test_dates_are_measured_against_the_answers_own(wrong_s):
    """Our clock may be wrong by any span: the service's tells how long it means."""
    said = {"Date": formatdate(NOW_S, usegmt=True), "Retry-After": formatdate(NOW_S + 30, usegmt=True)}
    said |= {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW_S + 60))}
    assert read_headers(said, NOW_S + wrong_s) == Told(30.0, (Quota(remaining=0.0, reset_s=60.0),))


def test_a_date_that_cannot_be_read_leaves_our_own_clock():
    said = {"Date": "yesterday", "Retry-After": formatdate(NOW_S + 30, usegmt=True)}
    assert read_headers(said, NOW_S).retry_after_s == 30.0


@pytest.mark.parametrize(
    ("headers", "quotas"),
    [
        (
            {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "59", "X-RateLimit-Reset": "30"},
            [Quota(60.0, 59.0, 30.0)],
        ),
        ({"X-Rate-Limit-Limit": "60", "X-Rate-Limit-Remaining": "0"}, [Quota(60.0, 0.0)]),
        ({"X-RateLimit-Reset": "1700000060"}, [Quota(reset_s=60.0)]),
        ({"X-RateLimit-Reset": "1700000060.5"}, [Quota(reset_s=60.5)]),
        ({"X-RateLimit-Reset": "1700000060000"}, [Quota(reset_s=60.0)]),
        ({"X-RateLimit-Reset": "1600000000"}, [Quota(reset_s=0.0)]),
        ({"X-RateLimit-Reset": "2023-11-14T22:14:20Z"}, [Quota(reset_s=60.0)]),
        ({"X-RateLimit-Reset": "2023-11-14T22:14:20"}, [Quota(reset_s=60.0)]),
        ({"X-RateLimit-Reset": "Tue, 14 Nov 2023 22:14:20 GMT"}, [Quota(reset_s=60.0)]),
        ({"X-RateLimit-Reset-After": "2.5", "X-RateLimit-Reset": "1700000009"}, [Quota(reset_s=2.5)]),
        ({"X-RateLimit-Reset": "soon", "X-RateLimit-Limit": "many"}, []),
        (
            {"X-RateLimit-Limit-Minute": "20", "X-RateLimit-Remaining-Minute": "3", "X-RateLimit-Limit-Day": "900"},
            [Quota(20.0, 3.0, None, 60.0), Quota(900.0, None, None, 86_400.0)],
        ),
        (
            {"RateLimit-Limit": "100, 100;w=60", "RateLimit-Remaining": "0", "RateLimit-Reset": "7"},
            [Quota(100.0, 0.0, 7.0, 60.0)],
        ),
        (
            {"RateLimit-Limit": "10, 10;w=1, 50;w=60", "RateLimit-Remaining": "9"},
            [Quota(50.0, None, None, 60.0), Quota(10.0, 9.0, None, 1.0)],
        ),
        ({"RateLimit-Limit": "10", "RateLimit-Policy": "10;w=1"}, [Quota(10.0, None, None, 1.0)]),
        (
            {"RateLimit": "limit=100, remaining=50, reset=30", "RateLimit-Policy": "100;w=60"},
            [Quota(100.0, 50.0, 30.0, 60.0)],
        ),
        (
            {"RateLimit": '"default";r=50;t=30', "RateLimit-Policy": '"default";q=100;w=60'},
            [Quota(100.0, 50.0, 30.0, 60.0)],
        ),
        (
            {"RateLimit": '"a";r=0;t=5, "b, c";r=7', "RateLimit-Policy": '"a";q=10;w=5,"b, c";q=70;w=60'},
            [Quota(10.0, 0.0, 5.0, 5.0), Quota(70.0, 7.0, None, 60.0)],
        ),
        ({"RateLimit": '"bytes";r=0;t=5', "RateLimit-Policy": '"bytes";q=10;w=5;qu="content-bytes"'}, []),
        ({"RateLimit-Policy": '"default";q=100;w=60'}, [Quota(100.0, None, None, 60.0)]),
        (
            {"App-Rate-Limit": "20:1,100:120", "App-Rate-Limit-Count": "1:1,100:120"},
            [Quota(20.0, 19.0, None, 1.0), Quota(100.0, 0.0, None, 120.0)],
        ),
        ({"X-Method-Rate-Limit": "2000:60"}, [Quota(2000.0, None, None, 60.0)]),
        ({"App-Rate-Limit": "20, :1, 20:0, x:y"}, []),
        ({"X-RateLimit-Limit": "nan", "X-RateLimit-Remaining": "inf"}, []),
    ],
)
def test_windows_are_read_as_the_server_counts_them(headers, quotas):
    assert list(read_headers(headers, NOW_S).quotas) == quotas


@pytest.mark.parametrize(
    "make",
    [
        httpx.Headers,
        CaseInsensitiveDict,
        lambda pairs: CIMultiDictProxy(CIMultiDict(pairs)),
        lambda pairs: {name.upper(): value for name, value in pairs.items()},
    ],
)
def test_the_headers_of_every_client_are_read(make):
    said = {"Retry-After": "7", "X-RateLimit-Remaining": "0"}
    assert read_headers(make(said), NOW_S) == Told(7.0, (Quota(remaining=0.0),))


def test_the_headers_of_http_client_are_read():
    message = HTTPMessage()
    message["Retry-After"], message["x-ratelimit-remaining"] = "7", "0"
    assert read_headers(message, NOW_S) == Told(7.0, (Quota(remaining=0.0),))


@pytest.mark.parametrize(
    ("quotas", "is_used_up", "reset_s"),
    [
        ([], False, None),
        ([Quota(remaining=3.0, reset_s=9.0)], False, None),
        ([Quota(remaining=0.0, reset_s=9.0), Quota(remaining=0.0, reset_s=60.0)], True, 60.0),
        (
            [Quota(remaining=0.0, reset_s=9.0), Quota(remaining=1.0, reset_s=99.0)],
            True,
            9.0,
        ),
        ([Quota(remaining=0.0)], True, None),
        ([Quota(reset_s=9.0)], False, 9.0),
    ],
)
def test_what_is_used_up_begins_anew_when_all_of_it_does(quotas, is_used_up, reset_s):
    told = Told(None, tuple(quotas))
    assert (told.is_used_up, told.reset_s) == (is_used_up, reset_s)


COUNTED = [
    f"{prefix}{what}{suffix}"
    for prefix in ("X-RateLimit-", "RateLimit-")
    for what in ("Limit", "Remaining", "Reset", "Reset-After", "Policy")
    for suffix in ("", "-Minute")
]
OTHERS = ["Retry-After", "retry-after-ms", "RateLimit", "App-Rate-Limit", "App-Rate-Limit-Count", "Date"]
SYNTAX = ["100", ";w=60", ",", '"', "=", ";r=0", ";t=5", ":", "-1", "nan", "inf", "1e400", "9" * 400]
DATES = ["Tue, 14 Nov 99999 22:13:20 GMT", "Tue Nov 14 22:13:20 0", "2023-11-14", "\x00", "é"]
WORDS = st.lists(st.sampled_from(SYNTAX + DATES)).map("".join)
VALUES = st.one_of(st.text(), st.binary(), st.integers(), st.floats(), st.none(), st.lists(st.text()), WORDS)


@given(headers=st.dictionaries(st.sampled_from(COUNTED + OTHERS), VALUES), now_s=st.floats(0, 1e11))
def test_no_header_of_a_service_can_break_the_engine(headers, now_s):
    """Whatever stands in them: numbers that are finite and not negative, or none."""
    told = read_headers(headers, now_s)
    numbers = [told.retry_after_s, told.reset_s]
    for quota in told.quotas:
        numbers += [quota.limit, quota.remaining, quota.reset_s, quota.per_s]
    assert all(number is None or (math.isfinite(number) and number >= 0.0) for number in numbers)


def test_headers_that_raise_say_nothing():
    class Broken:
        def items(self):
            raise RuntimeError

    class Odd:
        def items(self):
            return [("Retry-After",), 7, (None, "7"), ("Retry-After", "7")]

    assert read_headers(Broken(), NOW_S) is NOTHING_TOLD
    assert read_headers(Odd(), NOW_S) == Told(7.0)
