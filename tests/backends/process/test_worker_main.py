"""Worker main: an error of the work is an answer that means in the session what it meant in its process."""

import asyncio
import sys
import threading

import cloudpickle
import httpx
import pytest

from ipybatch import Permanent, RateLimited, Refused, Retry, Transient
from ipybatch.backends import Killed, OutOfMemory, Overrun
from ipybatch.engine.rules.classify import Judged, classify, culprit
from ipybatch.errors import MissingExtra, Withheld
from tests.backends.process.attempts import attempt

pytestmark = pytest.mark.usefixtures("patience")
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # as a notebook's; no attempt need import all this
needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="the supervisor is Linux's")
methods = pytest.mark.parametrize("method", [pytest.param("fork", marks=needs_fork), "spawn"])


@methods
def test_an_error_comes_with_where_it_was_raised(method):
    (error,) = attempt(lambda item: {}[item], "missing", method=method)
    assert isinstance(error, KeyError)
    assert "test_worker_main.py" in error.__notes__[-1]


class Unlike(Exception):
    """An error that pickle cannot make again, as many cannot: its class wants more than the text it keeps."""

    def __init__(self, code, text):
        super().__init__(f"{code} {text}")


class Full(RateLimited):
    kind = "shop_full"
    advice = "come back tomorrow"

    def __init__(self, shop, wait_s):
        super().__init__(f"{shop} is full", retry_after_s=wait_s)


def status_error(status):
    """Return an error of httpx, none of which pickle can make again."""
    request = httpx.Request("GET", "https://shop.invalid")
    response = httpx.Response(status, headers={"Retry-After": "7"}, request=request)
    return httpx.HTTPStatusError(f"status {status}", request=request, response=response)


def make_errors():
    """Return one error of each kind, made where they are raised: as values they could not go there."""
    return [
        Transient("busy", retry_after_s=3, counts=False),
        RateLimited("slow down", retry_after_s=7),
        Permanent("no such item"),
        Refused("wrong key"),
        Withheld("out of budget"),
        Overrun("Exceeded 3s"),
        OutOfMemory(),
        Killed("Killed by SIGKILL"),
        MissingExtra("dask"),
        Unlike(418, "teapot"),
        Full("the shop", 9),
        *map(status_error, (429, 503, 401, 404)),
    ]


def meaning(error):
    return (
        type(error),
        str(error),
        getattr(error, "kind", ""),
        getattr(error, "advice", ""),
        classify(error, Retry(), 0),
    )


def raise_nth(number):
    raise make_errors()[number]


@methods
def test_an_error_arrives_as_what_it_was(method):
    """The engine decides by class and attributes: it does the same as if the work had raised in this process."""
    errors = make_errors()
    numbers = range(len(errors)) if method == "fork" else (1, 9, 10, 14)  # the way back is the same
    arrived = attempt(raise_nth, *numbers, method=method)
    assert list(map(meaning, arrived)) == [meaning(errors[number]) for number in numbers]
    assert "test_worker_main.py" in arrived[-1].__notes__[-1]


class Sealed(Exception):
    """One whose text needs what cannot leave its process."""

    def __init__(self, text, **attributes):
        super().__init__(text)
        self.lock = threading.Lock()
        self.__dict__.update(attributes)

    def __str__(self):
        return f"{self.args[0]}, {'locked' if self.lock.locked() else 'open'}"


class SealedFull(Sealed, RateLimited):
    kind = "shop_full"
    advice = "come back tomorrow"


class SealedBar(Sealed, Refused):
    pass


class SealedPurse(Sealed, Withheld):
    pass


class SealedClock(Sealed, TimeoutError):
    pass


SEALED = [
    (SealedFull, {"retry_after_s": 9}, RateLimited),
    (SealedBar, {}, Refused),
    (SealedPurse, {}, Withheld),
    (SealedClock, {}, TimeoutError),
    (Sealed, {"status": 503}, Transient),
    (Sealed, {"status": 503, "headers": {"Retry-After": "7"}}, RateLimited),
    (Sealed, {"status": 403}, Refused),
    (Sealed, {"status": 407}, Judged),
    (Sealed, {"status": 429, "headers": {"RateLimit": '"an hour";r=0;t=7'}}, Judged),
    (Sealed, {"status": 429, "headers": {"Retry-After": "7"}}, RateLimited),
    (Sealed, {}, Permanent),
]


def test_an_error_that_cannot_travel_arrives_as_one_of_ours_that_means_the_same():
    def work(item):
        kind, attributes = item
        raise kind("the shop", **attributes)

    arrived = attempt(work, *[(kind, attributes) for kind, attributes, _ in SEALED])
    for error, (kind, attributes, arrives_as) in zip(arrived, SEALED, strict=True):
        assert (type(error), str(error)) == (arrives_as, f"{kind.__name__}: the shop, open"), (kind, attributes)
        assert "test_worker_main.py" in error.__notes__[-1]
        original = kind("the shop", **attributes)
        assert classify(error, Retry(), 0) == classify(original, Retry(), 0), (kind, attributes)
        for name in ("kind", "advice"):
            assert getattr(original, name, None) in (None, getattr(error, name, None))


class NoPrice(Exception):
    """A user's own: its cause says what it means."""


def from_a_dead_line():
    raise NoPrice("440") from httpx.ReadTimeout("too slow")


def from_a_refusal():
    raise NoPrice("440") from httpx.HTTPStatusError("", request=None, response=httpx.Response(403))


def from_a_pool():
    raise NoPrice("440") from httpx.PoolTimeout("")


def without_a_scheme():
    raise NoPrice("440") from httpx.UnsupportedProtocol("")


def read_from_a_page():
    httpx.Response(200, content=b"what").json()


def with_the_answer_in_hand():
    response = httpx.Response(429, headers={"Retry-After": "7"})
    raise NoPrice(response.status_code)


def in_a_group():
    try:
        from_a_dead_line()
    except NoPrice as error:
        raise ExceptionGroup("unhandled errors", [KeyError("name"), error]) from None


FAILS = {
    from_a_dead_line: "service",
    from_a_refusal: "account",
    from_a_pool: "us",
    without_a_scheme: "us",
    read_from_a_page: "service",
    with_the_answer_in_hand: "rate",
    in_a_group: "service",
}


def test_what_causes_and_frames_tell_is_not_lost_on_the_way():
    """They stay in the process: what they mean comes along."""
    for error, (fails, scope) in zip(attempt(lambda fails: fails(), *FAILS), FAILS.items(), strict=True):
        with pytest.raises(Exception) as here:  # noqa: PT011  # of any kind
            fails()
        assert str(culprit(here.value)) in str(culprit(error))
        assert classify(error, Retry(), 0).scope == scope
        for has_succeeded in (False, True):
            verdict = classify(here.value, Retry(), 0, has_succeeded=has_succeeded)
            assert classify(error, Retry(), 0, has_succeeded=has_succeeded) == verdict


def test_what_would_end_the_kernel_is_an_error_of_the_item():
    def work(raised):
        raise raised

    ends = [SystemExit(2), KeyboardInterrupt(), StopIteration(4), asyncio.CancelledError()]
    for error, raised in zip(attempt(work, *ends), ends, strict=True):
        assert isinstance(error, RuntimeError)
        assert type(raised).__name__ in str(error)


@pytest.mark.parametrize(
    ("work", "item", "reason"),
    [
        (lambda item: item, (one for one in "ab"), "the work cannot be sent to a process of its own"),
        (lambda item: (one for one in "ab"), 1, "the result cannot be sent back"),
    ],
)
def test_what_cannot_be_sent_is_told(work, item, reason):
    (error,) = attempt(work, item)
    assert isinstance(error, Permanent)
    assert reason in str(error)
    assert "generator" in str(error)


def quote_bad_alloc(item):
    raise ValueError("the log says std::bad_alloc in line 3")


def raise_bad_alloc(item):
    """As the C interfaces of LightGBM and XGBoost hand C++'s error on, with the memory that was taken before."""
    taken = bytearray(item * 2**20)
    raise RuntimeError("std::bad_alloc" if taken else "")


def raise_as_lightgbm(item):
    raise type("LightGBMError", (Exception,), {"__module__": "lightgbm.basic"})("std::bad_alloc")


class Asked(MemoryError):
    """As numpy's and Arrow's are."""


def raise_a_kind_of_memory_error(item):
    raise Asked(item)


def test_a_shortage_of_memory_is_told_by_evidence_and_not_by_text():
    """By the type, or by what the process has taken of what it may."""
    (error,) = attempt(quote_bad_alloc, 1)
    assert isinstance(error, ValueError)
    (little,) = attempt(raise_bad_alloc, 20, memory_mb=600)
    assert (type(little), str(little)) == (RuntimeError, "std::bad_alloc")
    (unlimited,) = attempt(raise_bad_alloc, 20)
    assert isinstance(unlimited, RuntimeError)


@needs_fork
def test_a_shortage_of_memory_of_native_code_is_told_as_such():
    works = [lambda: raise_bad_alloc(400), lambda: raise_as_lightgbm(1), lambda: raise_a_kind_of_memory_error(1)]
    told = attempt(lambda number: works[number](), *range(len(works)), memory_mb=600)
    assert [type(error) for error in told] == [OutOfMemory] * len(works)
    assert ["std::bad_alloc" in error.__notes__[0] for error in told] == [True, True, False]
