"""Submissions say by names who is told, and are told of though they never had a session; times of schedules, too."""

import contextlib
import sqlite3

import msgspec
import pytest

from ipybatch import notify
from ipybatch.engine.data.notice import Notify
from ipybatch.engine.store import outbox
from ipybatch.engine.store.journal import open_journal
from ipybatch.errors import InputError, JournalError
from ipybatch.notify import delivery, texts
from ipybatch.server.notify_request import only_usable, to_notify
from ipybatch.server.run import work
from ipybatch.server.submission_store import STARTS, Submissions
from ipybatch.server.wire import NotifyRequest, SubmissionRequest
from ipybatch.simulators import serve
from tests.notify.conftest import config, hook
from tests.server.submitting import DEAD, Words, order, set_row
from tests.server.test_schedule_store import desk
from tests.server.test_schedule_store import request as nightly

__all__ = ["config", "desk", "hook"]


def request(**given):
    return msgspec.convert({"template": "text", "requests": ["Name a star"], **given}, SubmissionRequest)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("hook", Notify("hook")),
        (["a", "b"], Notify(["a", "b"])),
        ({"channels": "hook"}, Notify("hook")),
        (
            {"channels": ["hook"], "on": ["failed"], "breaker_min": 5, "attach_mb": 0},
            Notify("hook", on="failed", breaker_min=5, attach_mb=0),
        ),
    ],
)
def test_what_a_request_says_is_what_its_session_takes(given, expected):
    assert to_notify(request(notify=given)) == expected


@pytest.mark.parametrize("given", [[], {"channels": []}, {"channels": "hook", "breaker_min": -1}])
def test_what_names_nobody_is_refused(given):
    with pytest.raises(InputError):
        to_notify(request(notify=given))


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("gone", None),
        (["gone", "hook"], ["hook"]),
        ({"channels": ["gone", "hook"], "on": ["failed"]}, NotifyRequest(channels=["hook"], on=["failed"])),
        ({"channels": "gone"}, None),
        ("hook", "hook"),
        (None, None),
    ],
)
def test_channels_that_are_gone_are_left_out(hook, given, left):
    asked = request(notify=given)
    told, said = only_usable(asked)
    assert told.notify == left
    assert ("channel 'gone' was left out" in said) == (left != asked.notify)


@pytest.fixture
def store(journal, monkeypatch):
    monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: None)
    return Submissions(journal)


def create(store, **given):
    body = msgspec.json.encode(request(notify="hook"))
    return store.create(order(template="text", request=body, name="night", **given))


def test_one_that_cannot_begin_is_told_as_failed(store, hook, monkeypatch):
    """Its key is missing: no session is there that could tell."""
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    row = create(store)
    assert work(row.id, journal=store.path).state == "FAILED"
    assert notify.deliver(store.path) == 1
    told = hook.requests[0].told
    assert (told["kind"], told["session"]) == ("failed", None)
    assert told["text"].startswith("night failed: 0/4 successful")
    assert "GEMINI_API_KEY" in told["text"]


def test_its_session_tells_how_it_ended(store, hook, monkeypatch):
    """In the process that runs it, by the channel that the request named."""
    monkeypatch.setenv("GEMINI_API_KEY", "SIMULATED")
    with serve("gemini") as url:
        asked = request(params={"base_url": url}, notify={"channels": "hook", "on": ["finished"]})
        row = store.create(order(template="text", request=msgspec.json.encode(asked), name="night", requests=1))
        assert work(row.id, journal=store.path).state == "COMPLETED"
    assert notify.deliver(store.path) == 1
    told = hook.requests[0].told
    assert told["text"] == "night completed: 1/1 successful, 0 failed, 0 skipped"
    assert told["session"]["submission"] == row.id
    assert told["session"]["workload"] == "gemini"


def test_one_whose_kernels_died_is_told_once(store, hook):
    row = create(store)
    for _ in range(STARTS):
        claimed = store.claim(2)
        set_row(store, claimed, owner=DEAD)
    assert store.claim(2) is None
    assert store.find(row.id).state == "FAILED"
    assert notify.deliver(store.path) == 1
    assert "started 3 times" in hook.requests[0].told["text"]
    assert notify.deliver(store.path) == 0


def test_one_whose_session_ended_is_told_by_that(store, hook):
    row = create(store)
    held = store.take(row.id)
    with contextlib.closing(sqlite3.connect(store.path)) as database, database:
        database.execute(
            "INSERT INTO run (id, name, resource, group_word, state, created_s, begun_s)"
            " VALUES (7, 'night', '', 'Batch', 'failed', 0, ?)",
            (held.queued_s + 1,),
        )
        database.execute("UPDATE submission SET run = 7")
    store.end(store.find(row.id), "FAILED", "its session said so")
    assert notify.deliver(store.path) == 0


def test_a_route_takes_names_and_refuses_those_there_are_not(served, hook, config, monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "SIMULATED")
    body = {"template": "text", "requests": ["Name a star"], "params": {"base_url": "http://127.0.0.1:9"}}
    answer = served.post("/submissions", json={**body, "notify": "hook"})
    assert answer.status_code == 202
    told = served.post("/submissions", json={**body, "notify": ["hok"]}).json()
    assert (told["status"], told["field"], told["allowed"]) == (422, "notify", ["hook"])
    assert "did you mean 'hook'" in told["detail"]
    assert served.post("/submissions", json={**body, "notify": {"mail": "ana@example.org"}}).status_code == 422


class TestTimesWithoutARun:
    """Whoever sleeps is told, by the channels of the submission, in the transaction that notes it."""

    @pytest.fixture(autouse=True)
    def unsent(self, hook, monkeypatch):
        monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: None)

    @staticmethod
    def put(desk, notify="hook", before=None, **timing):
        given = nightly(**timing)
        submission = msgspec.structs.replace(given.submission, notify=notify)
        desk.store.put("night", msgspec.structs.replace(given, submission=submission), before=before)

    @staticmethod
    def told(desk):
        with open_journal(desk.journal).reader() as database:
            return [(message.kind, message.notice) for message in outbox.read(database)]

    def test_the_run_before_it_has_not_ended(self, desk):
        self.put(desk)
        desk.look("2026-12-01T22:00")
        assert self.told(desk) == []
        desk.look("2026-12-02T22:00")
        ((kind, notice),) = self.told(desk)
        assert (kind, notice.name, notice.reason) == ("skipped", "night", desk.told().note)
        assert texts.title_of(notice) == (
            "schedule night: 2026-12-02 22:00 was skipped: the run before it, 'night 2026-12-01 22:00', has not ended"
        )
        assert texts.body_of(notice).splitlines()[0] == "Next time: 2026-12-03 22:00 Europe/Berlin"

    def test_one_that_comes_every_minute_tells_once_a_day(self, desk):
        self.put(desk, cron="* * * * *", until="2026-12-03")
        for _ in range(5):
            desk.look(desk.time.now_s + 60)
        assert [kind for kind, _ in self.told(desk)] == ["skipped"]
        desk.look("2026-12-02T12:00")
        assert [kind for kind, _ in self.told(desk)] == ["skipped", "skipped"]
        desk.look("2027-01-01T12:00")
        assert texts.body_of(self.told(desk)[-1][1]).startswith("Next time: none")

    def test_it_cannot_be_submitted(self, desk, monkeypatch):
        self.put(desk)
        check = Words.check
        monkeypatch.setattr(Words, "check", lambda *_: 1 / 0)
        desk.look("2026-12-01T22:00")
        ((kind, notice),) = self.told(desk)
        assert (kind, "was not submitted" in notice.reason) == ("skipped", True)
        monkeypatch.setattr(Words, "check", check)
        desk.look("2026-12-02T22:00")
        desk.end()
        desk.look("2026-12-02T21:00")
        desk.look("2026-12-02T22:00")  # the clock was set back: it did run
        assert "submitted before" in desk.told().note
        assert len(self.told(desk)) == 1

    @pytest.mark.parametrize("misfire", ["run", "skip", "ask"])
    def test_what_was_missed(self, desk, misfire):
        self.put(desk, misfire=misfire)
        desk.look("2026-12-03T08:00")
        kinds = [kind for kind, _ in self.told(desk)]
        assert kinds == {"run": [], "skip": ["skipped"], "ask": ["asks"]}[misfire]
        if misfire == "ask":
            ((_, notice),) = self.told(desk)
            assert notice.reason == desk.told().question
            assert "ipybatch.schedules.answer('night', 'run')" in texts.body_of(notice)
            desk.store.command("night", "answer", "skip")
            desk.look("2026-12-04T08:00")  # and it asks once more
            assert [kind for kind, _ in self.told(desk)] == ["asks", "asks"]

    def test_a_zone_that_is_not_known(self, desk):
        self.put(desk)
        row = desk.store.find("night")
        desk.store._change(row, timing=row.timing.replace(b"Europe/Berlin", b"Mars/Olympus"))
        desk.look("2026-12-01T22:00")
        desk.look("2026-12-02T22:00")
        ((_, notice),) = self.told(desk)
        assert "it cannot be said when it is due" in texts.title_of(notice)
        assert "Next time: 2026-12-01 21:00 UTC" in texts.body_of(notice)

    @pytest.mark.parametrize(
        ("notify", "expected"),
        [
            (None, []),
            (NotifyRequest(channels="hook", on=["finished"]), []),
            (NotifyRequest(channels="hook", on=["asks"]), ["asks"]),
        ],
    )
    def test_only_whoever_wants_to_know(self, desk, notify, expected):
        self.put(desk, notify, misfire="ask")
        desk.look("2026-12-03T08:00")
        assert [kind for kind, _ in self.told(desk)] == expected

    def test_nothing_is_told_that_is_not_noted(self, desk, monkeypatch):
        """One transaction: the message and the note."""
        self.put(desk, misfire="skip")
        monkeypatch.setattr("ipybatch.server.schedule_store.put_unrun", lambda *_, **__: 1 / 0)
        with pytest.raises(JournalError):
            desk.look("2026-12-03T08:00")
        assert (self.told(desk), desk.told().note) == ([], "")
