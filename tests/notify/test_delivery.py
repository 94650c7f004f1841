"""What is told arrives at least once, whoever dies; and is told once where nobody does."""

import contextlib
import logging
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from ipybatch import BatchSession, Permanent, notify
from ipybatch.engine.store import history, lease
from ipybatch.engine.store import outbox as rows
from ipybatch.engine.store.journal import open_journal
from ipybatch.errors import InputError
from ipybatch.notify import addresses, delivery, rests
from tests.notify.receivers import SECRET, TOKEN

DEAD = f"{lease._HOST}/4194304/dead"  # Linux gives no process this number


def double(item):
    """Work of which the third item fails."""
    if item == 3:
        raise Permanent("three is no good")
    return {"twice": 2 * item}


def finish():
    delivery.deliverer.finish(20.0)


def wait_for(condition):
    until_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def sql(journal, command, *values):
    with contextlib.closing(sqlite3.connect(journal)) as database, database:
        return database.execute(command, values).fetchall()


def run_child(journal, code, **given):
    """Run a script as its user would; it finds the same journal and the same channels."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(journal)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **given,
    )


def test_an_end_is_told_from_the_sessions_own_process(live, hook):
    """Signed, with the session's JSON, and the line that the summary says."""
    session = live(double, [1, 2, 3], notify="hook")
    summary = session.run()
    finish()
    (request,) = hook.requests
    assert notify.verify(SECRET, request.headers, request.body)
    told = request.told
    assert told["kind"] == request.headers["X-Ipybatch-Kind"] == "finished"
    assert told["id"] == request.headers["X-Ipybatch-Delivery"]
    assert told["text"] == str(summary) == "wishlist completed: 2/3 successful, 1 failed, 0 skipped"
    assert "First error: three is no good" in told["details"]
    assert told["session"]["name"] == "wishlist"
    assert told["session"]["counts"]["completed"] == 2
    frame = notify.outbox(session.journal)
    assert frame[["session", "kind", "channel", "state", "attempts"]].values.tolist() == [
        ["wishlist", "finished", "hook", "sent", 1]
    ]


def test_each_start_that_did_something_is_told_once(live, hook):
    """A finished notebook that is run again is no news; what it does anew is."""
    live(double, [1, 2], notify="hook").run()
    live(double, [1, 2], notify="hook").run()
    finish()
    assert [request.told["text"] for request in hook.requests] == [
        "wishlist completed: 2/2 successful, 0 failed, 0 skipped"
    ]
    live(double, [1, 2, 4], notify="hook").run()
    finish()
    assert len(hook.requests) == 2
    assert len({request.told["id"] for request in hook.requests}) == 2


def test_an_unknown_channel_is_refused_before_anything_starts(live, hook):
    with pytest.raises(InputError, match="did you mean 'hook'"):
        live(double, [1], notify=["hook", "hok"])


@pytest.mark.parametrize("given", [7, [], [7], "", notify.channels])
def test_what_names_no_channel_is_refused(live, hook, given):
    with pytest.raises(InputError, match="must be the name of a channel"):
        live(double, [1], notify=given)


def test_what_is_refused_is_tried_again_later_and_longer_each_time(live, hook):
    """A receiver that asks for more time gets it; the id stays, so that it can tell a message that comes again."""
    hook.answers = [(500, {}), (503, {"Retry-After": "900"})]
    session = live(double, [1], notify="hook")
    session.run()
    finish()
    (number, due_s, error), *_ = sql(session.journal, "SELECT number, due_s, error FROM outbox")
    assert error == "it answered 500"
    assert due_s == pytest.approx(time.time() + rows.WAITS_S[0], abs=5)
    sql(session.journal, "UPDATE outbox SET due_s = 0")
    assert notify.deliver(session.journal) == 0
    ((due_s,),) = sql(session.journal, "SELECT due_s FROM outbox WHERE number = ?", number)
    assert due_s == pytest.approx(time.time() + 900, abs=5)
    sql(session.journal, "UPDATE outbox SET due_s = 0")
    rests.end("hook")
    assert notify.deliver(session.journal) == 1
    assert len({request.headers["X-Ipybatch-Delivery"] for request in hook.requests}) == 1
    assert len(hook.requests) == 3


def test_after_eight_attempts_it_is_given_up_and_told(live, hook, caplog):
    hook.answers = [(500, {})] * 8
    session = live(double, [1], notify="hook")
    session.run()
    finish()
    for _ in range(9):
        sql(session.journal, "UPDATE outbox SET due_s = 0 WHERE state = 'waiting'")
        notify.deliver(session.journal)
    assert len(hook.requests) == rows.MOST
    assert notify.outbox(session.journal)["state"].tolist() == ["given up"]
    assert any(
        "given up after 8 attempts" in note for note in BatchSession.open("wishlist", journal=session.journal).notes
    )
    assert "given up after 8 attempts (it answered 500)" in caplog.text


def test_a_redirect_is_no_receipt(live, hook):
    """Else the session would go to an address that nobody named."""
    hook.answers = [(302, {"Location": "http://127.0.0.1:1/elsewhere"})]
    session = live(double, [1], notify="hook")
    session.run()
    finish()
    assert "a redirect: name the address" in notify.outbox(session.journal)["error"][0]


def test_a_receiver_on_this_machine_is_asked_itself_whatever_the_proxy(live, hook, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    live(double, [1], notify="hook").run()
    finish()
    assert len(hook.requests) == 1


def test_a_receiver_that_is_away_is_told_without_its_address(live, hook):
    hook.close()
    session = live(double, [1], notify="hook")
    session.run()
    finish()
    error = notify.outbox(session.journal)["error"][0]
    assert "refused" in error.lower()
    assert "127.0.0.1" not in error


def test_two_who_deliver_send_it_once(live, hook, monkeypatch):
    """The claim is a transaction: a race is won by one."""
    monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: None)
    session = live(double, [1], notify="hook")
    session.run()
    start, sent = threading.Barrier(4), []

    def run():
        start.wait(10)
        sent.append(delivery.Round(session.journal).run().sent)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(sent) == [0, 0, 0, 1]
    assert len(hook.requests) == 1


def test_a_kill_between_the_commit_and_the_sending_loses_nothing(journal, hook):
    """The message is in the commit that ended the session; a server, or the command line, sends it."""
    child = run_child(
        journal,
        """
        import os, signal, sys
        from ipybatch import BatchSession
        from ipybatch.notify import delivery

        delivery.Deliverer.wake = lambda self, path: os.kill(os.getpid(), signal.SIGKILL)
        BatchSession("night", lambda item: item, [1, 2], journal=sys.argv[1], notify="hook").run()
        """,
    )
    child.communicate(timeout=60)
    assert child.returncode == -9
    assert hook.requests == []
    assert notify.deliver(journal) == 1
    assert hook.requests[0].told["text"] == "night completed: 2/2 successful, 0 failed, 0 skipped"


def test_a_kill_between_the_sending_and_its_record_sends_it_once_more_with_the_same_id(journal, hook):
    child = run_child(
        journal,
        """
        import os, signal, sys
        from ipybatch import BatchSession
        from ipybatch.engine.store import outbox

        outbox.settle = lambda *given, **more: os.kill(os.getpid(), signal.SIGKILL)
        BatchSession("night", lambda item: item, [1, 2], journal=sys.argv[1], notify="hook").run()
        """,
    )
    child.communicate(timeout=60)
    assert child.returncode == -9
    assert len(hook.requests) == 1
    assert notify.deliver(journal) == 1  # its process is gone: nobody waits for the lease to end
    first, second = hook.requests
    assert first.headers["X-Ipybatch-Delivery"] == second.headers["X-Ipybatch-Delivery"]
    assert first.body == second.body
    assert notify.outbox(journal)["attempts"].tolist() == [2]


def test_a_scripts_end_waits_for_what_is_being_sent(journal, hook):
    code = """
        import sys
        from ipybatch import BatchSession
        BatchSession("night", lambda item: item, [1, 2], journal=sys.argv[1], notify="hook").run()
        """
    child = run_child(journal, code)
    _, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (0, "")
    assert len(hook.requests) == 1


def test_what_a_living_process_is_sending_is_left_alone(live, hook):
    session = live(double, [1], notify="hook")
    session.run()
    finish()
    owner = f"{lease._HOST}/{os.getppid()}/other"
    sql(session.journal, "UPDATE outbox SET state = 'waiting', owner = ?, beat_s = ?", owner, time.time())
    assert notify.deliver(session.journal) == 0
    sql(session.journal, "UPDATE outbox SET beat_s = ?", time.time() - rows.LEASE_S - 1)
    assert notify.deliver(session.journal) == 1


def test_a_session_that_is_killed_is_told_by_whoever_looks(journal, hook):
    """Its kernel died in the night, in the midst of its work."""
    child = run_child(
        journal,
        """
        import os, signal, sys
        from ipybatch import BatchSession, Limits

        def work(item):
            if item == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return item

        one = Limits(concurrency=1)
        BatchSession("night", work, [1, 2, 3], limits=one, journal=sys.argv[1], notify="hook").run()
        """,
    )
    child.communicate(timeout=60)
    assert child.returncode == -9
    assert notify.deliver(journal) == 1
    assert notify.deliver(journal) == 0
    told = hook.requests[0].told
    assert told["text"].startswith("night interrupted: 1/3 successful, 0 failed")
    assert told["session"]["counts"]["pending"] == 2


def leave(journal, hook, silent_s=0, **columns):
    """A session that a process left which is gone: its row as that process had written it."""
    BatchSession("night", double, [1, 3], journal=journal, notify="hook").run()
    finish()
    hook.requests.clear()
    sql(journal, "DELETE FROM outbox")
    told = {"state": "running", "owner": DEAD, "beat_s": time.time() - silent_s, "ended_s": None, **columns}
    sql(journal, f"UPDATE run SET {', '.join(f'{name} = ?' for name in told)}", *told.values())


def test_a_session_that_a_dead_process_left_is_told_once_as_failed(journal, hook):
    leave(journal, hook)
    assert notify.deliver(journal) == 1
    assert notify.deliver(journal) == 0
    told = hook.requests[0].told
    assert told["kind"] == "failed"
    assert told["session"]["state"] == "interrupted"
    assert "ended without letting go" in told["text"]
    assert "First error: three is no good" in told["details"]
    assert "run the same call again" in told["details"]


@pytest.mark.parametrize(
    "columns",
    [
        {"owner": f"{lease._HOST}/{os.getppid()}/alive"},
        {"owner": lease.me()},
        {"owner": "another machine/1/alive", "silent_s": 60},
        {"notify": None},
        {"state": "completed"},
        {"name": ""},
        {"silent_s": rows.KEPT_S},
    ],
    ids=["alive", "ours", "elsewhere, silent for a minute", "nobody asked", "ended", "forgotten", "long ago"],
)
def test_what_may_go_on_or_nobody_asked_for_is_not_told(journal, hook, columns):
    leave(journal, hook, **columns)
    assert notify.deliver(journal) == 0


def test_what_its_submission_begins_again_is_not_told(journal, hook):
    leave(journal, hook)
    submission = (
        "INSERT INTO submission (id, name, template, request, requests, digest, state, created_s, queued_s)"
        " VALUES ('a', 'night', 'text', x'', 1, '', ?, 0, 0)"
    )
    sql(journal, submission, "RUNNING")
    assert notify.deliver(journal) == 0
    sql(journal, "UPDATE submission SET state = 'FAILED'")
    assert notify.deliver(journal) == 1


def test_a_channel_that_is_gone_is_an_error_of_that_message_alone(live, hook):
    hook.add("other")
    session = live(double, [1], notify=["hook", "other"])
    notify.remove_channel("hook")
    session.run()
    finish()
    frame = notify.outbox(session.journal).set_index("channel")
    assert frame.loc["other", "state"] == "sent"
    assert frame.loc["hook", "state"] == "waiting"
    assert "channel must name a channel" in frame.loc["hook", "error"]


def test_a_process_that_lacks_the_extra_leaves_the_message_to_others(live, hook, monkeypatch):
    """No attempt is used up: another process has what it needs."""
    notify.add_channel("team-mail", "mailto://ana:hunter2-pass@127.0.0.1:1?mode=insecure&from=me@example.org")
    monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: None)
    session = live(double, [1], notify="team-mail")
    session.run()
    monkeypatch.setattr(addresses, "find_spec", lambda name: None)
    assert notify.deliver(session.journal) == 0
    assert notify.outbox(session.journal)["attempts"].tolist() == [0]


def test_a_receiver_that_hangs_holds_up_no_other(live, hook, journal, monkeypatch):
    """Those of other channels arrive meanwhile, also what becomes due later."""
    hook.add("well")
    hook.add("hangs")
    let_go, send = threading.Event(), delivery.webhook.send

    def hang(channel, parcel):
        if channel.name == "hangs":
            assert let_go.wait(20)
        send(channel, parcel)

    monkeypatch.setattr(delivery.webhook, "send", hang)
    live(double, [1], name="first", notify=["hangs", "well"]).run()
    wait_for(lambda: len(hook.requests) == 1)
    live(double, [1], name="second", notify="well").run()
    wait_for(lambda: len(hook.requests) == 2)
    let_go.set()
    finish()
    assert len(hook.requests) == 3
    assert notify.outbox(journal)["state"].tolist() == ["sent"] * 3


def hang(monkeypatch, channels):
    """Let sending to some channels wait until the event that is returned is set."""
    let_go, send = threading.Event(), delivery.webhook.send

    def wait(channel, parcel):
        if channel.name in channels:
            assert let_go.wait(20)
        send(channel, parcel)

    monkeypatch.setattr(delivery.webhook, "send", wait)
    return let_go


def test_many_messages_to_a_receiver_that_hangs_hold_up_no_other(live, hook, journal, monkeypatch):
    """More than are sent at the same time."""
    hook.add("hangs")
    monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: None)
    for number in range(delivery.AT_ONCE + 1):
        live(double, [1], name=f"{number}", notify="hangs").run()
    live(double, [1], name="well", notify="hook").run()
    let_go = hang(monkeypatch, ["hangs"])
    round_ = delivery.Round(journal)
    sending = threading.Thread(target=round_.run)
    sending.start()
    wait_for(lambda: len(hook.requests) == 1)
    assert hook.requests[0].told["session"]["name"] == "well"
    let_go.set()
    sending.join(20)
    assert round_.sent == delivery.AT_ONCE + 2


def test_a_channel_that_fails_is_left_alone_until_the_next_look(live, hook, journal, monkeypatch):
    monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: None)
    monkeypatch.setattr(delivery, "TO_ONE", 1)
    for number in range(4):
        live(double, [1], name=f"{number}", notify="hook").run()
    hook.answers = [(500, {})]
    assert notify.deliver(journal) == 0
    assert len(hook.requests) == 1
    assert notify.deliver(journal) == 3


def test_what_outlasts_its_lease_holds_up_no_other_journal(live, hook, journal, monkeypatch):
    """Such as an answer that goes on and on: no look waits for it longer."""
    monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: None)
    live(double, [1], notify="hook").run()
    let_go = hang(monkeypatch, ["hook"])
    monkeypatch.setattr(rows, "LEASE_S", 0.0)
    assert notify.deliver(journal) == 0
    assert notify.outbox(journal)[["state", "attempts"]].values.tolist() == [["waiting", 1]]
    let_go.set()
    wait_for(lambda: notify.outbox(journal)["state"].tolist() == ["sent"])


def test_a_message_is_sent_where_no_thread_can_begin(live, hook, journal, monkeypatch):
    """As in Python 3.12 while a script ends."""
    monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: None)
    live(double, [1], notify="hook").run()

    start = threading.Thread.start

    def refuse(thread):
        if thread.name != "ipybatch-message":
            return start(thread)
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert notify.deliver(journal) == 1
    assert len(hook.requests) == 1


def test_what_kills_whoever_sends_it_is_given_up_and_noted(live, hook):
    session = live(double, [1], notify="hook")
    session.run()
    finish()
    died = "UPDATE outbox SET state = 'waiting', due_s = 0, attempts = ?, owner = ?, beat_s = ?"
    sql(session.journal, died, rows.MOST - 1, DEAD, time.time())
    assert notify.deliver(session.journal) == 1
    sql(session.journal, died, rows.MOST, DEAD, time.time())
    assert notify.deliver(session.journal) == 0
    assert notify.outbox(session.journal)["state"].tolist() == ["given up"]
    notes = BatchSession.open("wishlist", journal=session.journal).notes
    assert any("given up after 8 attempts (no attempt came to an end)" in note for note in notes)


def test_a_clock_that_was_set_back_keeps_no_message(live, hook):
    session = live(double, [1], notify="hook")
    session.run()
    finish()
    ahead = "UPDATE outbox SET state = 'waiting', owner = ?, beat_s = ?"
    sql(session.journal, ahead, f"{lease._HOST}/{os.getppid()}/other", time.time() + 86400)
    assert notify.deliver(session.journal) == 1


def test_what_is_forgotten_before_it_was_sent_is_told_all_the_same(live, hook, monkeypatch):
    monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: None)
    session = live(double, [1], notify="hook")
    session.run()
    session.forget()
    assert notify.deliver(session.journal) == 1
    assert hook.requests[0].told["session"] is None
    assert hook.requests[0].told["text"].startswith("wishlist completed")


def test_an_older_journal_has_nothing_to_tell(tmp_path):
    path = tmp_path / "old.sqlite3"
    open_journal(path)
    sql(path, "DROP TABLE outbox")
    assert notify.deliver(path) == 0
    assert notify.outbox(path).empty
    assert notify.outbox(tmp_path / "none.sqlite3").empty
    with pytest.raises(history.Gone):
        notify.deliver(tmp_path / "none.sqlite3")


def test_secrets_are_nowhere(live, hook, caplog, capfd, journal):
    """Not in the journal's bytes, in logs at DEBUG, in events, in errors, or on the terminal."""
    caplog.set_level(logging.DEBUG)
    hook.answers = [(500, {})]
    notify.add_channel(
        "team-mail",
        f"mailto://ana:hunter2-pass@127.0.0.1:1/?mode=insecure&from=me@example.org&to=boss-{TOKEN}@example.org",
    )
    session = live(double, [1, 3], notify=["hook", "team-mail"])
    session.run()
    finish()
    sql(journal, "UPDATE outbox SET due_s = 0")
    notify.deliver(journal)
    with pytest.raises(notify.NotSent) as caught:
        notify.test_channel("team-mail")
    seen = [
        caplog.text,
        *capfd.readouterr(),
        str(caught.value),
        session.log().to_string(),
        str(session.notes),
        notify.outbox(journal).to_string(),
        repr(addresses.load("team-mail")),
        *(request.body.decode() for request in hook.requests),
        *(file.read_bytes().decode("latin-1") for file in journal.parent.glob(f"{journal.name}*")),
    ]
    for text in seen:
        for hidden in (SECRET, TOKEN, "hunter2", "ana@", hook.url.partition("+")[2]):
            assert hidden not in text
    assert len(hook.requests) == 2
