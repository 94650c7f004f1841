"""Which pages show a view: one that dies without a word is forgotten, one that cannot be heard is not."""

import threading
from types import SimpleNamespace

import pytest

from ipybatch.jupyter.pages import FORGET_S, HELLO_S, MOST, Cells, Pages


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cells(clock):
    return Cells(clock)


@pytest.fixture
def pages(cells):
    return Pages(cells)


def elsewhere(act):
    """Call it in another thread, as a subshell or the control channel does, and return what it returns."""
    said = []
    thread = threading.Thread(target=lambda: said.append(act()))
    thread.start()
    thread.join(10)
    return said[0]


def names(pages):
    """Return the pages that are known to be there."""
    return pages.answer(is_whole=True).pages


def test_a_page_that_is_heard_no_more_is_forgotten(pages, clock):
    """Killed, or asleep: after a minute nothing is sent to it."""
    assert not pages.heard("one")
    clock.now_s += FORGET_S - 20
    assert not pages.heard("two")
    clock.now_s += 21
    assert names(pages) == ["two"]
    clock.now_s += FORGET_S
    assert not pages.is_any


def test_a_page_that_renews_stays(pages, clock):
    for _ in range(20):
        pages.heard("one")
        clock.now_s += 20
    assert names(pages) == ["one"]
    assert pages.heard("one")


def test_a_cell_that_keeps_the_kernel_from_hearing_forgets_nobody(pages, cells, clock):
    """Where a page has one road only, its silence while a cell runs says nothing."""
    pages.heard("one")
    clock.now_s += 30
    cells.begin()
    clock.now_s += 7200
    assert names(pages) == ["one"]
    cells.end()
    clock.now_s += 29
    assert names(pages) == ["one"]
    clock.now_s += 2
    assert not pages.is_any


def test_a_page_that_is_heard_past_cells_is_forgotten_during_one(pages, cells, clock):
    """It said Here by the second road once: it would have said so again."""
    cells.begin()
    pages.heard("one")
    clock.now_s += 20
    assert elsewhere(lambda: pages.heard("one"))
    assert pages.answer() == (["one"], ["one"])
    clock.now_s += FORGET_S - 1
    assert names(pages) == ["one"]
    assert pages.heard("one")
    assert pages.answer().always == ["one"], "by the first road, after the cell"
    clock.now_s += FORGET_S + 1
    assert not pages.is_any


@pytest.mark.parametrize("other_ear", [False, True])
def test_a_page_is_assumed_until_one_is_heard(cells, clock, other_ear):
    """During the cell that displays the view, and 5 s after it; a front end with a second road has a minute."""
    if other_ear:
        elsewhere(lambda: Pages(cells).heard("of another view"))
    cells.begin()
    pages = Pages(cells)
    clock.now_s += FORGET_S - 1
    assert pages.is_any
    assert names(pages) == []
    clock.now_s += 2
    assert pages.is_any is not other_ear
    cells.end()
    clock.now_s += HELLO_S + 1
    assert not pages.is_any


def test_the_first_word_ends_the_assumption(pages):
    pages.left("one")
    assert not pages.is_any


def test_the_number_of_pages_is_bounded(pages, clock):
    """Pages that reload for ever leave nothing behind; those that were heard latest stay."""
    for number in range(MOST + 5):
        clock.now_s += 0.1
        pages.heard(str(number))
        pages.heard("renews")
    known = names(pages)
    assert len(known) == MOST
    assert {"renews", str(MOST + 4)} <= {*known}
    assert "0" not in known


def test_each_is_told_once_that_it_was_heard(pages, clock):
    for page in ("one", "two"):
        pages.heard(page)
    assert pages.is_unanswered
    assert pages.answer() == (["one", "two"], [])
    assert not pages.is_unanswered
    pages.heard("two")
    assert pages.answer().pages == ["two"]
    pages.heard("one")
    pages.left("one")
    assert pages.answer().pages == []
    assert pages.answer(is_whole=True).pages == ["two"]


def test_a_class_of_viewers_is_known(pages, clock):
    """A page that is dropped and renews is unknown: all pages would be told everything, at each Here of each."""
    everybody = [str(number) for number in range(100)]
    for page in everybody:
        pages.heard(page)
    clock.now_s += 20
    assert all(pages.heard(page) for page in everybody)


def test_a_shell_is_followed_once(cells, clock):
    """The cell that makes the first view has begun before anybody could be told."""
    told = {}

    def register(name, act):
        assert name not in told
        told[name] = act

    shell = SimpleNamespace(events=SimpleNamespace(register=register))
    cells.follow(shell)
    cells.follow(shell)
    clock.now_s += 10
    before_s = cells.heard_s(clock.now_s)
    told["post_run_cell"](None)
    clock.now_s += 5
    assert cells.heard_s(clock.now_s) == before_s + 5
    told["pre_run_cell"](None)
    clock.now_s += 5
    assert cells.heard_s(clock.now_s) == before_s + 5
    elsewhere(cells.end)
    clock.now_s += 5
    assert cells.heard_s(clock.now_s) == before_s + 5, "a cell of a subshell keeps nobody from hearing"
