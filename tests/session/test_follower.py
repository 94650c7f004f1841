"""A session that another process runs: it is followed, told what to do, and gone on with when that process dies."""

import asyncio
import gc
import io
import os
import signal
import threading
import time
import weakref

import pytest

import ipybatch
from ipybatch import BatchSession, EngineBusy, InputError, JournalError, JournalLocked
from ipybatch.engine.data import events
from ipybatch.engine.data.plan import Task
from ipybatch.engine.store import commands, lease, plan_rows, run_store
from ipybatch.engine.store.journal import open_journal
from ipybatch.session import follower, waiting
from tests.kernels import Kernel
from tests.works import Elsewhere, Recorder, hear

# Its items end one after the other, when the file of their number is there; or at once, from "all" on.
OWNER = """
import asyncio, pathlib, sys, time
from ipybatch import BatchSession, Limits, Rate
from ipybatch.engine.store import commands
commands.POLL_S = 0.02
async def work(item):
    while not (gates / str(item)).exists() and not (gates / "all").exists():
        await asyncio.sleep(0.01)
    return item
gates = pathlib.Path({gates!r})
gates.mkdir()
session = BatchSession({name!r}, work, {items}, journal={journal!r}, breaker=None, {arguments})
session.start()
"""


@pytest.fixture(scope="module")
def kernel():
    made = Kernel()
    yield made
    made.kill()


class Owner:
    """A session that another kernel runs."""

    def __init__(self, kernel, journal, items="[1, 2, 3, 4]", arguments="", name="night"):
        self.kernel, self.gates, self.journal = kernel, journal.with_name(f"gates of {name}"), journal
        cell = OWNER.format(gates=str(self.gates), name=name, items=items, journal=str(journal), arguments=arguments)
        assert kernel.run(cell) is None

    def open(self, *items):
        """Let items end; all without any."""
        for item in items or ("all",):
            (self.gates / str(item)).touch()

    def said(self, expression):
        return self.kernel.run(f"said = {expression}")


@pytest.fixture
def owner(kernel, journal, monkeypatch):
    """Make sessions of the other kernel, which are ended with the test."""
    monkeypatch.setattr(follower, "FOLLOW_S", 0.02)
    made = []

    def make(*arguments, **named):
        made.append(Owner(kernel, journal, *arguments, **named))
        return made[-1]

    yield make
    for one in made:
        one.open()
        kernel.run("session.cancel()")


def until(session, test):
    """Wait until a session's state and counts are what is wanted, woken by its events."""
    moved = threading.Event()
    stop = session.on(lambda event: moved.set() if test(session) else None)
    assert session.ask(lambda: test(session)) or moved.wait(20), session
    stop()


def test_a_session_of_another_kernel_is_followed_to_its_end(owner, journal):
    """State, counts and results, real events, and the words that say where it runs."""
    night = owner()
    done = []
    session = BatchSession.open("night", journal=journal, on_progress=lambda ended, total: done.append((ended, total)))
    assert (session.state, session.counts.total) == ("running", 4)
    assert session.elsewhere.where.startswith(f"in process {night.kernel.pid} on ")
    assert f"it is running {session.elsewhere.where}, and is followed here" in session.snapshot.notes
    night.open(1)
    until(session, lambda session: session.counts.completed == 1)
    assert session.results()["status"].tolist() == ["completed", "pending", "pending", "pending"]
    night.open()
    assert str(session.run()) == "night completed: 4/4 successful, 0 failed, 0 skipped"
    assert (session.state, session.elsewhere) == ("completed", None)
    assert session.snapshot.notes == [], "where it is running holds no more"
    assert (done[0], done[-1]) == ((1, 4), (4, 4))
    assert session.summary.seconds == pytest.approx(night.said("session.summary.seconds"), abs=0.2)


def test_it_is_told_what_to_do_while_a_foreign_cell_blocks_its_kernel(owner, journal, kernel):
    """Within a second, or it would be "asked": the engine acts, whatever its kernel does."""
    night = owner(arguments="limits=Limits(concurrency=2, rates=[Rate(100, per_s=60)])")
    session = BatchSession.open("night", journal=journal)
    kernel.begin("time.sleep(60)")
    try:
        assert (session.pause(), session.state) == ("done", "paused")
        assert (session.resume(), session.state) == ("done", "running")
        assert session.adjust(concurrency=1, rates=[50]) == "done"
        assert session.prioritize([4], "high") == 1
        assert session.prioritize(lambda item: item > 2, "low") == 2
        assert session.retry_failed() == "done"
        assert "retry failed: wait until the session has ended" in session.snapshot.notes
        with pytest.raises(InputError, match="concurrency must be <= 2, which the session was made with, got 3"):
            session.adjust(concurrency=3)
        assert (session.cancel(), session.state) == ("done", "cancelled")
        assert session.snapshot.notes == []
    finally:
        os.kill(kernel.pid, signal.SIGINT)
        assert kernel.answer() == "KeyboardInterrupt()"
    assert night.said("session.state") == "cancelled"
    assert night.said("session.policy.limits.concurrency") == 1
    log = "session.log().query(\"event == 'commanded'\")"
    assert night.said(f"list({log}['command'])[:2]") == ["pause", "resume"]
    assert night.said(f"list({log}['by'])[0]") == lease.process_of(lease.me())


def test_what_belongs_to_the_process_that_runs_it_is_refused(owner, journal):
    owner()
    session = BatchSession.open("night", journal=journal)
    where = session.elsewhere.where
    for act in (session.start, BatchSession.open("night", Recorder(), journal=journal).start):
        with pytest.raises(JournalLocked, match=f"'night' is already running {where}: it is followed here"):
            act()
    with pytest.raises(JournalLocked, match=f"is already running {where}"):
        session.forget()
    with pytest.raises(InputError, match=f"'night' runs {where}: use results"):
        session.stream()
    assert session.state == "running"


def test_a_session_that_is_made_anew_says_how_to_follow(owner, journal):
    owner()
    session = BatchSession("night", Recorder(), [1, 2], journal=journal)
    assert session.state == "planned"
    (note,) = session.snapshot.notes
    assert note.startswith("it is running in process ")
    assert note.endswith(": BatchSession.open('night') follows it")


def interrupt(session):
    """Press Ctrl-C once somebody waits."""
    threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()


@pytest.mark.parametrize("is_awaited", [False, True])
def test_an_interrupt_ends_the_waiting_only(owner, journal, is_awaited):
    """The session is another kernel's: it goes on, and that is said."""
    night = owner()
    session = BatchSession.open("night", journal=journal)

    async def cell():
        return await session

    interrupt(session)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(cell()) if is_awaited else session.run()
    assert f"it goes on {session.elsewhere.where}: cancel() ends it" in session.snapshot.notes[-1]
    assert (session.state, night.said("session.state")) == ("running", "running")


def test_nothing_is_lost_when_the_process_that_runs_it_is_killed(journal, monkeypatch):
    """It is interrupted; what its reason says to call goes on, and runs nothing that is on record."""
    monkeypatch.setattr(follower, "FOLLOW_S", 0.02)
    kernel = Kernel()
    night = Owner(kernel, journal)
    session = BatchSession.open("night", journal=journal)
    paused = BatchSession.open("night", Recorder(), journal=journal)
    paused.pause()
    night.open(1, 2)
    until(session, lambda session: session.counts.completed == 2)
    kernel.kill()
    until(session, lambda session: session.state == "interrupted")
    died = f"{lease.process_of(f'{os.uname().nodename}/{kernel.pid}/x')} ended without letting go: "
    assert session.reason == f"{died}BatchSession.open('night', work=..., journal={str(journal)!r}) goes on"
    until(paused, lambda session: session.state == "interrupted")
    assert paused.reason == f"{died}start() goes on with what is not recorded"
    assert ipybatch.history(journal)["state"].tolist() == ["interrupted"]
    with pytest.raises(InputError, match="pass work= to go on"):
        session.start()
    work = Recorder()
    again = BatchSession.open("night", work, journal=journal)
    assert (again.state, again.reason) == ("interrupted", paused.reason)
    assert (again.counts.completed, again.counts.pending) == (2, 2)
    assert again.run().counts.completed == 4
    assert sorted(work.asked) == [3, 4]


def test_a_stopped_process_is_asked_and_answers_when_it_goes_on(owner, journal, kernel, monkeypatch):
    monkeypatch.setattr(follower, "COMMAND_S", 0.1)
    night = owner()
    session = BatchSession.open("night", journal=journal)
    os.kill(kernel.pid, signal.SIGSTOP)
    os.waitpid(kernel.pid, os.WUNTRACED)  # until it has stopped
    try:
        assert session.pause() == "asked"
        assert session.elsewhere.untaken == {"pause"}
        assert any("has not taken pause yet: it may be stopped" in note for note in session.snapshot.notes)
        with pytest.raises(EngineBusy, match="it changes the priorities when it can"):
            session.prioritize([4], "high")
    finally:
        os.kill(kernel.pid, signal.SIGCONT)
    until(session, lambda session: session.state == "paused" and not session.elsewhere.untaken)
    assert any(note.startswith("pause was taken ") for note in session.snapshot.notes)
    assert not any("has not taken" in note and "pause" in note for note in session.snapshot.notes)
    assert night.said("session.state") == "paused"


# What follows needs no other process: rows of the journal are all that is seen of it.


@pytest.fixture
def held(live, journal, monkeypatch):
    """A recorded session of two items that another machine holds; nobody looks unless the test does."""
    monkeypatch.setattr(follower, "_watch", lambda followed: None)
    monkeypatch.setattr(follower, "COMMAND_S", 0.05)
    live(Recorder({2: ConnectionError()}), [1, 2], retry=ipybatch.Retry(attempts=1)).run()
    return Elsewhere(journal)


@pytest.fixture
def session(held, journal):
    return BatchSession.open("wishlist", journal=journal)


def look(session):
    """Look once, as the thread does every second."""
    return session._follower.look()


GO_ON = "BatchSession.open('wishlist', work=..., journal="


def test_the_end_that_the_owner_recorded_is_shown(session, held):
    heard = []
    session.on(heard.append)
    held.write(owner=None, state="failed", reason="budget", completed=2, failed=0, ended_s=held.row("beat_s")[0])
    assert not look(session)
    assert (session.state, session.reason, session.counts.completed) == ("failed", "budget", 2)
    assert [type(event) for event in heard] == [events.Counted, events.StateChanged]
    assert session.run().reason == "budget"


def test_a_pause_there_is_shown_here(session, held):
    held.write(state="paused")
    look(session)
    assert session.state == "paused"
    held.write(state="running")
    look(session)
    assert session.state == "running"


def test_an_owner_that_takes_over_is_followed(session, held):
    """Somebody went on with it between two looks."""
    held.write(owner="other/78/y", epoch=6)
    assert look(session)
    assert session.elsewhere.where == "in process 78 on other"
    assert session.snapshot.notes == ["it is running in process 78 on other, and is followed here"]


def test_an_owner_that_is_not_heard_of_is_looked_for_all_the_same(session, held):
    """Its machine may sleep: it is interrupted as far as is known, and runs when it is heard of again."""
    held.write(beat_s=time.time() - 60)
    assert look(session)
    assert session.state == "interrupted"
    assert session.reason.startswith("process 77 on elsewhere was last heard of at ")
    assert f": if it is gone, {GO_ON}" in session.reason
    held.write(beat_s=1e9)
    look(session)
    assert " on 2001-09-" in session.reason
    assert (session.elsewhere, session.snapshot.notes) == (None, [])
    held.write(beat_s=time.time())
    look(session)
    assert session.snapshot.notes == ["it is running in process 77 on elsewhere, and is followed here"]
    assert (session.state, session.reason) == ("running", "")
    assert not session._follower.ended.done()  # whoever waits from now on waits for its end
    assert session.elsewhere.where == "in process 77 on elsewhere"


def test_an_owner_that_is_gone_for_certain_is_followed_no_more(session, held):
    host = lease.me().partition("/")[0]
    held.write(owner=f"{host}/999999999/z", epoch=6)
    assert not look(session)
    assert session.state == "interrupted"
    assert session.reason.startswith(f"process 999999999 on {host} ended without letting go: {GO_ON}")


def test_what_let_go_without_an_end_is_interrupted(session, held):
    held.write(owner=None)
    assert not look(session)
    assert session.reason.startswith(f"process 77 on elsewhere ended without letting go: {GO_ON}")


def test_a_session_that_is_deleted_elsewhere_says_so(session, held):
    held.write(owner=None, name="")
    assert not look(session)
    assert (session.state, session.reason) == ("interrupted", "what it recorded was deleted elsewhere")


@pytest.mark.parametrize("how", ["interrupted", "cancelled", "was open"])
def test_another_process_that_goes_on_later_is_followed(held, journal, how):
    """What ended, as far as was known, runs again: nobody tells, so a view that shows it has it look."""
    ended = {"interrupted": {"owner": None}, "cancelled": {"owner": None, "state": "cancelled"}}
    if how in ended:
        held.write(**ended[how])
    session, heard = BatchSession.open("wishlist", journal=journal), []
    if how == "was open":
        held.write(owner=None, state="cancelled")
        look(session)
    before = session.state
    session.on(heard.append)
    session.look()
    assert (session.state, heard) == (before, [])
    assert session.elsewhere is None
    held.write(owner="other/78/y", epoch=6, state="running", beat_s=time.time())
    session.look()
    assert (session.state, session.reason) == ("running", "")
    assert session.elsewhere.where == "in process 78 on other"
    assert not session._follower.ended.done()
    held.write(owner=None, state="completed", completed=2, failed=0, ended_s=time.time())
    look(session)
    assert (session.state, session.counts.completed) == ("completed", 2)


def test_what_is_begun_anew_later_is_not_taken_for_it(session, held):
    """Another run of the same name is another session: `open` opens it."""
    held.write(owner=None, state="cancelled")
    look(session)
    anew = {"resource": "", "group_word": "Batch", "now_s": 1.0}
    held.journal.write(lambda db: run_store.create(db, "wishlist", **anew))
    (held.run,) = held.row("id")
    held.write(owner="other/78/y", epoch=1, state="running", beat_s=time.time())
    session.look()
    assert session.state == "cancelled"


def test_a_run_that_is_begun_anew_elsewhere_is_another_one(session, held, journal):
    """The end of the one that was followed is shown; `open` opens the new one."""
    held.write(owner=None, state="cancelled")
    row = {"resource": "", "group_word": "Batch", "now_s": 1.0}
    held.journal.write(lambda db: run_store.create(db, "wishlist", **row))
    assert not look(session)
    assert session.state == "cancelled"
    assert "it was begun anew: BatchSession.open('wishlist') opens that" in session.snapshot.notes
    assert BatchSession.open("wishlist", journal=journal).state == "planned"


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_journal_that_vanishes_ends_the_session_here_too(session, journal, is_replaced):
    """It ends it where it runs, with that reason."""
    if is_replaced:
        journal.with_name("other").write_bytes(journal.read_bytes())
        journal.with_name("other").replace(journal)
    else:
        journal.unlink()
    assert not look(session)
    assert session.state == "failed"
    assert f"was {'replaced' if is_replaced else 'deleted'} while it was in use" in session.reason


def test_a_journal_that_is_locked_is_looked_at_again(session, held, monkeypatch):
    def refuse(self):
        msg = "locked"
        raise JournalLocked(msg)

    with monkeypatch.context() as patch:
        patch.setattr("ipybatch.engine.store.journal.Journal.check_there", refuse)
        assert look(session)
    held.write(state="paused")
    look(session)
    assert session.state == "paused"


def test_what_it_costs_is_shown(session, held):
    held.write(usd=0.25)
    look(session)
    assert session.snapshot.spent_usd == 0.25


def test_what_the_owner_notes_is_noted_here_once(session, held):
    held.write(notes='["the work function changed"]')
    look(session)
    look(session)
    assert session.snapshot.notes[1:] == ["the work function changed"]
    held.write(notes='["the journal is locked"]')
    look(session)
    assert session.snapshot.notes[1:] == ["the journal is locked"]  # what holds no more there goes here too


def test_what_holds_only_while_it_runs_is_not_on_record(live, journal):
    """What a session notes of the moment is gone with it, for whoever follows too."""
    session = live(Recorder(), [1])
    session.on("executing", lambda event: session.retry_failed())
    notes = []
    session.on("done", lambda event: notes.extend(session.snapshot.notes))
    session.run()
    assert notes == ["retry failed: wait until the session has ended"]
    assert session.snapshot.notes == []
    with open_journal(journal).reader() as database:
        assert run_store.find(database, "wishlist").notes == []


def test_items_that_the_work_brings_there_are_shown_here(session, held):
    """They are on record; the plan that the session was opened with did not have them."""
    more = [Task(2, "3", 3, added=True), Task(3, "4", 4, added=True)]
    held.journal.write(lambda db: plan_rows.extend_plan(db, held.run, more, 4))
    look(session)
    assert session.counts.total == 4
    assert session.results()["key"].tolist() == [1, 2, 3, 4]
    with pytest.raises(EngineBusy):
        session.prioritize([4], "high")


def test_its_groups_are_shown_as_they_change(session, held):
    """Each once: those that stand are not told again."""
    heard = []
    session.on(lambda event: heard.append(event) if isinstance(event, events.GroupRecalled) else None)
    group = "UPDATE item SET grp = 1 WHERE id & 1 = ?"
    for seq in (0, 1):
        held.journal.write(lambda db, seq=seq: db.execute(group, (seq,)).rowcount)
        session._follower._groups_s = 0.0
        look(session)
        look(session)
    assert [(event.group, event.items, event.failed) for event in heard] == [(1, 1, 0), (1, 2, 1)]


def test_the_average_rate_is_that_of_all_that_it_ran(session, held):
    """Over an hour here and elsewhere: not of what ended since somebody looks."""
    held.write(begun_s=time.time() - 1800, seconds=1800.0)
    look(session)
    assert session.summary.seconds == pytest.approx(3600, abs=5)
    assert session.snapshot.average_per_s(time.time()) == pytest.approx(2 / 3600, rel=0.01)


@pytest.mark.parametrize("seconds_before", [0.0, 600.0])
def test_the_average_rate_of_an_interrupted_session_is_up_to_its_last_beat(held, journal, seconds_before):
    """However late somebody opens it."""
    at_s = time.time() - 7200
    held.write(owner=None, begun_s=at_s - 400, beat_s=at_s, seconds=seconds_before)
    session = BatchSession.open("wishlist", journal=journal)
    assert session.state == "interrupted"
    assert session.summary.seconds == pytest.approx(400 + seconds_before, abs=1)
    assert session.snapshot.average_per_s(time.time()) == pytest.approx(2 / (400 + seconds_before), rel=0.01)


def test_a_command_that_is_refused_after_all_is_told(session, held):
    assert session.adjust(concurrency=50) == "asked"
    (command,) = session._follower._untaken
    said = [(command, "concurrency must be <= 3")]
    held.journal.write(lambda db: commands.acknowledge(db, said, 1.0))
    look(session)
    assert "adjust was not done: concurrency must be <= 3" in session.snapshot.notes


def test_a_command_that_the_session_did_not_live_to_take_is_told(session, held):
    session.cancel()
    held.journal.write(lambda db: commands.refuse(db, held.run, 1.0))
    held.write(owner=None, state="completed")
    look(session)
    assert "cancel was not done: the session had ended by then" in session.snapshot.notes
    assert session.cancel() == "done"  # as of every session that has ended


def test_a_command_that_meets_the_next_owner_is_asked_anew(session, held, monkeypatch):
    """The one that was asked died, and another goes on: what the user wants is meant for that one."""
    asked = []

    def ask(journal, run, epoch, *rest):
        asked.append(epoch)
        if len(asked) == 1:
            held.write(owner="other/78/y", epoch=6)
        return commands.ask_(journal, run, epoch, *rest)

    monkeypatch.setattr(commands, "ask_", commands.ask, raising=False)
    monkeypatch.setattr(commands, "ask", ask)
    assert session.pause() == "asked"
    assert asked == [5, 6]
    assert session.elsewhere.where == "in process 78 on other"


def test_a_command_does_not_meet_a_start_that_was_not_there_when_it_was_given(session, held):
    """The one that is meant has ended, and the session is begun again, by whomever."""
    before, now_s = session._follower._found, time.time()
    assert before.begun_s < now_s
    held.write(epoch=6, ended_s=now_s, begun_s=now_s)
    assert look(session)
    for command in (session.pause, session.cancel, lambda: session.adjust(concurrency=1)):
        with pytest.raises(JournalLocked, match="had ended, and was begun again just now: ask again if that is meant"):
            command()
        session._follower._meant = before
    with held.journal.reader() as database:
        assert database.execute("SELECT count(*) FROM command").fetchone() == (0,)
    assert session._follower.look_again()
    assert session.cancel() == "asked", "that is meant now"


def test_run_goes_on_with_one_whose_process_has_just_died(held, journal):
    session = BatchSession.open("wishlist", Recorder(), journal=journal)
    assert session.state == "running"
    held.write(owner=None)
    assert str(session.run()) == "wishlist completed: 2/2 successful, 0 failed, 0 skipped"


def test_an_owner_that_is_not_heard_of_can_be_asked(held, journal):
    """It may be asleep, and act when it wakes."""
    held.write(beat_s=time.time() - 60)
    session = BatchSession.open("wishlist", journal=journal)
    assert session.cancel() == "asked"
    assert list(session._follower._untaken) == [1]


def test_a_command_to_one_that_has_just_ended_changes_nothing(session, held):
    held.write(owner=None, state="completed")
    assert (session.pause(), session.state) == ("done", "completed")


def test_what_json_cannot_hold_is_not_asked(session):
    with pytest.raises(InputError, match="adjust must be given what JSON can hold"):
        session.adjust(rates=[object()])


def test_a_listener_may_ask_in_the_midst_of_a_look(session, held):
    """It is told of the change that it hears of only once."""
    states = []

    def listen(event):
        if isinstance(event, events.StateChanged):
            session.resume()
            states.append(event.state)

    session.on(listen)
    held.write(state="paused")
    look(session)
    assert states == ["paused"]


def test_what_is_newer_than_a_look_comes_with_the_next(session, held):
    """A listener that asks in between brings no state forward that would then be taken back."""
    states = []

    def listen(event):
        if isinstance(event, events.Counted):
            held.write(state="paused")
            session.resume()
        if isinstance(event, events.StateChanged):
            states.append(event.state)

    session.on(listen)
    held.write(completed=2)
    look(session)
    assert states == []
    look(session)
    assert states == ["paused"]


def test_a_terminal_shows_its_progress(session, held, monkeypatch):
    """The bar stands where the counts do, though no event of an item comes."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    held.write(completed=0, failed=0)
    look(session)
    with waiting.show_progress(session, verbose=False):
        held.write(completed=2)
        look(session)
        held.write(owner=None, state="completed")
        look(session)
    assert "2/2" in terminal.getvalue()


def test_a_listener_that_takes_its_time_keeps_questions_waiting_a_second_at_most(session, held):
    let_go, begun = threading.Event(), threading.Event()

    def listen(event):
        begun.set()
        let_go.wait(20)

    session.on(listen)
    held.write(state="paused")
    thread = threading.Thread(target=look, args=(session,))
    thread.start()
    assert begun.wait(20)
    with pytest.raises(EngineBusy, match="a listener of it takes its time"):
        session.ask(lambda: 1)
    let_go.set()
    thread.join(20)
    assert session.ask(lambda: 1) == 1


def test_the_same_session_goes_on_when_its_owner_let_go(held, journal):
    """Started before the next look: it is followed no more, and its time counts from now."""
    work = Recorder()
    session = BatchSession.open("wishlist", work, journal=journal)
    assert session.state == "running"
    held.write(owner=None, state="cancelled")
    session.start()
    assert session.elsewhere is None
    assert session.run().counts.completed == 2
    assert work.asked == [2]
    assert session.snapshot.started_s > time.time() - 20


def test_another_object_of_this_process_that_goes_on_is_followed(session, held, live, gate):
    """As if it ran elsewhere: its rows tell the same, and it obeys them."""
    held.write(owner=None, state="cancelled")
    owner = live(gate, [1, 2])
    owner.start()
    gate.wait_begun(1)
    assert look(session)
    assert session.elsewhere.where == "in this kernel"
    gate.open()
    owner.run()
    assert not look(session)
    assert session.state == "completed"


@pytest.mark.parametrize("items", [iter([1, 2]), [{"id": 1, "when": {1, 2}}]], ids=["generator", "not JSON"])
def test_items_that_are_not_on_record_are_wanted_anew(live, journal, items):
    live(Recorder(), items).run()
    Elsewhere(journal).write(owner=None)
    session = BatchSession.open("wishlist", journal=journal)
    told = "its process ended without letting go: make it again with its items, which are not on record"
    assert session.reason == f"{told}, and the same name goes on"
    with pytest.raises(InputError, match="create it again with its items"):
        BatchSession.open("wishlist", Recorder(), journal=journal)


def test_a_session_that_is_made_anew_says_that_its_process_died(held, journal):
    held.write(owner=None)
    session = BatchSession("wishlist", Recorder(), [1, 2], journal=journal)
    told = "its last process ended without letting go: start() goes on with what is not recorded"
    assert (session.state, session.snapshot.notes) == ("planned", [told])
    session.run()
    assert told not in session.snapshot.notes
    fresh = BatchSession("wishlist", Recorder(), [1, 2], journal=journal, fresh=True)
    assert fresh.snapshot.notes == []


def test_a_followed_session_in_a_loop_of_ours_cannot_be_driven(held, journal):
    session = BatchSession.open("wishlist", Recorder(), journal=journal)
    with pytest.raises(JournalError, match="is already running in process 77 on elsewhere"):
        asyncio.run(session.drive())


def test_resume_goes_on_with_one_that_was_paused_when_its_process_died(held, journal):
    """However long ago the last look was."""
    held.write(state="paused")
    session = BatchSession.open("wishlist", Recorder(), journal=journal)
    read = BatchSession.open("wishlist", journal=journal)
    assert (session.state, read.state) == ("paused", "paused")
    held.write(owner=None)
    with pytest.raises(InputError, match="pass work= to go on"):
        read.resume()
    assert session.resume() == "done"
    assert str(session.run()) == "wishlist completed: 2/2 successful, 0 failed, 0 skipped"


def test_a_fork_s_copy_is_followed_no_more(session):
    """The thread that follows is the parent's, and so is a lock that it holds just then."""
    follower._followed.add(session._follower)
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with session._follower._lock:
            held.set()
            let_go.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    follower._forget()  # what a child does first
    assert not look(session)
    assert session.ask(lambda: session.state) == "running"
    let_go.set()
    thread.join(20)


def test_what_nobody_has_is_followed_no_more_and_the_thread_ends(live, journal, monkeypatch):
    """Garbage is garbage: nothing keeps a session because it is followed."""
    monkeypatch.setattr(follower, "FOLLOW_S", 0.01)
    live(Recorder(), [1, 2]).run()
    held = Elsewhere(journal)
    session = BatchSession.open("wishlist", journal=journal)
    thread, gone = follower._thread, weakref.ref(session._follower)
    assert thread.is_alive()
    del session
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()
    assert gone() is None
    again = BatchSession.open("wishlist", journal=journal)
    thread, ended = follower._thread, hear(again, events.StateChanged)
    held.write(owner=None, state="completed")
    assert ended.wait(20)
    thread.join(20)
    assert not thread.is_alive()
    assert again.state == "completed"


@pytest.mark.parametrize("how", ["interrupted by a cancel", "ended"])
def test_what_ran_here_and_goes_on_in_another_process_is_followed(live, journal, how):
    """Its panel would show the end for ever, and offer to resume what runs."""
    session = live(Recorder(), list(range(4)))
    if how == "ended":
        session.run()
    else:
        session.start(paused=True)
        session.cancel()
    before = session.state
    session.look()
    assert (session.state, session.elsewhere) == (before, None)
    held = Elsewhere(journal, completed=3, total=4)
    session.look()
    assert (session.state, session.ending, session.reason) == ("running", "running", "")
    assert session.elsewhere.where == Elsewhere.WHERE
    assert session.counts.completed == 3
    held.write(owner=None, state="completed", completed=4, ended_s=time.time())
    look(session)
    assert (session.state, session.elsewhere) == ("completed", None)
    assert session.run().counts.completed == 4


def test_what_is_begun_at_the_moment_is_not_looked_for(live, journal):
    """The look comes from the thread of the views."""
    session = live(Recorder(), list(range(4)))
    session.run()
    Elsewhere(journal)
    with session._turn.wait():
        thread = threading.Thread(target=session.look)
        thread.start()
        thread.join(10)
    assert session.elsewhere is None
