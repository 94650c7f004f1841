"""Schedules from Python: made, listed, changed, answered; and run without a server."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from ipybatch import InputError, notify, schedules, templates
from ipybatch.notify import delivery
from ipybatch.server import submission_rows
from ipybatch.server.schedule_store import Schedules
from ipybatch.server.submission_store import STARTS
from tests.server.submitting import DEAD, add_words, set_row

NIGHTLY = {"requests": ["one"], "every": "1d", "at": "22:00", "zone": "Europe/Berlin"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A journal of this test's alone, and a template that needs nothing."""
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(tmp_path / "journal.sqlite3"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYBATCH_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("IPYBATCH_LIBRARY", str(tmp_path / "library.sqlite3"))
    monkeypatch.setattr("ipybatch.server.templates.TEMPLATES", {})
    add_words()
    return tmp_path


@pytest.fixture
def words(place):
    """Parameters of words that are written at once."""
    (place / "gate").touch()
    return {"gate": str(place / "gate"), "log": str(place / "log")}


def overdue(name="night"):
    """Let a schedule be due since long ago."""
    store = Schedules()
    store._change(store.find(name), next_s=1_000_000_000.0)


class TestMaking:
    def test_made_and_listed(self, place):
        made = schedules.add("night", "words", **NIGHTLY)
        assert (made.state, made.when, made.zone, made.last) == ("waiting", "every 1d at 22:00", "Europe/Berlin", "")
        assert {(at.hour, at.minute, at.tzinfo) for at in made.next_times} == {(22, 0, ZoneInfo("Europe/Berlin"))}
        schedules.add("weekdays", "words", requests=["one"], cron="0 7 * * 1-5", zone="UTC", paused=True)
        found = schedules.list()
        assert list(found["name"]) == ["night", "weekdays"]
        assert list(found["state"]) == ["waiting", "paused"]
        assert list(found["when"]) == ["every 1d at 22:00", "cron 0 7 * * 1-5"]
        assert found["next"][0] == made.next_times[0]

    def test_nothing_there(self, place):
        found = schedules.list()
        assert found.empty
        assert list(found.columns[:3]) == ["name", "state", "when"]
        assert not (place / "journal.sqlite3").exists()

    def test_moments_of_python(self, place):
        made = schedules.add(
            "night",
            "words",
            requests=["one"],
            every="1d",
            start_at=dt.datetime(2099, 1, 1, 22, tzinfo=dt.UTC),
            until=dt.date(2099, 1, 3),
            zone="UTC",
        )
        assert [at.isoformat() for at in made.next_times] == [f"2099-01-0{day}T22:00:00+00:00" for day in (1, 2, 3)]

    def test_one_of_this_name(self, place):
        schedules.add("night", "words", **NIGHTLY)
        with pytest.raises(InputError, match="replace=True"):
            schedules.add("night", "words", **NIGHTLY)
        changed = schedules.add("night", "words", **{**NIGHTLY, "at": "23:00"}, replace=True)
        assert changed.next_times[0].hour == 23
        assert len(schedules.list()) == 1

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"at": "25:00"}, "at: a time of day"),
            ({"zone": "Berlin"}, "did you mean 'Europe/Berlin'"),
            ({"requests": "one"}, "requests must be a list, got a str"),
            ({"requests": [object()]}, "cannot be recorded"),
            ({"misfire": "never"}, "misfire cannot be recorded: Invalid enum value 'never'"),
            ({"requests": []}, "requests must be a list of 1 to 20"),
            ({"requests": 5}, "requests must be a list, got a int"),
            ({"params": [5]}, "params cannot be recorded"),
            ({"grace": object()}, "grace cannot be recorded"),
            ({"until": "half \ud800"}, "until cannot be recorded"),
            ({"requests": ["half \ud800"]}, "cannot be recorded"),
        ],
    )
    def test_what_is_wrong_is_named(self, place, given, said):
        with pytest.raises(InputError) as refused:
            schedules.add("night", "words", **{**NIGHTLY, **given})
        assert said in str(refused.value)
        assert schedules.list().empty


def test_a_template_of_ones_own_is_read_each_time(place, monkeypatch):
    """A change of it is a change of what comes next; without it the time is told as not submitted."""
    monkeypatch.undo()
    for name in ("JOURNAL", "CONFIG", "LIBRARY"):
        monkeypatch.setenv(f"IPYBATCH_{name}", str(place / name))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place / "runtime"))
    templates.save("mine", templates.Template(based_on="refresh", params={"force": True}))
    made = schedules.add("night", "mine", requests=[440], every="1d")
    assert made.template == "mine"
    schedules.run_now("night")
    store = Schedules()
    (row,) = store.submissions.page(1)
    assert row.template == "refresh"
    templates.delete("mine")
    set_row(store, row, state="COMPLETED")
    overdue()
    store.submit_due()
    assert "was not submitted: template must be one of" in schedules.list()["note"][0]


def test_a_schedule_says_when_not_its_template(place, monkeypatch):
    """What is due starts now, also by a template that waits for a time of its own."""
    monkeypatch.undo()
    for name in ("JOURNAL", "CONFIG", "LIBRARY"):
        monkeypatch.setenv(f"IPYBATCH_{name}", str(place / name))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place / "runtime"))
    templates.save("mine", templates.Template(based_on="refresh", start_at="22:00", zone="UTC"))
    schedules.add("hourly", "mine", requests=[440], every="1h")
    schedules.run_now("hourly")
    (row,) = Schedules().submissions.page(1)
    assert row.start_at_s is None


def test_a_template_names_who_is_told(place, monkeypatch):
    """And who runs what is due sends it: no server may be there."""
    monkeypatch.undo()
    for name in ("JOURNAL", "CONFIG", "LIBRARY"):
        monkeypatch.setenv(f"IPYBATCH_{name}", str(place / name))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place / "runtime"))
    woken = []
    monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: woken.append(path))
    notify.add_channel("hook", "json+http://127.0.0.1:9/hook", secret="a-secret-of-16-or-more")
    templates.save("mine", templates.Template(based_on="refresh", notify="hook"))
    schedules.add("night", "mine", misfire="ask", grace="0m", requests=[440], every="1d")
    overdue()
    assert schedules.run_due().empty
    assert notify.outbox()[["session", "kind", "channel"]].to_numpy().tolist() == [["night", "asks", "hook"]]
    assert woken


def test_a_channel_that_is_gone_keeps_no_run(place, words):
    """Whoever sleeps wants the work done; that nobody is told of it stands beside its end."""
    notify.add_channel("hook", "json+http://127.0.0.1:9/hook", secret="a-secret-of-16-or-more")
    schedules.add("night", "words", params=words, notify="hook", **NIGHTLY)
    notify.remove_channel("hook")
    with pytest.raises(InputError, match="must name a channel"):
        schedules.run_now("night")  # somebody is there to mend it
    overdue()
    (told,) = schedules.run_due().to_dict("records")
    assert (told["state"], told["reason"].partition(" (")[0]) == ("COMPLETED", "channel 'hook' was left out")


def test_what_limits_a_request_to_a_server_limits_none_from_python(place):
    schedules.add("night", "words", **{**NIGHTLY, "requests": ["word"] * 500})
    overdue()
    (row,) = Schedules().submit_due()
    assert row.requests == 500


class TestAsking:
    def test_next_times_of_a_rule(self, place):
        found = schedules.next_times(cron="30 2 * * *", zone="Europe/Berlin", count=3)
        assert len(found) == 3
        assert found == sorted(found)
        with pytest.raises(InputError, match="every or cron must say when"):
            schedules.next_times()
        with pytest.raises(InputError, match="count must be a whole number >= 0, got 'five'"):
            schedules.next_times(every="1d", count="five")
        for given, field in (
            ({"cron": 5}, "cron"),
            ({"every": "1d", "at": 5}, "at"),
            ({"every": "1d", "until": 5}, "until"),
        ):
            with pytest.raises(InputError, match=f"^{field} cannot be recorded: Expected `str"):
                schedules.next_times(**given)

    def test_next_times_of_a_schedule(self, place):
        made = schedules.add("night", "words", **NIGHTLY)
        assert schedules.next_times("night", 2) == made.next_times[:2]
        with pytest.raises(InputError, match="no schedule 'day'"):
            schedules.next_times("day")

    def test_commands(self, place):
        schedules.add("night", "words", **NIGHTLY, misfire="ask")
        assert schedules.pause("night").state == "paused"
        assert schedules.resume("night").state == "waiting"
        overdue()
        Schedules().submit_due()
        assert schedules.list()["question"][0].endswith("were missed: run once now, or skip?")
        assert schedules.answer("night", "skip").state == "waiting"
        ran = schedules.run_now("night")
        assert (ran.last_state, ran.last[:8]) == ("PENDING", "night 20")
        schedules.remove("night")
        with pytest.raises(InputError):
            schedules.remove("night")


class TestRunning:
    def test_what_is_due_runs_here(self, place, words):
        schedules.add("night", "words", **NIGHTLY, params=words)
        assert schedules.run_due().empty
        overdue()
        found = schedules.run_due()
        assert list(found["state"]) == ["COMPLETED"]
        assert (place / "log").read_text().startswith("one ")
        assert schedules.run_due().empty
        assert schedules.list()["last_state"][0] == "COMPLETED"

    def test_each_time_is_a_fresh_run(self, place, words):
        """The same work again, and not what is left of the run before."""
        schedules.add("night", "words", **NIGHTLY, params=words)
        for _ in range(2):
            schedules.run_now("night")
            assert list(schedules.run_due()["state"]) == ["COMPLETED"]
        assert len((place / "log").read_text().splitlines()) == 2

    def test_what_another_process_left_goes_on(self, place, words):
        schedules.add("night", "words", **NIGHTLY, params=words)
        schedules.run_now("night")
        store = Schedules()
        (row,) = store.submissions.page(1)
        set_row(store, row, state="RUNNING", owner=DEAD, starts=1, epoch=1)
        assert list(schedules.run_due()["state"]) == ["COMPLETED"]

    def test_what_died_too_often_is_not_started_again(self, place, words):
        schedules.add("night", "words", **NIGHTLY, params=words)
        schedules.run_now("night")
        store = Schedules()
        (row,) = store.submissions.page(1)
        set_row(store, row, state="RUNNING", owner=DEAD, starts=STARTS, epoch=STARTS)
        assert schedules.run_due().empty
        assert store.submissions.find(row.id).state == "FAILED"

    def test_what_others_submitted_is_left_to_them(self, place, words):
        schedules.add("night", "words", **NIGHTLY, params=words)
        schedules.run_now("night")
        store = Schedules()
        (row,) = store.submissions.page(1)
        set_row(store, row, idempotency="mine")
        assert schedules.run_due().empty
        assert store.submissions.find(row.id).state not in submission_rows.ENDED

    def test_a_run_that_fails(self, place, words):
        schedules.add("night", "words", **NIGHTLY)  # without a parameter that its session needs
        schedules.run_now("night")
        (ended,) = schedules.run_due().to_dict("records")
        assert (ended["state"], "gate" in ended["reason"]) == ("FAILED", True)
