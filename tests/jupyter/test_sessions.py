"""Several sessions in one widget: what it sends, in which order, and what reaches which session."""

import asyncio
import warnings
import weakref

import msgspec
import pytest

from ipybatch import BatchSession, Limits
from ipybatch.engine.feed import session_view
from ipybatch.errors import EngineBusy, InputError
from ipybatch.jupyter import panel as panels
from ipybatch.jupyter import sessions as lists
from ipybatch.jupyter.messages import Bye, Command, Hello, Update
from ipybatch.jupyter.sessions import List, Sessions, Within
from tests.jupyter.turns import Turns, work


class Page:
    """What the browser has of a list: the order, and the latest update of each session by its name."""

    def __init__(self, widget, turns):
        self.widget, self.turns, self.messages, self.updates, self.kinds = widget, turns, 0, {}, []
        widget.send = self.take

    def take(self, content, buffers):
        self.messages += 1
        told = msgspec.json.decode(buffers[0], type=List)
        self.panels = told.panels
        for panel, data in zip(told.told, buffers[1:], strict=True):
            message = msgspec.json.decode(data)
            self.kinds.append((panel, message["kind"]))
            if message["kind"] == "update":
                self.updates[panel] = msgspec.convert(message, Update)

    @property
    def names(self):
        return [self.updates[panel].head.name for panel in self.panels]

    def panel(self, name):
        return next(panel for panel in self.panels if self.updates[panel].head.name == name)

    def say(self, name, message):
        within = Within(panel=self.panel(name), message=message)
        self.widget._hear(self.widget, msgspec.to_builtins(within), None)

    def press(self, name, verb):
        self.say(name, Command(id=f"{self.panel(name)}/1/{verb}", name=verb))


@pytest.fixture
def turns(monkeypatch):
    made = Turns()
    for module in (panels, lists):
        monkeypatch.setattr(module, "publisher", lambda: made)
    monkeypatch.setattr(session_view, "_made", weakref.WeakValueDictionary())  # not those of earlier tests
    return made


@pytest.fixture
def show(turns):
    """Make a list, and a page that shows it."""

    def made(*arguments):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ipywidgets, about the kernel that is not there
            return Page(Sessions(*arguments), turns)

    return made


@pytest.fixture
def three(plan):
    limits = Limits(concurrency=4, batch_size=10)
    return [plan(work, list(range(20)), name=name, limits=limits, breaker=None) for name in ("one", "two", "three")]


def test_what_runs_comes_first_then_what_is_to_come_then_what_ended(three, show, turns, clock):
    """The latest end before the earlier ones."""
    one, two, three_ = three
    clock.run(two)
    clock.run(one)
    page = show(three)

    async def watch():
        turns.turn()
        turns.turn()
        assert page.names == ["three", "one", "two"]
        await asyncio.sleep(0.5)

    clock.run(three_, watch())
    turns.turn()
    turns.turn()
    assert page.names == ["three", "one", "two"]
    page = show([one, plan_of(one, "later"), two])
    turns.turn()
    turns.turn()
    assert page.names == ["later", "one", "two"]


def plan_of(session, name):
    return BatchSession(name, work, [1], journal=session.journal)


def test_one_message_a_round_however_many_sessions(three, show, turns):
    """A view gets five messages a second at most, and this is one view."""
    page = show(three)
    turns.turn()
    turns.turn()
    before = page.messages
    for name in ("one", "two", "three"):
        page.say(name, Hello(view="a page"))
    turns.turn()
    turns.turn()
    assert page.messages - before <= 2
    assert sorted(page.updates) == sorted(page.panels)
    turns.turn()
    turns.turn()
    before = page.messages
    turns.turn()
    assert page.messages == before  # nothing has changed


def test_no_more_than_a_line_is_told_before_somebody_opens_it(three, show, turns, clock):
    """A list of sessions with thousands of groups each is light; what is opened has all, from then on."""
    clock.run(three[0])
    clock.run(three[1])
    page = show(three[:2])
    turns.turn()
    turns.turn()
    assert [len(page.updates[panel].groups) for panel in page.panels] == [0, 0]
    page.press("one", "open")
    turns.turn()
    turns.turn()
    assert (page.panel("one"), "ack") in page.kinds
    assert len(page.updates[page.panel("one")].groups) == 2
    assert page.updates[page.panel("one")].whole
    assert len(page.updates[page.panel("two")].groups) == 0


def test_a_button_reaches_its_own_session(three, show, turns, clock):
    """By the message of the list, and by the road for a kernel that is busy."""
    one, two, _ = three
    page, seen = show([one, two]), []

    async def watch():
        await asyncio.sleep(0.5)
        turns.turn()
        turns.turn()
        page.press("one", "pause")
        await asyncio.sleep(0.1)
        seen.append((one.state, two.state))
        panels.act(f"{page.panel('one')}/2/resume")
        await asyncio.sleep(0.1)
        seen.append(one.state)

    clock.run(one, watch())
    assert seen == [("paused", "planned"), "running"]


def test_it_follows_what_is_made_later_and_the_latest_of_a_name(plan, show, turns):
    """Without sessions it shows those of this process."""
    first = plan(work, [1, 2], name="wishlist")
    page = show()
    turns.turn()
    turns.turn()
    assert "wishlist" in page.names
    panel = page.panel("wishlist")
    again, other = plan(work, [1, 2, 3], name="wishlist"), plan(work, [1], name="other")
    turns.turn()
    turns.turn()
    turns.turn()
    assert page.names.count("wishlist") == 1
    assert "other" in page.names
    assert page.panel("wishlist") != panel
    assert page.updates[page.panel("wishlist")].head.counts.total == 3
    del first, again, other


def test_a_saved_notebook_has_how_each_ended(three, show, turns, clock):
    """In the widget's state, and as static forms."""
    page = show(three[:2])
    clock.run(three[0])
    turns.turn()
    state = msgspec.json.decode(page.widget.get_state("initial")["initial"], type=List)
    firsts = [msgspec.json.decode(state.initial[panel], type=Update) for panel in state.panels]
    assert [(each.head.name, each.head.state) for each in firsts] == [("two", "planned"), ("one", "completed")]
    bundle = page.widget.bundle()
    assert bundle["text/plain"].splitlines()[1] == "one completed: 16/20 successful, 4 failed, 0 skipped"
    assert "16/20 successful, 4 failed, 0 skipped" in bundle["text/html"]
    assert bundle["text/html"].count("<col>") == 1  # it takes what is left, and is not cut


def test_a_page_that_leaves_ends_what_it_is_sent(three, show, turns):
    """As for one panel."""
    page = show(three[:1])
    turns.turn()
    turns.turn()
    page.say("one", Hello(view="a page"))
    page.say("one", Bye(view="a page"))
    turns.turn()
    turns.turn()
    before = len(page.kinds)
    three[0].note("something to tell")
    turns.turn()
    turns.turn()
    assert len(page.kinds) == before


def test_what_is_no_session_is_refused_by_its_place(three):
    """Names are for `BatchSession.open`."""
    with pytest.raises(InputError, match="sessions must be sessions, got str at 1"):
        Sessions([three[0], "wishlist"])


@pytest.mark.parametrize("command", ["", "x", "PANEL", "PANEL/1", "PANEL/1/open/2", "PANEL/1/nonsense"])
def test_a_malformed_command_is_answered_by_a_sentence(three, show, turns, command):
    """By either road; an error in a handler would appear in the user's cell."""
    page = show(three[:1])
    turns.turn()
    turns.turn()
    panel = page.panel("one")
    command = command.replace("PANEL", panel)
    page.say("one", Command(id=command, name="pause"))
    panels.act(f"{panel}/2/{command.partition('/')[2]}")
    turns.turn()
    turns.turn()
    assert (panel, "ack") in page.kinds
    assert len(page.updates[panel].groups) == 0


def test_an_end_that_a_busy_engine_keeps_back_is_stored_later(three, show, turns, clock, monkeypatch):
    """As of one panel."""
    page = show(three[:2])
    clock.run(three[0])
    stored = []

    def store(key):
        firsts = msgspec.json.decode(page.widget.get_state(key)[key], type=List).initial.values()
        stored.append([msgspec.json.decode(first, type=Update).head.state if first else "" for first in firsts])

    def busy(question):
        raise EngineBusy("busy")

    monkeypatch.setattr(page.widget, "send_state", store)
    with monkeypatch.context() as patched:
        patched.setattr(three[0], "ask", busy)
        page.widget.keep_ends()
    page.widget.keep_ends()
    page.widget.keep_ends()
    assert stored == [["", "planned"], ["completed", "planned"]]


def test_of_a_busy_engine_one_question_is_asked_for_all_that_run(three, show, turns, monkeypatch):
    """Each would keep the page that is loaded waiting for a second."""
    page, asked = show(three), []

    def busy(question):
        asked.append(question)
        raise EngineBusy("busy")

    for each in three:
        each.snapshot.state = "running"
        monkeypatch.setattr(each, "ask", busy)
    page.widget.get_state("initial")
    assert len(asked) == 1
