"""Schedules as rows: what is due becomes a submission, once; what was missed; clocks, races and kills.

One subject, hence its length: the life of a schedule, as its store is.
"""

import datetime as dt
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ipybatch.engine.store import schema
from ipybatch.errors import JournalError
from ipybatch.gemini.money.credits import CreditAccount, InsufficientCredits
from ipybatch.server import schedule_store
from ipybatch.server.schedule_store import Changed, NoSuchSchedule, Schedules
from ipybatch.server.schedule_view import tell
from ipybatch.server.submission_rows import Conflict
from ipybatch.server.templates import WrongField
from ipybatch.server.wire import ScheduleRequest, SubmissionRequest
from tests.server.submitting import Time, Words, add_words

BERLIN = "Europe/Berlin"
ROOT = Path(__file__).parents[2]


def at(text, *, fold=0):
    return dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(BERLIN), fold=fold).timestamp()


def request(*words, params=None, **timing):
    """Return a schedule of words; of every night, where nothing else is said."""
    submission = SubmissionRequest(template="words", requests=list(words or ["one"]), params=params or {})
    if not {"every", "cron"} & set(timing):
        timing |= {"every": "1d", "at": "22:00"}
    return ScheduleRequest(submission=submission, **{"zone": BERLIN, **timing})


class Desk:
    """A journal, its schedules, and a clock.

    Attributes:
        made: The names of what was submitted.
    """

    def __init__(self, journal):
        self.time = Time(at("2026-12-01T12:00"))
        self.journal, self.store = journal, Schedules(journal, unix_s=self.time)

    def look(self, now=None):
        """Look at what is due, as a server does; return the names of what was submitted."""
        if now is not None:
            self.time.now_s = at(now) if isinstance(now, str) else now
        return [row.name for row in self.store.submit_due()]

    def end(self, state="COMPLETED"):
        """End whatever was submitted."""
        with closing(sqlite3.connect(self.journal, isolation_level=None)) as database:
            database.execute("UPDATE submission SET state = ?", (state,))

    def told(self, name="night"):
        row = self.store.find(name)
        return tell(row, self.store.last(row), self.time.now_s)

    def names(self):
        return [row.name for row in self.store.submissions.page(100)][::-1]


@pytest.fixture
def desk(journal, monkeypatch):
    monkeypatch.setattr("ipybatch.server.templates.TEMPLATES", {})
    monkeypatch.setenv("IPYBATCH_CONFIG", str(journal.parent / "config"))
    add_words()
    return Desk(journal)


class TestMaking:
    def test_it_waits_for_its_time(self, desk):
        desk.store.put("night", request())
        told = desk.told()
        assert (told.state, told.zone, told.last, told.note) == ("waiting", BERLIN, None, "")
        assert told.next[:2] == ["2026-12-01T21:00:00.000Z", "2026-12-02T21:00:00.000Z"]
        assert len(told.next) == 5
        assert desk.look() == []

    def test_the_zone_of_this_machine_is_recorded_by_name(self, desk, monkeypatch):
        monkeypatch.setattr("tzlocal.get_localzone", lambda: ZoneInfo("Asia/Kolkata"))
        desk.store.put("night", request(zone=None))
        assert desk.told().zone == "Asia/Kolkata"
        assert desk.told().next[0] == "2026-12-01T16:30:00.000Z"

    def test_no_journal_is_made_by_looking(self, desk, journal):
        assert desk.look() == []
        assert desk.store.page(10) == []
        with pytest.raises(NoSuchSchedule):
            desk.store.find("night")
        assert not journal.exists()

    def test_a_journal_of_before_there_were_schedules(self, desk, journal):
        before = next(number for number, step in enumerate(schema.STEPS) if "CREATE TABLE schedule" in step)
        with closing(sqlite3.connect(journal)) as database:
            for step in schema.STEPS[:before]:
                database.executescript(step)
            database.execute(f"PRAGMA user_version = {before}")
        assert desk.look() == []
        desk.store.put("night", request())
        assert desk.look("2026-12-01T22:00") == ["night 2026-12-01 22:00"]

    @pytest.mark.parametrize(
        ("given", "field"),
        [
            ({"every": "6h", "at": "22:00"}, "at"),
            ({"every": "never"}, "every"),
            ({"cron": "0 22 * *"}, "cron"),
            ({"every": "1d", "cron": "0 22 * * *"}, "every"),
            ({"zone": "Europe/Berlni"}, "zone"),
            ({"start_at": "2020-01-01T00:00"}, "start_at"),
            ({"until": "soon"}, "until"),
            ({"until": "2020-01-01"}, "until"),
            ({"until": "2026-12-01T13:00"}, "until"),
            ({"grace": "a while"}, "grace"),
            ({"every": "1d", "at": "26:00"}, "at"),
            ({"every": "1d", "at": "٢٢:٠٠"}, "at"),  # noqa: RUF001
        ],
    )
    def test_what_is_wrong_is_named(self, desk, given, field):
        with pytest.raises(WrongField) as refused:
            desk.store.put("night", request(**given))
        assert refused.value.field == field
        assert desk.store.page(10) == []

    def test_what_is_submitted_is_checked_as_a_submission(self, desk):
        for wrong, field in (
            (SubmissionRequest(template="horoscope"), "submission.template"),
            (SubmissionRequest(template="words"), "submission.requests"),
            (SubmissionRequest(template="words", requests=["a"], name="mine"), "submission.name"),
            (SubmissionRequest(template="words", requests=["a"], start_at="22:00"), "submission.start_at"),
            (SubmissionRequest(template="words", requests=["a"], zone="UTC"), "submission.zone"),
            (SubmissionRequest(template="words", requests=["a"], notify="nobody"), "submission.notify"),
        ):
            with pytest.raises(WrongField) as refused:
                desk.store.put("night", ScheduleRequest(submission=wrong, every="1d"))
            assert refused.value.field == field

    @pytest.mark.parametrize("name", ["", "a\nb", "n" * 121, "..", "."])
    def test_a_name_is_one(self, desk, name):
        with pytest.raises(WrongField) as refused:
            desk.store.put(name, request())
        assert refused.value.field == "name"

    def test_one_of_this_name_is_not_written_over(self, desk):
        row = desk.store.put("night", request())
        with pytest.raises(Changed):
            desk.store.put("night", request())
        desk.store.put("night", request("two"), before=row)
        assert desk.told().submission.requests == ["two"]
        with pytest.raises(Changed):
            desk.store.put("night", request("three"), before=row)
        with pytest.raises(Changed):
            desk.store.remove(row)
        desk.store.remove(desk.store.find("night"))
        assert desk.store.page(10) == []

    def test_a_change_of_something_else_moves_no_time(self, desk):
        row = desk.store.put("hours", request(every="6h", start_at="2026-12-01T13:00"))
        desk.time.now_s += 3 * 3600  # its start is past
        changed = desk.store.put("hours", request("two", every="6h", start_at="2026-12-01T13:00"), before=row)
        assert (changed.next_s, changed.anchor_s) == (row.next_s, row.anchor_s)
        changed = desk.store.put("hours", request(every="5h"), before=changed)
        assert changed.next_s == desk.time.now_s + 5 * 3600

    def test_another_end_moves_no_time(self, desk):
        """Its start is past, and is not refused; every six hours stays at the same hours."""
        row = desk.store.put("hours", request(every="6h", start_at="2026-12-01T13:00", until="2026-12-09"))
        desk.time.now_s += 3 * 3600
        row = desk.store.put("hours", request(every="6h", start_at="2026-12-01T13:00"), before=row)
        assert row.next_s == at("2026-12-01T19:00")
        row = desk.store.put("anew", request(every="6h"))
        desk.time.now_s += 3600
        changed = desk.store.put("anew", request(every="6h", until="2026-12-09"), before=row)
        assert changed.next_s == row.next_s

    def test_pages_by_name(self, desk):
        for name in "cab":
            desk.store.put(name, request())
        assert [row.name for row, _ in desk.store.page(2)] == ["a", "b"]
        assert [row.name for row, _ in desk.store.page(2, "b")] == ["c"]


class TestTimes:
    def test_each_time_is_a_run_of_its_own(self, desk):
        desk.store.put("night", request())
        assert desk.look("2026-12-01T21:59:59") == []
        assert desk.look("2026-12-01T22:00") == ["night 2026-12-01 22:00"]
        assert desk.look("2026-12-01T22:00:05") == []
        desk.end()
        assert desk.look("2026-12-02T22:00:03") == ["night 2026-12-02 22:00"]
        told = desk.told()
        assert (told.last.name, told.last.state) == ("night 2026-12-02 22:00", "PENDING")
        assert told.last.at == "2026-12-02T21:00:00.000Z"
        assert told.next[0] == "2026-12-03T21:00:00.000Z"

    def test_a_time_is_skipped_while_the_run_before_it_has_not_ended(self, desk):
        desk.store.put("night", request())
        desk.look("2026-12-01T22:00")
        assert desk.look("2026-12-02T22:00") == []
        assert desk.told().note == (
            "2026-12-02 22:00 was skipped: the run before it, 'night 2026-12-01 22:00', has not ended"
        )
        desk.end("FAILED")
        assert desk.look("2026-12-03T22:00") == ["night 2026-12-03 22:00"]
        assert desk.told().note == ""

    def test_an_older_run_that_was_tried_again(self, desk):
        """Two runs of a schedule never run at once, whichever they are."""
        desk.store.put("night", request())
        desk.look("2026-12-01T22:00")
        desk.end("FAILED")
        desk.look("2026-12-02T22:00")
        desk.end()
        with closing(sqlite3.connect(desk.journal, isolation_level=None)) as database:
            database.execute("UPDATE submission SET state = 'PENDING' WHERE name = 'night 2026-12-01 22:00'")
        assert desk.look("2026-12-03T22:00") == []
        assert "'night 2026-12-01 22:00', has not ended" in desk.told().note

    def test_one_that_cannot_be_read_keeps_no_other_one(self, desk):
        """Such as of a zone that this machine does not know."""
        row = desk.store.put("a", request())
        desk.store.put("b", request())
        desk.store._change(row, timing=row.timing.replace(b"Europe/Berlin", b"Mars/Olympus"))
        assert desk.look("2026-12-01T22:00") == ["b 2026-12-01 22:00"]
        told = desk.told("a")
        assert (told.next, "Mars/Olympus" in told.note) == ([], True)
        version = desk.store.find("a").version
        desk.look()
        assert desk.store.find("a").version == version

    def test_both_of_a_double_hour(self, desk):
        desk.time.now_s = at("2026-10-25T01:00")
        desk.store.put("half", request(cron="*/30 * * * *"))
        made = []
        for half in range(1, 6):
            made += desk.look(at("2026-10-25T01:00") + half * 1800)
            desk.end()
        assert [name.removeprefix("half 2026-10-25 ") for name in made] == [
            "01:30",
            "02:00",
            "02:30",
            "02:00 (2)",
            "02:30 (2)",
        ]

    def test_it_ends(self, desk):
        desk.store.put("night", request(until="2026-12-02"))
        desk.look("2026-12-01T22:00")
        desk.end()
        assert desk.look("2026-12-02T22:00") == ["night 2026-12-02 22:00"]
        assert (desk.told().state, desk.told().next) == ("ended", [])
        assert desk.look("2026-12-09T22:00") == []

    def test_what_cannot_be_submitted_is_told_and_goes_on(self, desk, monkeypatch):
        desk.store.put("night", request())
        check = Words.check

        def refuse(*_):
            raise WrongField("params.key", "set GEMINI_API_KEY")

        monkeypatch.setattr(Words, "check", refuse)
        assert desk.look("2026-12-01T22:00") == []
        assert desk.told().note == "2026-12-01 22:00 was not submitted: set GEMINI_API_KEY"
        monkeypatch.setattr(Words, "check", check)
        assert desk.look("2026-12-02T22:00") == ["night 2026-12-02 22:00"]

    def test_a_journal_that_cannot_be_read_leaves_it_due(self, desk, monkeypatch):
        desk.store.put("night", request())

        def refuse(*_):
            raise JournalError("locked")

        with monkeypatch.context() as patch:
            patch.setattr(Words, "check", refuse)
            with pytest.raises(JournalError):
                desk.look("2026-12-01T22:00")
        assert desk.look("2026-12-01T22:05") == ["night 2026-12-01 22:00"]

    def test_too_few_credits_are_told(self, desk, journal):
        account = CreditAccount(journal=journal)
        account.grant(3)
        desk.store.put("night", request(params={"paid": True}))
        assert desk.look("2026-12-01T22:00") == ["night 2026-12-01 22:00"]
        assert account.available == 1
        desk.end()
        assert desk.look("2026-12-02T22:00") == []
        assert desk.told().note.startswith("2026-12-02 22:00 was not submitted: ")
        assert "balance" in desk.told().note
        with pytest.raises(InsufficientCredits):
            desk.store.command("night", "run_now")


AWAY = {  # when the server comes back, and how many times were missed by then
    "in time": ("2026-03-28T02:30:05", 0),
    "within grace": ("2026-03-28T02:44:00", 0),
    "once": ("2026-03-28T08:00", 1),
    "over the gap": ("2026-03-29T03:10", 0),  # 02:30 is 03:00 there; the day before was missed, and is past
    "three times": ("2026-03-30T08:00", 3),
}
LATEST = {
    "in time": "2026-03-28 02:30",
    "within grace": "2026-03-28 02:30",
    "once": "2026-03-28 02:30",
    "over the gap": "2026-03-29 03:00",
    "three times": "2026-03-30 02:30",
}


class TestMissed:
    """Once, not once for each time."""

    @pytest.mark.parametrize("away", AWAY)
    @pytest.mark.parametrize("misfire", ["run", "skip", "ask"])
    @pytest.mark.parametrize("rule", [{"every": "1d", "at": "02:30"}, {"cron": "30 2 * * *"}], ids=["every", "cron"])
    def test_server_was_away(self, desk, away, misfire, rule):
        back, missed = AWAY[away]
        desk.time.now_s = at("2026-03-27T12:00")
        desk.store.put("night", request(misfire=misfire, **rule))
        made = desk.look(back)
        told = desk.told()
        assert desk.look() == []
        if not missed:
            assert (made, told.question, told.note) == ([f"night {LATEST[away]}"], "", "")
        elif misfire == "run":
            assert made == [f"night {LATEST[away]}"]
            assert "missed: submitted once, 2026-03-" in told.note
        elif misfire == "skip":
            assert (made, told.state) == ([], "waiting")
            assert told.note.endswith("missed, and skipped")
        else:
            assert (made, told.state) == ([], "asking")
            assert told.question.endswith("missed: run once now, or skip?")
            assert desk.store.find("night").missed == missed
        assert desk.store.find("night").next_s > desk.time.now_s

    def test_words(self, desk):
        desk.store.put("night", request(misfire="ask"))
        desk.look("2026-12-04T08:00")
        assert desk.told().question == (
            "3 times, 2026-12-01 22:00 to 2026-12-03 22:00, were missed: run once now, or skip?"
        )

    def test_over_a_double_hour(self, desk):
        desk.time.now_s = at("2026-10-24T12:00")
        desk.store.put("night", request(every="1d", at="02:30", misfire="ask"))
        desk.look(at("2026-10-25T02:40", fold=1))  # 70 minutes after the first 02:30
        assert desk.told().question == "2026-10-25 02:30 was missed: run once now, or skip?"

    def test_it_waits_for_the_answer(self, desk):
        desk.store.put("night", request(misfire="ask"))
        desk.look("2026-12-02T08:00")
        assert desk.look("2026-12-02T22:00") == []
        told = tell(desk.store.command("night", "answer", "run"), None, desk.time.now_s)
        assert (told.state, told.question) == ("waiting", "")
        assert desk.names() == ["night 2026-12-01 22:00"]
        assert told.next[0] == "2026-12-03T21:00:00.000Z"

    def test_skipped_by_an_answer(self, desk):
        desk.store.put("night", request(misfire="ask"))
        desk.look("2026-12-02T08:00")
        desk.store.command("night", "answer", "skip")
        assert (desk.names(), desk.told().state) == ([], "waiting")
        assert desk.look("2026-12-02T22:00") == ["night 2026-12-02 22:00"]

    @pytest.mark.parametrize("misfire", ["run", "skip"])
    def test_a_change_of_what_to_do_is_an_answer(self, desk, misfire):
        """Otherwise it would wait for ever, though it says now that it does not ask."""
        desk.store.put("night", request(misfire="ask"))
        desk.look("2026-12-02T08:00")
        desk.store.put("night", request(misfire=misfire), before=desk.store.find("night"))
        assert (desk.told().state, desk.told().question) == ("waiting", "")
        assert desk.look() == (["night 2026-12-01 22:00"] if misfire == "run" else [])
        assert desk.told().note.startswith("2026-12-01 22:00 was missed")
        desk.end()
        assert desk.look("2026-12-02T22:00") == ["night 2026-12-02 22:00"]

    def test_a_change_of_something_else_still_asks(self, desk):
        desk.store.put("night", request(misfire="ask"))
        desk.look("2026-12-02T08:00")
        desk.store.put("night", request("two", misfire="ask"), before=desk.store.find("night"))
        assert desk.told().question == "2026-12-01 22:00 was missed: run once now, or skip?"

    def test_an_answer_without_a_question(self, desk):
        desk.store.put("night", request())
        for verb, answer in (("answer", "run"), ("answer", None), ("pause", "run")):
            with pytest.raises(WrongField):
                desk.store.command("night", verb, answer)


class TestCommands:
    def test_what_passes_while_it_is_paused_is_not_missed(self, desk):
        desk.store.put("night", request(misfire="ask"))
        desk.store.command("night", "pause")
        assert (desk.look("2026-12-03T08:00"), desk.told().state) == ([], "paused")
        desk.store.command("night", "resume")
        assert (desk.look(), desk.told().question) == ([], "")
        assert desk.look("2026-12-03T22:00") == ["night 2026-12-03 22:00"]

    def test_the_same_by_a_change(self, desk):
        row = desk.store.put("night", request(paused=True, misfire="ask"))
        desk.time.now_s = at("2026-12-03T08:00")
        desk.store.put("night", request(misfire="ask"), before=row)
        assert (desk.look(), desk.told().state) == ([], "waiting")

    def test_run_now_moves_no_time(self, desk):
        desk.store.put("night", request())
        before = desk.store.find("night").next_s
        row = desk.store.command("night", "run_now")
        assert row.next_s == before
        assert desk.names() == ["night 2026-12-01 12:00"]
        with pytest.raises(Conflict, match="has not ended"):
            desk.store.command("night", "run_now")
        desk.end()
        desk.time.now_s += 7
        desk.store.command("night", "run_now")
        assert desk.names()[1:] == ["night 2026-12-01 12:00:07"]

    @pytest.mark.parametrize("name", ["night", "half \ud800", 5, None])
    def test_one_that_is_not_there(self, desk, name):
        """What cannot be a name does not make the journal a damaged one."""
        desk.store.put("day", request())
        with pytest.raises(NoSuchSchedule):
            desk.store.command(name, "pause")

    def test_another_of_the_same_name_begins_anew(self, desk):
        desk.store.put("night", request())
        desk.look("2026-12-01T22:00")
        desk.store.remove(desk.store.find("night"))
        desk.time.now_s = at("2026-12-01T21:00")
        desk.store.put("night", request())
        assert desk.told().last is None
        desk.end()
        assert desk.look("2026-12-01T22:00") == ["night 2026-12-01 22:00 (2)"]


class TestClocks:
    def test_set_back_by_an_hour(self, desk):
        """A time that was submitted is not submitted again."""
        desk.store.put("night", request())
        desk.look("2026-12-01T22:30")
        desk.end()
        assert desk.look("2026-12-01T21:30") == []
        assert desk.look("2026-12-01T22:00") == []
        assert "submitted before" in desk.told().note
        assert desk.look("2026-12-02T22:00") == ["night 2026-12-02 22:00"]

    def test_a_year_ahead_and_back(self, desk):
        """Nothing sleeps until then."""
        desk.store.put("night", request(misfire="ask"))
        desk.look("2027-12-01T23:00")
        assert desk.told().state == "asking"
        desk.look("2026-12-01T13:00")
        assert (desk.told().state, desk.told().next[0]) == ("waiting", "2026-12-01T21:00:00.000Z")
        assert desk.look("2026-12-01T22:00") == ["night 2026-12-01 22:00"]

    def test_two_machines_a_few_seconds_apart(self, desk):
        desk.store.put("night", request())
        assert desk.look("2026-12-01T22:00:01") == ["night 2026-12-01 22:00"]
        desk.end()
        version = desk.store.find("night").version
        assert desk.look("2026-12-01T21:59:55") == []
        assert desk.store.find("night").version == version

    def test_until_was_passed_by_a_wrong_clock(self, desk):
        desk.store.put("night", request(until="2026-12-31", misfire="skip"))
        desk.look("2028-01-01T00:00")
        assert desk.told().state == "ended"
        desk.look("2026-12-02T12:00")
        assert desk.told().state == "waiting"


class TestManyServers:
    def test_one_of_them_submits(self, desk, journal):
        """Eight look at the same moment, with a check that all of them are in."""
        desk.store.put("night", request())
        desk.time.now_s = at("2026-12-01T22:00")
        together, check, made = threading.Barrier(8), Words.check, []

        def wait(*given):
            together.wait(20)
            return check(*given)

        Words.check = wait
        try:
            threads = [
                threading.Thread(target=lambda: made.extend(Schedules(journal, unix_s=desk.time).submit_due()))
                for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            Words.check = check
        assert [row.name for row in made] == ["night 2026-12-01 22:00"]
        assert desk.names() == ["night 2026-12-01 22:00"]

    @pytest.mark.parametrize("where", ["insert", "update", "commit"])
    def test_a_kill_between(self, desk, journal, where):
        """Killed at any line, the time is submitted once: by this process, or by the next."""
        desk.store.put("night", request())
        done = subprocess.run([sys.executable, "-m", __name__, str(journal), where], timeout=60, check=False, cwd=ROOT)
        assert done.returncode == -9
        assert desk.names() == (["night 2026-12-01 22:00"] if where == "commit" else [])
        desk.look("2026-12-01T22:00")
        assert desk.names() == ["night 2026-12-01 22:00"]
        assert desk.told().last.name == "night 2026-12-01 22:00"

    def test_processes_whose_clocks_differ_by_days(self, desk, journal):
        """No time is submitted twice, whoever is ahead."""
        desk.store.put("night", request())
        done = subprocess.run([sys.executable, "-m", __name__, str(journal), "race"], timeout=60, check=False, cwd=ROOT)
        assert done.returncode == 0
        names = desk.names()
        assert len(names) == len(set(names)) > 1
        assert not any("(2)" in name for name in names)

    def test_a_change_that_comes_between(self, desk, monkeypatch):
        """A schedule that was removed while it was checked submits nothing."""
        desk.store.put("night", request())
        check = Words.check

        def remove(*given):
            monkeypatch.setattr(Words, "check", check)
            desk.store.remove(desk.store.find("night"))
            return check(*given)

        monkeypatch.setattr(Words, "check", remove)
        assert desk.look("2026-12-01T22:00") == []
        assert desk.names() == []


def race(journal):
    """Be four processes that look at eight nights, each as fast as it can."""
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            code = 1
            try:
                add_words()
                desk = Desk(Path(journal))
                for day in range(1, 9):
                    desk.look(f"2026-12-0{day}T22:00")
                    desk.end()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return any(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def killed(journal, where):
    """Submit what is due, and be killed."""
    add_words()
    desk = Desk(Path(journal))
    module, name = {
        "insert": (schedule_store, "_free_name"),
        "update": (schedule_store.rows, "update"),
        "commit": (schedule_store.Submissions, "written"),
    }[where]
    real = getattr(module, name)

    def kill(*given, **named):
        if where != "insert":
            real(*given, **named)
        os.kill(os.getpid(), 9)

    setattr(module, name, kill)
    desk.look("2026-12-01T22:00")


if __name__ == "__main__":
    if sys.argv[2] == "race":
        sys.exit(race(sys.argv[1]))
    killed(*sys.argv[1:])
