"""`python -m ipybatch run ID`: cron and Slurm run a submission that waits, once, and learn how it came out."""

import json
import os
import signal
import time

import pytest

from ipybatch import BatchSession
from ipybatch.__main__ import main
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store import lease
from ipybatch.gemini.money.credits import CreditAccount
from ipybatch.server.submission_store import Submissions
from tests.kernels import Kernel
from tests.server.submitting import OTHER, Words, add_words, order, paid, set_row


@pytest.fixture
def store(journal, tmp_path, monkeypatch):
    monkeypatch.setattr("ipybatch.server.templates.TEMPLATES", {})
    add_words()
    monkeypatch.setenv(journals.PATH_VARIABLE, str(journal))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return Submissions(journal)


@pytest.fixture
def words(tmp_path):
    (tmp_path / "gate").touch()
    params = {"gate": str(tmp_path / "gate"), "log": str(tmp_path / "log")}
    return lambda *words: json.dumps({"template": "words", "requests": words, "params": params}).encode()


def test_it_runs_and_says_how_far_it_is(store, words, capsys):
    account = CreditAccount(journal=store.path)
    account.grant(10)
    made = store.create(paid(4, request=words("one", "bad"), name="night"))
    assert main(["run", made.id]) == 0
    assert store.find(made.id).state == "COMPLETED"
    assert account.balance == 8
    told = capsys.readouterr()
    assert "night: start 1 of 4 requests (words)" in told.out
    assert "night: completed, 2 of 2 done, 1 failed" in told.out
    assert told.err == ""


def test_what_has_ended_is_refused(store, words, capsys):
    made = store.create(order(request=words("one")))
    main(["run", made.id])
    capsys.readouterr()
    assert main(["run", made.id]) == 1
    assert capsys.readouterr().err == f"ipybatch: submission {made.id} has ended: COMPLETED\n"


def test_what_runs_elsewhere_is_refused(store, words, capsys):
    made = store.create(order(request=words("one")))
    set_row(store, made, state="RUNNING", starts=1, owner=OTHER, beat_s=time.time())
    assert main(["run", made.id]) == 1
    assert "is already running in process" in capsys.readouterr().err
    assert store.find(made.id).starts == 1


def test_there_is_none_of_this_id(store, words, capsys):
    assert main(["run", "ffff"]) == 1
    assert "there is no submission 'ffff'" in capsys.readouterr().err
    assert not store.path.exists()


def test_what_cannot_be_made_has_failed_and_says_why(store, capsys):
    account = CreditAccount(journal=store.path)
    account.grant(10)
    made = store.create(paid(4, request=b'{"template": "horoscope"}', template="horoscope"))
    assert main(["run", made.id]) == 1
    assert "did not complete: FAILED (template must be one of words" in capsys.readouterr().err
    assert account.available == 10


def test_a_registered_journal_is_found(store, words, tmp_path, monkeypatch):
    made = store.create(order(request=words("one")))
    monkeypatch.setenv(journals.PATH_VARIABLE, str(tmp_path / "another.db"))
    assert main(["run", made.id]) == 0
    assert store.find(made.id).state == "COMPLETED"


@pytest.mark.parametrize("is_begun", [False, True])
def test_an_interrupt_cancels_it(store, words, tmp_path, monkeypatch, is_begun):
    """Before the session has begun as well as after: nobody starts it again."""
    (tmp_path / "gate").unlink()
    made = store.create(order(request=words("one")))
    if is_begun:
        link = Submissions.link

        def interrupt(*arguments):
            monkeypatch.setattr(Submissions, "link", link)
            os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(Submissions, "link", interrupt)
    else:
        monkeypatch.setattr("ipybatch.server.run._found", lambda *given: os.kill(os.getpid(), signal.SIGINT))
    assert main(["run", made.id]) in (1, 130)
    row = store.find(made.id)
    assert (row.state, row.run) == ("CANCELLED", 1 if is_begun else None)
    assert store.claim(2) is None


def test_paused_it_stays_paused_when_another_process_takes_it(store, words, tmp_path):
    """Nothing is sent until somebody says so."""
    gate = tmp_path / "gate"
    gate.unlink()
    made = store.create(order(request=words(*"abcdefgh"), name="night"))
    run = "from tests.server.submitting import add_words, work\nadd_words()"
    cell = f"import contextlib, sys\nwith contextlib.redirect_stdout(sys.stderr): work({made.id!r})"
    first, second = Kernel(), Kernel()

    def asked():
        return [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]

    def until_paused():
        while BatchSession.open("night", journal=store.path).state != "paused":
            time.sleep(0.05)

    try:
        first.run(run)
        first.begin(cell)
        while not (tmp_path / "log").exists() or len(asked()) < 4:
            time.sleep(0.01)
        BatchSession.open("night", journal=store.path).pause()
        until_paused()
        first.kill()
        second.run(run)
        second.begin(cell)
        while store.find(made.id).starts < 2:
            time.sleep(0.01)
        until_paused()
        gate.touch()
        time.sleep(0.3)
        assert sorted(asked()) == [*"abcd"]
        BatchSession.open("night", journal=store.path).resume()
        while store.find(made.id).state != "COMPLETED":
            time.sleep(0.05)
        assert sorted(asked()) == sorted([*"abcdefgh", *"abcd"])
    finally:
        first.kill()
        second.kill()


def test_interrupted_once_it_has_ended_it_stays_as_it_is(store, words, monkeypatch):
    account = CreditAccount(journal=store.path)
    account.grant(10)
    made = store.create(paid(4, request=words("one", "two"), requests=2))
    monkeypatch.setattr(Words, "used", lambda *given, **named: os.kill(os.getpid(), signal.SIGINT))
    assert main(["run", made.id]) == 130
    assert (store.find(made.id).state, store.find(made.id).reason) == ("COMPLETED", "")
    assert (account.balance, account.available) == (6, 6)


def test_killed_it_goes_on_where_it_was(store, words, tmp_path, monkeypatch):
    """After kill -9 the next one does what is left, and the credits are settled once."""
    account = CreditAccount(journal=store.path)
    account.grant(20)
    gate = tmp_path / "gate"
    gate.unlink()
    made = store.create(paid(8, request=words("one", "two", "bad"), requests=3))
    kernel = Kernel()
    kernel.run("from tests.server.submitting import add_words, work\nadd_words()")
    kernel.begin(f"import contextlib, sys\nwith contextlib.redirect_stdout(sys.stderr): work({made.id!r})")
    while not (tmp_path / "log").exists() or len((tmp_path / "log").read_text().splitlines()) < 3:
        time.sleep(0.01)
    kernel.kill()
    row = store.find(made.id)
    assert (row.state, lease.find_process(row.owner)) == ("RUNNING", False)
    gate.touch()
    assert main(["run", made.id]) == 0
    row = store.find(made.id)
    assert (row.state, row.starts) == ("COMPLETED", 2)
    assert (account.balance, account.available) == (16, 16)
