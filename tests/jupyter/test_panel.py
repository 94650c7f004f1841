"""The panel: when it sends, what, and that a command is acted on once."""

import asyncio
import sys
import threading
import time
import warnings
from types import SimpleNamespace

import msgspec
import pytest

from ipybatch import Limits
from ipybatch.engine.data import events
from ipybatch.engine.run import engine_thread
from ipybatch.errors import EngineBusy
from ipybatch.jupyter import pages
from ipybatch.jupyter import panel as panels
from ipybatch.jupyter.messages import Bye, Command, Hello, Here, Resync
from tests.jupyter.folding import Page
from tests.jupyter.turns import Turns, work


class Ears(pages.Cells):
    """The kernel's ears, by a clock that the tests move."""

    def __init__(self):
        self.at_s = 1000.0
        super().__init__(lambda: self.at_s)

    def pass_(self, seconds):
        self.at_s += seconds


@pytest.fixture
def ears(monkeypatch):
    made = Ears()
    monkeypatch.setattr(panels, "cells", made)
    return made


@pytest.fixture
def make(monkeypatch):
    """Make a view of a session, and the list of what it sends."""
    monkeypatch.setattr(panels, "publisher", Turns)

    def made(session, kind=panels.Panel):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ipywidgets, about the kernel that is not there
            view, sent = kind(session), []
        view.send = lambda content, buffers: sent.append(msgspec.json.decode(buffers[0]))
        return view, sent

    return made


@pytest.fixture
def session(plan):
    return plan(work, list(range(20)), limits=Limits(concurrency=4, batch_size=10), breaker=None)


def say(view, message):
    view._hear(None, msgspec.to_builtins(message), None)


def news(sent):
    """Leave out the beats, which may come at any second while the engine is busy."""
    return [message for message in sent if message["kind"] != "beat"]


def kinds(sent):
    return [(message["kind"], message.get("whole")) for message in sent]


def test_until_a_page_is_heard_it_is_taken_to_be_there(session, make, ears):
    """The cell that displays a view may keep the kernel from hearing anything."""
    view, sent = make(session)
    view.publish()
    assert kinds(sent) == [("update", True)]
    ears.pass_(pages.HELLO_S + 0.1)
    view.publish()
    assert len(sent) == 1
    assert not view.is_open


def test_its_text_is_the_same_in_each_run(session, make):
    """A saved notebook holds it beside the widget, and is compared with the next run."""
    view, _ = make(session)
    told = view._repr_mimebundle_()[0]["text/plain"]
    assert told == f"{type(view).__name__}({session.name!r})"


def test_nothing_is_sent_while_no_page_is_open(session, make, clock):
    """A notebook that is closed costs nothing, however long the run takes."""
    view, sent = make(session)
    say(view, Hello(view="one"))
    say(view, Bye(view="one"))

    async def watch():
        for _ in range(5):
            await asyncio.sleep(0.5)
            view.publish()

    clock.run(session, watch())
    view.publish()
    assert sent == []


def test_a_page_is_sent_the_whole_state_first(session, make, clock):
    """After Hello and after Resync; then what changed, and what it has adds up."""
    view, sent = make(session)
    page, marks = Page(), []

    async def watch():
        say(view, Hello(view="one"))
        for second in range(1, 7):
            await asyncio.sleep(1.1)
            if second == 3:
                say(view, Resync(view="one"))
            view.publish()
            marks.append(len(sent))

    clock.run(session, watch())
    view.publish()
    assert [whole for _, whole in kinds(sent)][:4] == [True, False, True, False]
    for message in sent:
        page.fold(message)
    assert page.head["counts"]["completed"] + page.head["counts"]["failed"] == 20
    assert [group["status"] for group in page.groups.values()] == ["completed", "completed"]


def test_a_second_page_keeps_it_open(session, make):
    """One widget may be displayed many times; the last Bye ends it."""
    view, sent = make(session)
    for name in ("one", "two"):
        say(view, Hello(view=name))
    say(view, Bye(view="one"))
    view.publish()
    assert len(sent) == 1
    say(view, Bye(view="two"))
    say(view, Bye(view="never seen"))
    assert not view.is_open


def test_a_page_that_comes_back_is_told_everything(session, make, clock):
    """What happened while it was out of sight is not lost."""
    view, sent = make(session)
    say(view, Hello(view="one"))
    view.publish()
    say(view, Bye(view="one"))
    clock.run(session)
    view.publish()
    say(view, Hello(view="one"))
    view.publish()
    assert kinds(sent) == [("update", True), ("update", True)]
    assert len(sent[-1]["groups"]) == 2


@pytest.mark.parametrize(
    ("kind", "shows", "empty"),
    [
        (panels.Panel, "panel", []),
        (panels.Progress, "progress", ["groups", "pace", "log"]),
        (panels.PartitionTable, "table", ["pace", "log"]),
        (panels.BreakerStatus, "breaker", ["groups", "pace", "log"]),
        (panels.Timeline, "timeline", ["log"]),
        (panels.Log, "log", ["groups", "pace"]),
    ],
)
def test_each_view_is_sent_what_it_shows(session, make, kind, shows, empty):
    session._clock.run(session)
    view, sent = make(session, kind)
    view.publish()
    (update,) = sent
    assert view.view == shows
    assert [name for name in ("groups", "pace", "log") if not update[name]] == empty


def too_busy(question):
    question()  # it is answered all the same, when nobody waits any more
    raise EngineBusy("busy")


def test_a_busy_engine_is_asked_again(session, make):
    """What could not be read is sent at the next turn, and a late answer loses nothing."""
    view, sent = make(session)
    ask, page = session.ask, Page()
    for whole in (True, False):
        session._feed.emit(events.Commanded(0.0, f"whole {whole}"))
        session.ask = too_busy
        view.publish()
        assert len(sent) == page.wholes
        session.ask = ask
        view.publish()
        assert kinds(sent)[-1] == ("update", whole)
        page.fold(sent[-1])
        assert page.log[-1]["text"].endswith(f"whole {whole}")


def test_what_keeps_the_engine_busy_is_shown_while_it_does(live, make):
    """The panel says which line it is, though the engine cannot be asked: once, and the rest follows."""
    begun, released = threading.Event(), threading.Event()

    async def fetch_one_price(item):
        begun.set()
        released.wait(20)
        return item

    session = live(fetch_one_price, [1])
    view, sent = make(session)
    view.publish()
    session.start()
    assert begun.wait(20)
    page, stalled = Page(), []
    while not stalled:
        view.publish()
        stalled = [message for message in sent if "fetch_one_price" in str(message.get("log"))]
    before = len(news(sent))
    view.publish()
    assert len(news(sent)) == before
    released.set()
    session.run()
    view.publish()
    for message in news(sent):
        page.fold(message)
    assert sum("fetch_one_price" in line["text"] for line in page.log) == 1
    assert page.head["counts"]["completed"] == 1


def test_a_press_while_the_engine_is_busy_is_answered_twice(live, make, wait_for, monkeypatch):
    """First that it was asked, and once it has happened what was done; meanwhile the page keeps what it has."""
    monkeypatch.setattr(engine_thread, "COMMAND_S", 0.3)
    begun = threading.Event()

    async def block(item):
        if item == 0:
            begun.set()
            time.sleep(2.0)  # noqa: ASYNC251  # what users do, and the engine's loop does not turn
        await asyncio.sleep(0.01)

    session = live(block, list(range(10_000)), limits=Limits(concurrency=2))
    view, sent = make(session)
    view.publish()
    session.start()
    assert begun.wait(20)
    command = f"{view.panel_id}/random/pause"
    say(view, Command(id=command, name="pause"))
    say(view, Command(id=command, name="pause"))
    asked = {"kind": "ack", "id": command, "ok": True, "done": False, "text": "asked to pause: the engine is busy"}
    assert news(sent)[1:] == [asked]
    assert session.state == "running"
    view.publish()
    assert news(sent)[1:] == [asked], "the engine could not be asked"
    deadline_s = time.monotonic() + 20
    while len(acks := [message for message in sent if message["kind"] == "ack"]) < 2 and time.monotonic() < deadline_s:
        view.publish()
        time.sleep(0.01)
    view.publish()
    (first, second), updates = acks, [message for message in sent[1:] if message["kind"] == "update"]
    assert (first["done"], second["done"], second["id"]) == (False, True, command)
    assert second["text"] == "paused, 2 in flight finish"
    page = Page()
    for message in (sent[0], *updates):
        page.fold(message)
    assert page.head["state"] == "paused"
    session.cancel()
    assert wait_for(session).state == "cancelled"


def test_an_end_that_could_not_be_read_is_kept_later(session, make, clock):
    """Another session's work may keep the engine busy at that moment."""
    view, _ = make(session)
    renewed = []
    view._shown = SimpleNamespace(update=lambda bundle, **_: renewed.append(bundle["text/plain"]))
    clock.run(session)
    ask, session.ask = session.ask, too_busy
    view.keep_end()
    assert renewed == []
    session.ask = ask
    view.keep_end()
    view.keep_end()
    assert renewed == [str(session.summary)]


def test_a_command_is_answered_and_acted_on_once(session, make):
    """By whatever road it comes, and however often: the widget's message, and the subshell."""
    view, sent = make(session)
    heard = []
    session.on(heard.append)
    command = f"{view.panel_id}/random/adjust/2"
    say(view, Command(id=command, name="adjust"))
    say(view, Command(id=command, name="adjust"))
    panels.act(command)
    assert sent == [{"kind": "ack", "id": command, "ok": True, "done": True, "text": "limits changed: 2 at a time"}]
    assert len(heard) == 1


def test_a_command_is_acted_on_once_under_concurrent_deliveries(session, make):
    """Both roads may deliver it in the same moment."""
    view, sent = make(session)
    ready = threading.Barrier(8)
    commands = [f"{view.panel_id}/{number}/adjust/{1 + number % 4}" for number in range(40)]

    def deliver():
        ready.wait(10)
        for command in commands:
            panels.act(command)

    threads = [threading.Thread(target=deliver) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(message["id"] for message in sent) == sorted(commands)


def test_a_refused_command_says_why(session, make):
    """In the panel, not in a cell: nothing is raised."""
    view, sent = make(session)
    for words in ("adjust/99", "explode", "items/1"):
        say(view, Command(id=f"{view.panel_id}/random/{words}", name="adjust"))
    assert [message["ok"] for message in sent] == [False, False, False]
    assert sent[0]["text"] == "concurrency must be <= 4, which the session was made with, got 99"


def test_commands_of_another_panel_are_left_alone(session, make):
    """A kernel may have many; and one that is gone is no error."""
    _view, sent = make(session)
    panels.act("no such panel/random/pause")
    assert sent == []


@pytest.mark.parametrize("content", [{}, {"kind": "later"}, {"kind": "hello"}, [], None, "hello"])
def test_what_is_not_understood_is_left_alone(session, make, content):
    """A page of a later version may say more."""
    view, sent = make(session)
    view._hear(None, content, None)
    assert sent == []
    assert view.is_open


def test_the_final_state_is_kept_for_a_page_without_a_kernel(session, make, clock):
    """The widget's saved state, and the static forms, hold how it ended."""
    view, _ = make(session)
    clock.run(session)
    page = Page()
    page.fold(msgspec.json.decode(view.get_state()["initial"]))
    assert page.head["state"] == "completed"
    assert len(page.groups) == 2
    bundle = view.bundle()
    assert "completed" in bundle["text/html"]
    assert bundle["text/plain"].startswith("wishlist completed: 16/20 successful, 4 failed")


def test_static_forms_are_renewed_at_the_end(session, make, clock):
    """Once for each end, whether a page is open or not."""
    view, _ = make(session)
    renewed = []

    class Shown:
        def update(self, bundle, **_):
            renewed.append(bundle["text/plain"])

    view._shown = Shown()
    say(view, Bye(view="one"))
    view.publish()
    clock.run(session)
    view.publish()
    view.publish()
    assert renewed == [str(session.summary)]


def test_a_page_that_says_here_is_answered(session, make, ears):
    """By a beat where there is no news; one that was forgotten is told everything, as after Hello."""
    view, sent = make(session)
    say(view, Hello(view="one"))
    view.publish()
    ears.pass_(20)
    say(view, Here(view="one"))
    view.publish()
    assert kinds(sent) == [("update", True), ("beat", None)]
    assert (sent[-1]["pages"], sent[-1]["always"]) == (["one"], [])
    ears.pass_(pages.FORGET_S + 1)
    assert not view.is_open
    say(view, Here(view="one"))
    view.publish()
    assert kinds(sent)[2:] == [("update", True)]
    assert sent[-1]["pages"] == ["one"]


def test_changes_answer_who_says_here(session, make, clock):
    """A session that runs has them each second: nothing is sent for the answer alone."""
    view, sent = make(session)
    say(view, Hello(view="one"))
    clock.run(session, asyncio.sleep(1.1))
    view.publish()
    session._feed.emit(events.StateChanged(0.0, "running", ""))
    say(view, Here(view="one"))
    view.publish()
    assert kinds(sent) == [("update", True), ("update", False)]
    assert (sent[-1]["pages"], sent[-1]["always"]) == (["one"], [])
    session.ask = too_busy
    say(view, Here(view="one"))
    view._told_s -= panels.TICK_S
    view._looked_s -= panels.TICK_S
    view.publish()
    assert kinds(sent)[2:] == [("beat", None)]
    assert sent[-1]["pages"] == ["one"]


def test_a_killed_page_costs_nothing_after_a_minute(session, make, ears, clock):
    """Without a Bye; the session runs on."""
    view, sent = make(session)
    say(view, Hello(view="one"))
    clock.run(session, asyncio.sleep(1.1))
    view.publish()
    before = len(sent)
    ears.pass_(pages.FORGET_S + 1)
    view.publish()
    view.beat()
    assert len(sent) == before > 0


def test_here_comes_by_the_second_road(session, make, ears):
    """What the page's code calls in a subshell, or on the control channel."""
    view, sent = make(session)
    message = msgspec.json.encode(Here(view="one")).decode()
    thread = threading.Thread(target=panels.hear, args=(view.panel_id, message))
    thread.start()
    thread.join(10)
    panels.hear("no such panel", message)
    view.publish()
    assert (sent[0]["pages"], sent[0]["always"]) == (["one"], ["one"])


def test_pages_of_a_busy_engine_are_sent_beats(session, make, clock):
    """At most one a second, and none while the session does not run or nobody looks."""
    view, sent = make(session)
    view.publish()
    clock.run(session, asyncio.sleep(1.1))
    session._feed.emit(events.StateChanged(0.0, "running", ""))
    session.ask = too_busy
    for _ in range(3):
        view.publish()
    assert kinds(sent) == [("update", True)], "too soon"
    view._told_s -= panels.TICK_S
    view.publish()
    assert kinds(sent)[1:] == [("beat", None)]
    session._feed.emit(events.StateChanged(0.0, "paused", ""))
    view._told_s -= panels.TICK_S
    say(view, Bye(view="one"))
    view.publish()
    assert len(sent) == 2


def test_colab_is_told_where_its_manager_of_widgets_is_and_that_it_is_wanted(session, make, monkeypatch):
    """Else Colab shows a line about third-party widgets in the panel's place; other front ends are told nothing."""
    wanted, shown = [], []
    output = SimpleNamespace(
        enable_custom_widget_manager=lambda: wanted.append(True),
        _widgets=SimpleNamespace(_installed_url="https://colab.test/manager.js"),
    )
    monkeypatch.setattr(panels, "display", lambda data, *, metadata, **_: shown.append((data, metadata)))
    view, _ = make(session)
    view.show()
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    view.show()
    assert wanted
    (elsewhere, nothing), (data, told) = shown
    assert nothing == {}
    assert told == {panels.VIEW_MIME: {"colab": {"custom_widget_manager": {"url": "https://colab.test/manager.js"}}}}
    assert set(data) == set(elsewhere) == {panels.VIEW_MIME, "text/html", "text/plain"}


def test_a_view_has_an_ended_session_looked_for_once_a_second(session, make, clock, monkeypatch):
    """Another process may go on with it, and nobody tells; not while it runs here, nor while nobody looks."""
    view, _ = make(session)
    looks = []
    monkeypatch.setattr(session, "look", lambda: looks.append(session.state))
    clock.run(session, asyncio.sleep(1.1))
    for _ in range(3):
        view.publish()
    assert looks == ["completed"]
    view._looked_elsewhere_s -= panels.TICK_S
    say(view, Bye(view="one"))
    view.publish()
    assert len(looks) == 1
