"""The log: events in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.engine.data import events, masking
from ipybatch.engine.data.events import Counts
from ipybatch.engine.feed import event_text
from ipybatch.engine.feed.snapshot import FOLD, Group, Snapshot

AT_S = 1000.0
TOLD = [
    (
        events.Planned(AT_S, "wishlist", Counts(pending=5, completed=1200, total=1205)),
        "info",
        "Planned: 1,205 items, 1,200 recorded before",
    ),
    (events.Planned(AT_S, "wishlist", Counts(pending=1, total=1)), "info", "Planned: 1 item"),
    (events.Planned(AT_S, "wishlist", Counts(total=None)), "info", "Planned: items from a generator"),
    (events.StateChanged(AT_S, "completed", ""), "good", "Completed"),
    (events.StateChanged(AT_S, "rolled_back", "one failed"), "bad", "Rolled back: one failed"),
    (events.StateChanged(AT_S, "paused", ""), "info", "Paused"),
    (events.CooledDown(AT_S, AT_S + 3, "too many", "eu"), "warn", "Cooling down eu for 3.0 s: too many"),
    (
        events.Tallied(AT_S, {"scheduled": 1200, "done": 1183, "failed": 17, "retry": 5}),
        "info",
        "1,200 attempts: 1,183 items completed, 12 did not, 5 tried again",
    ),
    (
        events.Tallied(AT_S, {"scheduled": 3, "done": 3, "failed": 0, "retry": 0}),
        "info",
        "3 attempts: 3 items completed",
    ),
    (events.ItemsAdded(AT_S, 2, 1), "info", "2 items added, and 1 that need not run"),
    (events.GroupStarted(AT_S, 3, "Batch 3", 15), "info", "Batch 3 began: 15 items"),
    (events.GroupEnded(AT_S, 3, "completed"), "good", "Group 3 completed"),
    (events.GroupEnded(AT_S, 3, "failed"), "warn", "Group 3 failed"),
    (events.GroupChanged(AT_S, 3, "completed", {}), "info", "Group 3 completed"),
    (events.GroupChanged(AT_S, 3, "failed", {}, "expired after 48 h"), "bad", "Group 3 failed: expired after 48 h"),
    (
        events.AttemptFailed(AT_S, "440", 3, 1, "HTTP 500", 1.26),
        "warn",
        "440: attempt 1 failed; again in 1.3 s: HTTP 500",
    ),
    (events.AttemptFailed(AT_S, "440", 3, 1, "HTTP 500", 0.0), "warn", "440: attempt 1 failed: HTTP 500"),
    (events.ItemEnded(AT_S, "440", 3, "failed", 3, 1.0, "HTTP 500"), "bad", "440 failed after 3 attempts: HTTP 500"),
    (events.ItemEnded(AT_S, "440", 3, "timeout", 1, 5.0, "Exceeded 5 s"), "bad", "440 timed out: Exceeded 5 s"),
    (events.ItemEnded(AT_S, "440", 3, "cancelled", 1, 1.0, "cancelled"), "info", "440 cancelled"),
    (events.ItemsLeft(AT_S, 2000, "cancelled"), "info", "2,000 items cancelled; a later run does them"),
    (events.ItemsLeft(AT_S, 1, "skipped"), "info", "1 item skipped; a later run does it"),
    (events.BreakerMoved(AT_S, "open", 3, 2, 1060.0), "bad", "Breaker open after 3 failures in a row; opening 2"),
    (events.BreakerMoved(AT_S, "open", 1, 1, 1060.0), "bad", "Breaker open after 1 failure in a row; opening 1"),
    (events.BreakerMoved(AT_S, "half_open", 3, 2, 0.0), "warn", "Breaker half open: one probe attempt runs"),
    (events.BreakerMoved(AT_S, "closed", 0, 2, 0.0), "good", "Breaker closed"),
    (events.CooledDown(AT_S, AT_S + 30.0, "HTTP 429"), "warn", "Cooling down for 30.0 s: HTTP 429"),
    (events.CooledDown(AT_S, AT_S - 5.0, "HTTP 429"), "warn", "Cooling down for 0.0 s: HTTP 429"),
    (events.Adjourned(AT_S, AT_S + 60.0, "it starts at 22:00 (Etc/UTC)"), "info", "It starts at 22:00 (Etc/UTC)"),
    (events.Commanded(AT_S, "retry_failed"), "info", "Command: retry failed"),
    (events.Commanded(AT_S, "pause", "process 7 on host"), "info", "Command: pause, from process 7 on host"),
    (events.StateChanged(AT_S, "interrupted", "its process ended"), "warn", "Interrupted: its process ended"),
    (events.Noted(AT_S, "the journal moved"), "info", "the journal moved"),
]


@pytest.mark.parametrize(("event", "level", "text"), TOLD)
def test_an_event_is_a_line(event, level, text):
    (line,) = event_text.lines([(17, event)], {})
    assert (line.number, line.at_s, line.level, line.text) == (17, AT_S, level, text)
    assert line.group == getattr(event, "group", 0)


def test_whatever_the_story_keeps_has_words():
    """An event that is told some day cannot be forgotten here."""
    told = set()
    for event, *_ in TOLD:
        snapshot = Snapshot()
        snapshot.apply(events.GroupStarted(AT_S, 3, "Batch 3", 1))
        before = snapshot.told
        snapshot.apply(event)
        told |= {type(event)} if snapshot.told > before else set()
    assert told == set(event_text._WORDS) | {events.GroupEnded, events.GroupChanged}
    silent = {
        events.Counted,
        events.Depleted,
        events.Drawn,
        events.Exhausted,
        events.GroupRecalled,
        events.PaceRecalled,
        events.AttemptStarted,
        events.Spent,
    }
    assert set(FOLD) - told == silent


def test_secrets_are_masked(monkeypatch):
    """Whatever event brings them."""
    monkeypatch.setattr(masking, "_secrets", ())
    masking.register("hunter2secret")
    told = [
        events.Noted(AT_S, "hunter2secret"),
        events.ItemEnded(AT_S, "hunter2secret", 0, "failed", 1, 1.0, "hunter2secret"),
    ]
    assert all("hunter" not in line.text for line in event_text.lines(enumerate(told), {}))


@given(numbers=st.lists(st.integers(1, 1000)))
def test_lines_keep_their_order_and_numbers(numbers):
    """A page sorts by number: it is the event's own."""
    lines = event_text.lines([(number, events.Noted(AT_S, str(number))) for number in numbers], {})
    assert [line.number for line in lines] == numbers


def test_a_group_is_called_by_its_name():
    """A partition is no batch."""
    group = Group(number=3, name="Sofifi", status="completed", items=2)
    (line,) = event_text.lines([(1, events.GroupEnded(AT_S, 3, "completed"))], {3: group})
    assert line.text == "Sofifi completed"


def test_a_name_that_reads_like_a_group_stays_as_it_is():
    """The name is an attribute: no text is searched and replaced."""
    group = Group(number=3, name="Group 33", status="failed", items=2)
    (line,) = event_text.lines([(1, events.GroupChanged(AT_S, 3, "failed", {}, "Group 3 is full"))], {3: group})
    assert line.text == "Group 33 failed: Group 3 is full"
