import pytest

from ipybatch.engine.data import events
from ipybatch.engine.data.masking import register
from ipybatch.engine.feed import feed as feeds
from ipybatch.engine.feed.feed import Feed
from ipybatch.testing import VirtualClock


@pytest.fixture
def feed():
    return Feed(VirtualClock())


def drawn(at_s=0.0):
    return events.Drawn(at_s)


def test_everyone_hears_every_event_in_order(feed):
    """Each listener is told what the log says, in its order."""
    one, two = [], []
    feed.on(one.append)
    feed.on(two.append)
    told = [drawn(at_s) for at_s in (1.0, 2.0, 3.0)]
    for event in told:
        feed.emit(event)
    assert one == two == list(feed.log) == told


def test_the_snapshot_is_there_when_a_listener_hears(feed):
    """What an event says is already in the snapshot."""
    seen = []
    feed.on(lambda event: seen.append(feed.snapshot.counts.pending))
    feed.emit(drawn())
    feed.emit(drawn())
    assert seen == [1, 2]


@pytest.mark.parametrize("error", [ValueError("broken view"), SystemExit(1), KeyboardInterrupt()])
def test_a_listener_that_raises_is_dropped_and_noted_once(feed, error):
    """The run goes on, the others hear on, and the user is told which error it was."""
    calls, others = [], []

    def broken(event):
        calls.append(event)
        raise error

    feed.on(broken)
    feed.on(others.append)
    for _ in range(3):
        feed.emit(drawn())
    assert len(calls) == 1
    assert [event for event in others if isinstance(event, events.Drawn)] == [drawn()] * 3
    assert len(feed.snapshot.notes) == 1
    assert feed.snapshot.notes[0].startswith(f"a listener was dropped: it raised {type(error).__name__}")


def test_what_a_listener_causes_comes_after_what_it_heard(feed):
    """A listener that raises, or notes something, does not turn the order round for those behind it."""
    heard = []

    def broken(event):
        msg = "no"
        raise ValueError(msg)

    feed.on(lambda event: feed.note("seen") if isinstance(event, events.Drawn) else None)
    feed.on(broken)
    feed.on(heard.append)
    feed.emit(drawn(1.0))
    feed.emit(drawn(2.0))
    assert heard == list(feed.log)
    assert [type(event) for event in heard] == [events.Drawn, events.Noted, events.Noted, events.Drawn]


def test_the_note_of_a_dropped_listener_tells_no_secret(feed, monkeypatch):
    """What it raised may hold a key."""
    monkeypatch.setattr("ipybatch.engine.data.masking._secrets", ())
    register("hunter22")

    def broken(event):
        msg = "cannot post to hunter22"
        raise ValueError(msg)

    feed.on(broken)
    feed.emit(drawn())
    assert feed.snapshot.notes == ["a listener was dropped: it raised ValueError: cannot post to ***"]


def test_a_listener_may_end_itself(feed):
    """It hears no more, from within as from without; ending twice does nothing."""
    heard = []

    def once(event):
        heard.append(event)
        stop()

    stop = feed.on(once)
    feed.emit(drawn(1.0))
    feed.emit(drawn(2.0))
    stop()
    assert heard == [drawn(1.0)]


def test_the_same_note_is_told_once(feed):
    """A thing worth knowing is said one time."""
    feed.note("the journal moved")
    feed.note("the journal moved")
    assert feed.snapshot.notes == ["the journal moved"]
    assert len(feed.log) == 1


def test_the_log_keeps_the_latest(feed):
    """A million events do not fill the memory."""
    for number in range(feeds.LOGGED_AT_MOST + 10):
        feed.emit(drawn(float(number)))
    assert len(feed.log) == feeds.LOGGED_AT_MOST
    assert feed.log[0].at_s == 10.0
    assert feed.snapshot.counts.pending == feeds.LOGGED_AT_MOST + 10
