import functools
import os
import subprocess
import sys

import pytest

from ipybatch import InputError
from ipybatch.engine.data.spec import inspect_work


async def fetch(item):
    return item


async def fetch_more(item, attempt):
    async with attempt.permit():
        return item


def double(item):
    return item * 2


class Client:
    async def __call__(self, item):
        return item

    async def fetch(self, item):
        return item

    def read(self, item, attempt=None):
        return item


@pytest.mark.parametrize(
    ("work", "is_coroutine", "takes_attempt"),
    [
        (fetch, True, False),
        (fetch_more, True, True),
        (double, False, False),
        (lambda item: item, False, False),
        (Client(), True, False),
        (Client().fetch, True, False),
        (Client().read, False, True),
        (functools.partial(fetch), True, False),
        (functools.partial(functools.partial(Client().fetch)), True, False),
        (functools.partial(lambda country, item: item, "de"), False, False),
        (len, False, False),
        (int, False, False),
        (str.upper, False, False),
        (print, False, False),
        (lambda *items: items, False, False),
    ],
)
def test_a_work_function_is_known_by_looking_at_it(work, is_coroutine, takes_attempt):
    """Coroutines run on the loop, plain functions in threads; one that names ``attempt`` is handed it."""
    found = inspect_work(work)
    assert (found.is_coroutine, found.takes_attempt) == (is_coroutine, takes_attempt)
    assert found.call is work


@pytest.mark.parametrize("work", [None, 5, "fetch", [fetch]])
def test_what_cannot_be_called_is_refused(work):
    """Before anything starts, saying what it must be."""
    with pytest.raises(InputError, match="work must be a function of one item"):
        inspect_work(work)


@pytest.mark.parametrize(
    "work", [lambda: None, lambda item, more: None, lambda *, item: None, Client().fetch.__func__, lambda item, *, x: 1]
)
def test_what_cannot_take_one_item_is_refused(work):
    """A forgotten or a further parameter is found before the first call, not by every item."""
    with pytest.raises(InputError, match="work must take one item"):
        inspect_work(work)


def compiled(source):
    names = {}
    exec(source, names)
    return inspect_work(names["work"]).code_hash


def test_a_code_hash_tells_changed_code():
    """What it does counts, not where it stands."""
    one = compiled("def work(item): return item + 1")
    assert one == compiled("\n\n\ndef work(item): return item + 1")
    others = [
        "def work(item): return item + 2",
        "def work(item): return item - 1",
        "def work(item): return item.a",
        "def work(item): return item.b",
        "def work(item): return (lambda: item + 1)()",
        "def work(item): return (lambda: item + 2)()",
    ]
    assert len({one, *map(compiled, others)}) == len(others) + 1


def test_code_that_cannot_be_seen_has_no_hash():
    """Builtins say nothing, and are not called changed."""
    assert inspect_work(len).code_hash is None


def test_a_decorated_function_is_known_by_what_it_wraps():
    """A decorator that keeps the signature hides nothing."""

    def decorated(function):
        @functools.wraps(function)
        def call(item):
            return function(item)

        return call

    assert inspect_work(decorated(double)).code_hash == inspect_work(double).code_hash


def test_a_code_hash_is_the_same_in_every_process():
    """A set in the code has another order in each process; that is no change."""
    script = (
        "from ipybatch.engine.data.spec import inspect_work\n"
        "def work(item): return item in {'steam', 'epic', 'gog', 'origin', 'uplay', (1, 2), None}\n"
        "print(inspect_work(work).code_hash.hex())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(hashes) == 1
