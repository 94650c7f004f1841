"""The panel of a session of another process shows what that has recorded, and offers what can work."""

import time

import msgspec
import pytest

from ipybatch import BatchSession
from ipybatch.engine.data import events
from ipybatch.engine.data.masking import mask
from ipybatch.engine.feed import live_record
from ipybatch.engine.feed.session_view import LiveStatus
from ipybatch.engine.feed.snapshot import BreakerSnapshot
from ipybatch.jupyter import messages
from ipybatch.session import follower
from tests.works import Elsewhere, Recorder

CLOSED = BreakerSnapshot(state="closed", failures=1, openings=0, probe_at_s=0.0)
OPEN = BreakerSnapshot(state="open", failures=3, openings=1, probe_at_s=time.time() + 3600)


def told(breaker=CLOSED, policy=(3, 5), rates=((50, 100, 10, "requests"),)):
    record = live_record.LiveRecord(
        running=3,
        total=10,
        status=LiveStatus(),
        breaker=breaker,
        breaker_policy=policy,
        concurrency=4,
        most_concurrency=8,
        rates=list(rates),
    )
    return msgspec.json.encode(record)


NOBODY = {"owner": None, "beat_s": 1e9}
SILENT = {"beat_s": time.time() - 3600}
ALL = ["pause", "cancel", "adjust"]
# What is on record -> state, where, whether limits and breaker are untold, the breaker, its threshold, buttons.
TABLE = {
    "runs, closed": ({"live": told()}, "running", True, False, "closed", 3, ALL),
    "runs, open": ({"live": told(OPEN)}, "running", True, False, "open", 3, ALL),
    "runs, without a breaker": ({"live": told(policy=None)}, "running", True, False, "closed", 0, ALL),
    "runs, without limits": ({"live": told(rates=())}, "running", True, False, "closed", 3, ALL),
    "runs, of an earlier version": ({}, "running", True, True, None, None, ["pause", "cancel"]),
    "paused": ({"live": told(), "state": "paused"}, "paused", True, False, "closed", 3, ["resume", "cancel", "adjust"]),
    "not heard of": ({"live": told(OPEN), **SILENT}, "interrupted", False, True, None, None, []),
    "died": ({"live": told(OPEN), **NOBODY}, "interrupted", False, True, None, None, []),
    "failed": ({"live": told(OPEN), **NOBODY, "state": "failed"}, "failed", False, True, None, None, []),
    "completed": ({"live": told(), **NOBODY, "state": "completed"}, "completed", False, True, None, None, []),
}


@pytest.fixture
def held(live, journal, monkeypatch):
    monkeypatch.setattr(follower, "_watch", lambda followed: None)
    live(Recorder(), list(range(10))).run()

    def hold(**changes):
        made = Elsewhere(journal, completed=4, total=10)
        made.write(**changes or {"epoch": 5})
        return made

    return hold


@pytest.mark.parametrize("case", TABLE)
def test_what_is_shown_is_on_record_and_what_is_offered_works(held, journal, case):
    changes, state, is_elsewhere, untold, breaker, threshold, can = TABLE[case]
    held(**changes)
    session = BatchSession.open("wishlist", journal=journal)
    head = messages.head(session)
    assert (head.state, head.where) == (state, Elsewhere.WHERE if is_elsewhere else "")
    assert (head.untold, head.can) == (untold, can)
    if not untold:
        assert (head.breaker.state, head.breaker.threshold) == (breaker, threshold)
        assert len(head.windows) == ("without limits" not in case)
    assert head.counts.running == (3 if "live" in changes and is_elsewhere else 0)
    assert (head.eta_high_s, head.cool_down_s) == (None, 0.0)
    assert head.reopen == mask(f"BatchSession.open('wishlist', journal={str(journal)!r})")


def test_one_that_goes_on_here_is_offered_to(held, journal):
    """With what it needs; it shows its own limits then, which it would run by."""
    held(**NOBODY)
    head = messages.head(BatchSession.open("wishlist", Recorder(), journal=journal))
    assert (head.state, head.untold, head.can) == ("interrupted", False, ["resume"])


def test_a_panel_of_what_was_interrupted_shows_who_goes_on(held, journal):
    """The figures of the process that died are gone with it; those of the next one are shown."""
    elsewhere = held(live=told(OPEN), **NOBODY)
    session = BatchSession.open("wishlist", journal=journal)
    assert messages.head(session).state in events.ENDED
    elsewhere.write(owner="other/78/y", epoch=6, state="running", live=told(policy=None), beat_s=time.time())
    session.look()
    head = messages.head(session)
    assert (head.state, head.where, head.untold) == ("running", "in process 78 on other", False)
    assert (head.breaker.threshold, head.counts.running, head.can) == (0, 3, ALL)
