import inspect
import re

import pytest

from ipybatch import errors
from ipybatch.errors import BatchError, InputError, ItemError, JournalError, MissingExtra, RateLimited, Transient

TREE = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, BaseException)}


def test_every_error_is_drawn_where_it_stands():
    """The tree atop the module is the tree of the code: each name once, under its parent."""
    parents, drawn = {}, {}
    for line in errors.__doc__.splitlines():
        found = re.match(r"([|` -]*)([A-Z]\w+)\s", line + " ")
        if found is None or found[2] not in TREE:
            continue
        depth = len(found[1]) // 4
        parents[depth] = found[2]
        drawn[found[2]] = parents.get(depth - 1) if depth else None
    assert set(drawn) == set(TREE)
    for name, parent in drawn.items():
        assert parent == (None if name == "BatchError" else TREE[name].__bases__[0].__name__)


@pytest.mark.parametrize("kind", TREE.values(), ids=TREE)
def test_every_error_is_ours_and_documented(kind):
    """One ``except BatchError`` catches them all, and each says what to do."""
    assert issubclass(kind, BatchError)
    assert kind.__doc__


@pytest.mark.parametrize(("kind", "also"), [(InputError, ValueError), (MissingExtra, ImportError)])
def test_some_are_what_python_would_raise(kind, also):
    """Code that knows nothing of us catches them too."""
    assert issubclass(kind, also)


def test_what_a_service_said_is_an_attribute():
    """Nobody has to read it out of the text."""
    assert Transient("busy", retry_after_s=7).retry_after_s == 7
    assert RateLimited(retry_after_s=7).retry_after_s == 7
    assert (str(Transient()), str(RateLimited())) == ("transient failure", "rate limited")
    assert Transient().retry_after_s is None


def test_a_missing_extra_says_what_to_run():
    """The line can be copied into a cell."""
    error = MissingExtra("gemini")
    assert str(error) == 'Run: pip install "ipybatch[gemini]"'
    assert error.extra == "gemini"


def test_what_work_raises_is_apart_from_what_the_journal_raises():
    """The reader does something else next."""
    assert not issubclass(JournalError, ItemError)
    assert not issubclass(ItemError, JournalError)
