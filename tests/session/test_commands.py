"""Commands from elsewhere: rows of the journal that the owner's engine finds, acts on once, and acknowledges."""

import threading

import pytest

from ipybatch import Limits, Rate
from ipybatch.engine.data import events
from ipybatch.engine.store import commands
from ipybatch.engine.store.journal import open_journal
from ipybatch.errors import JournalLocked
from tests.works import Recorder, hear

ASKER = "elsewhere/77/x"


class Asker:
    """Asks whoever holds the latest run, as another process does, and waits for what becomes of it."""

    def __init__(self, path):
        self.journal = open_journal(path)

    def row(self, columns, table="run"):
        with self.journal.reader() as database:
            return database.execute(f"SELECT {columns} FROM {table} ORDER BY id DESC LIMIT 1").fetchone()

    def ask(self, verb, **arguments):
        return commands.ask(self.journal, *self.row("id, epoch"), verb, arguments, 0.0, ASKER)

    def answer(self, command):
        while (said := self.look(command)) is None:
            threading.Event().wait(0.01)
        return said

    def look(self, command):
        with self.journal.reader() as database:
            return commands.answer(database, command)

    def tell(self, verb, **arguments):
        return self.answer(self.ask(verb, **arguments))


@pytest.fixture
def asker(journal, monkeypatch):
    monkeypatch.setattr(commands, "POLL_S", 0.01)
    return Asker(journal)


@pytest.fixture
def running(asker, live, gate):
    """A session with one item in flight and more to do."""
    session = live(gate, [1, 2, 3, 4], limits=Limits(concurrency=2, rates=[Rate(100, per_s=60)]))
    session.start()
    gate.wait_begun(2)
    return session


def test_a_pause_from_elsewhere_acts_as_the_button_does(running, asker):
    """State, listeners and log alike; what is on record says paused by the time the command is acknowledged."""
    heard = []
    running.on(heard.append)
    assert asker.tell("pause") == ""
    assert asker.row("state") == ("paused",)
    assert running.state == "paused"
    commanded = [event for event in heard if isinstance(event, events.Commanded)]
    assert [(event.command, event.by) for event in commanded] == [("pause", "process 77 on elsewhere")]
    assert asker.tell("resume") == ""
    assert (running.state, asker.row("state")) == ("running", ("running",))


def test_a_pause_of_its_own_is_on_record_too(running, asker):
    """Else nobody elsewhere could see it."""
    running.pause()
    assert asker.row("state") == ("paused",)
    running.resume()
    assert asker.row("state") == ("running",)


def test_what_is_noted_is_on_record_while_it_runs(running, asker, gate):
    """Those of this start; whoever follows it sees them."""
    running.note("the store is slow today")
    while asker.row("notes") != ('["the store is slow today"]',):
        threading.Event().wait(0.01)
    running.note("the store is slow today", "over")
    running.note("it is fast again")
    while asker.row("notes") != ('["it is fast again"]',):
        threading.Event().wait(0.01)
    gate.open()
    running.run()
    running.note("too late")
    again = running.retry_failed()
    assert again == "done"
    running.run()
    assert asker.row("notes") == ('["it is fast again","too late"]',)


def test_a_pause_before_the_engine_begins_is_on_record(asker, live, gate):
    session = live(gate, [1])
    session.start()
    session.pause()
    assert asker.row("state") == ("paused",)


def test_a_cancel_from_elsewhere_ends_the_session(running, asker, gate):
    assert asker.tell("cancel") == ""
    summary = running.run()
    assert running._run._inbox._timer.cancelled()  # nobody looks any more
    assert (summary.state, summary.counts.cancelled) == ("cancelled", 4)
    assert asker.row("state") == ("cancelled",)
    assert sorted(gate.cancelled) == [1, 2]


def test_limits_are_changed_from_elsewhere(running, asker):
    assert asker.tell("adjust", concurrency=1, rates=[50]) == ""
    assert (running.policy.limits.concurrency, running.policy.limits.rates[0].limit) == (1, 50)


def test_priorities_are_changed_from_elsewhere(running, asker, gate):
    assert asker.tell("prioritize", keys=[4], priority="high") == ""
    gate.open()
    running.run()
    assert gate.started == [1, 2, 4, 3]


@pytest.mark.parametrize(
    ("verb", "given", "said"),
    [
        ("adjust", {"concurrency": 3}, "concurrency must be <= 2, which the session was made with, got 3"),
        ("adjust", {"concurrency": "many"}, "concurrency must be"),
        ("adjust", {"rates": [1, 2]}, "rates must be 1 limits, one for each rate, got 2"),
        ("adjust", {"rate": 1}, "unexpected keyword argument 'rate'"),
        ("prioritize", {"keys": [1], "priority": "urgent"}, "priority must be one of"),
        ("prioritize", {"keys": 1, "priority": "high"}, "keys must be a list of items' keys, got 1"),
        ("prioritize", {"keys": [1], "priority": []}, "priority must be one of"),
        ("pause", {"by": "me"}, "multiple values for argument 'by'"),
        ("retry_failed", {}, "wait until the session has ended"),
        (
            "explode",
            {},
            "the verb must be one of 'pause', 'resume', 'cancel', 'lift', 'start_now', 'retry_failed', 'adjust'",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_in_the_reply(running, asker, verb, given, said):
    """Never raised in the engine: the session goes on as it was."""
    before = running.policy
    assert said in asker.tell(verb, **given)
    assert (running.state, running.policy) == ("running", before)
    assert asker.tell("pause") == ""


def test_arguments_that_are_no_object_are_refused(running, asker):
    values = "SELECT id, 'adjust', '[1', 0.0, 'x' FROM run"
    asked = f"INSERT INTO command (run, verb, arguments, asked_s, asked_by) {values}"
    command = asker.journal.write(lambda db: db.execute(asked).lastrowid)
    assert asker.answer(command) == "the arguments must be a JSON object"


def test_a_generator_s_items_have_no_priorities(asker, live, gate):
    session = live(gate, iter([1, 2]))
    session.start()
    gate.wait_begun(1)
    assert "needs a session whose items are a list" in asker.tell("prioritize", keys=[1], priority="high")


def test_a_listener_that_raises_stops_no_command(running, asker):
    def fail(event):
        raise SystemExit

    running.on(fail)
    assert asker.tell("pause") == ""
    assert running.state == "paused"


def test_a_command_acts_once(running, asker):
    """Looked for five times a second, it is found once."""
    heard = []
    running.on(lambda event: heard.append(event) if isinstance(event, events.Commanded) else None)
    asker.tell("pause")
    assert asker.tell("resume") == ""
    assert [event.command for event in heard] == ["pause", "resume"]


def test_what_was_asked_of_one_start_is_no_other_start_s(asker, live, gate):
    """The owner ended before it looked: the next start runs to its end, and the asker is told."""
    session = live(gate, [1, 2], limits=Limits(concurrency=1))
    session.start()
    gate.wait_begun(1)
    run, epoch = asker.row("id, epoch")
    stale = asker.journal.write(
        lambda db: (
            db.execute(
                "INSERT INTO command (run, verb, asked_s, asked_by) VALUES (?, 'cancel', 0.0, ?)", (run, ASKER)
            ).lastrowid
        )
    )
    ended = hear(session, events.Tallied)
    session.cancel()
    assert ended.wait(20)
    assert asker.answer(stale) in ("", "the session had ended by then")
    assert commands.ask(asker.journal, run, epoch, "cancel", {}, 0.0, ASKER) == 0  # nobody holds it
    gate.open()
    assert live(gate, [1, 2]).run().counts.completed == 2


@pytest.mark.usefixtures("unwatched")
def test_what_a_dead_owner_was_asked_is_refused_by_the_next(asker, live, gate):
    """The lease tells the next owner nothing of it but what the asker is told."""
    gate.open()
    live(gate, [1]).run()
    (run,) = asker.row("id")
    values = f"VALUES ({run}, 'cancel', 0.0, '{ASKER}')"

    def die(database):
        database.execute("UPDATE run SET owner = 'elsewhere/1/x', beat_s = 0.0, state = 'paused'")
        return database.execute(f"INSERT INTO command (run, verb, asked_s, asked_by) {values}").lastrowid

    stale = asker.journal.write(die)
    assert live(gate, [1, 2]).run().counts.completed == 2
    assert asker.look(stale) == "the session had ended by then"


def test_commands_go_with_the_session(running, asker, gate):
    command = asker.ask("pause")
    asker.answer(command)
    running.cancel()
    running.run()
    running.forget()
    assert asker.row("count(*)", "command") == (0,)
    assert asker.look(command) == "the session was deleted"


def test_a_session_in_virtual_time_looks_for_no_commands(plan, clock, monkeypatch):
    """Its hours would be 18,000 looks each."""
    looked = []
    monkeypatch.setattr(commands.Inbox, "watch", lambda *arguments: looked.append(arguments))
    assert clock.run(plan(Recorder(), [1, 2])).state == "completed"
    assert looked == []


def test_a_journal_that_cannot_be_read_keeps_no_engine_waiting(running, asker, gate, monkeypatch):
    """Whoever holds the lease notices what is wrong with it; here nothing is found until it can be read."""
    locked = threading.Event()

    def refuse(self):
        locked.set()
        raise JournalLocked("locked")

    with monkeypatch.context() as patch:
        patch.setattr("ipybatch.engine.store.journal.Journal.connect", refuse)
        second = commands.Inbox(asker.journal, running._run._store.run, None, None)
        assert second.new() == []
        assert locked.is_set()
    gate.open()
    assert running.run().counts.completed == 4


def test_a_command_that_is_not_acknowledged_yet_is_not_found_again(running, asker):
    """The commit may wait for another program, and the engine looks again meanwhile."""
    running.ask(running._run._inbox.close)  # only this test looks
    inbox = commands.Inbox(asker.journal, running._run._store.run, None, None)
    asker.ask("pause")
    assert [command.verb for command in inbox.new()] == ["pause"]
    asker.journal.write(lambda db: db.execute("UPDATE command SET taken_s = NULL").rowcount)
    asker.ask("resume")
    assert [command.verb for command in inbox.new()] == ["resume"]
    inbox.close()
