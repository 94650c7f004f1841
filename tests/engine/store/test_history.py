"""History: every journal is read as it is, whatever its schema, its state and its owner."""

import os
import re
import shutil
import sqlite3
import threading
import time
from contextlib import closing

import pytest

from ipybatch.engine.store import history, schema
from ipybatch.engine.store.history import everywhere, look, read_runs
from ipybatch.engine.store.journal import Journal
from ipybatch.errors import JournalCorrupt, JournalError, JournalLocked


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder / "journal.db"


LATEST = len(schema.STEPS)


def write(path, steps=LATEST, **values):
    """Write a journal of that many steps with one run."""
    values = {"name": "night", "state": "running", "created_s": 100.0, "started_s": 110.0, **values}
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for step in schema.STEPS[:steps]:
            database.executescript(step)
        database.execute(f"PRAGMA user_version = {steps}")
        columns = {"resource": "r", "group_word": "Batch", **values}
        database.execute(
            f"INSERT INTO run ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", [*columns.values()]
        )


def runs(path, name=""):
    return look(path, lambda database, at: read_runs(database, None, name))


def names_in(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("steps", range(1, LATEST + 1))
def test_every_schema_is_understood_and_left_as_it_is(path, steps):
    write(path, steps, state="completed", seconds=30.0, completed=7, total=7)
    before = path.read_bytes()
    (run,) = runs(path)
    assert (run.name, run.state, run.seconds, run.completed, run.started_s) == ("night", "completed", 30.0, 7, 110.0)
    assert path.read_bytes() == before
    assert names_in(path.parent) == [path.name]


DEAD = {"owner": "host/1/dead", "beat_s": 150.0}


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({"begun_s": 140.0, "seconds": 30.0}, 40.0),  # resumed after 30 s
        ({"begun_s": 110.0}, 40.0),
        ({"begun_s": 160.0, "seconds": 30.0}, 30.0),  # the clock was set back
        ({"seconds": 30.0}, 30.0),  # of an older version: when it was resumed is not known
        ({}, 40.0),  # of an older version: its only start
        ({"begun_s": 110.0, "owner": None}, 40.0),
    ],
)
def test_what_its_process_left_is_interrupted_and_ran_up_to_its_last_sign_of_life(path, values, seconds):
    write(path, **DEAD | values)
    (run,) = runs(path)
    assert (run.state, run.seconds, run.where) == ("interrupted", seconds, "")


@pytest.mark.parametrize("state", ["running", "paused"])
def test_what_another_machine_runs_is_told_with_its_seconds(path, state):
    now_s = time.time()
    write(path, state=state, owner="host/17/other", beat_s=now_s, begun_s=now_s - 5, seconds=2.0)
    (run,) = runs(path)
    assert (run.state, round(run.seconds), run.where) == (state, 7, "in process 17 on host")


@pytest.mark.parametrize("state", ["planned", "completed", "failed", "cancelled", "rolled_back"])
def test_what_has_ended_or_never_began_stays_as_it_is(path, state):
    write(path, state=state, seconds=4.0, begun_s=110.0, beat_s=150.0)
    (run,) = runs(path)
    assert (run.state, run.seconds) == (state, 4.0)


def test_one_name_can_be_asked_for(path):
    write(path)
    assert len(runs(path, "night")) == 1
    assert runs(path, "day") == []


def test_what_is_forgotten_is_not_told(path):
    write(path, name="")
    assert runs(path) == []


@pytest.mark.parametrize(
    "odd",
    [{"completed": b"many"}, {"state": "asleep"}, {"beat_s": "noon", "begun_s": 1.0}, {"created_s": b"x"}],
    ids=str,
)
def test_a_damaged_run_is_told_and_keeps_nobody_from_the_others(path, caplog, odd):
    write(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for name in ("odd", "last"):
            about = {"name": name, "state": "running", "created_s": 1.0, "resource": "r", "group_word": "Batch"}
            about |= odd if name == "odd" else {}
            database.execute(
                f"INSERT INTO run ({', '.join(about)}) VALUES ({', '.join('?' * len(about))})", [*about.values()]
            )
    assert [run.name for run in runs(path)] == ["night", "last"]
    (told,) = caplog.messages
    assert re.fullmatch(rf"journal {path} is damaged \(\w+ in run 2\): restore it .*, or delete that run", told)


def test_an_empty_file_has_no_runs(path):
    """What a kill leaves between making the file and writing to it."""
    path.touch()
    assert runs(path) == []
    assert path.read_bytes() == b""


def test_what_is_only_in_the_log_is_read(path, patience):
    """A live journal's latest commits are in its log; a killed one's, too."""
    book = Journal(path)
    row = "'night', 'r', 'Batch', 'completed', 1.0"
    insert = f"INSERT INTO run (name, resource, group_word, state, created_s) VALUES ({row})"
    book.write(lambda database: database.execute(insert).rowcount)
    for file in path.parent.iterdir():
        shutil.copy(file, file.with_name(file.name.replace("journal", "killed")))
    assert [run.name for run in runs(path)] == ["night"]
    assert [run.name for run in runs(path.with_name("killed.db"))] == ["night"]
    book.close()


def test_a_journal_that_changes_while_it_is_read_is_read_again(path):
    write(path)
    asked = []

    def question(database, at):
        asked.append(len(read_runs(database, None)))
        if len(asked) == 1:
            with closing(sqlite3.connect(path)) as other:
                other.execute("UPDATE run SET state = 'completed'")
                other.commit()
        return read_runs(database, None)[0].state

    assert look(path, question) == "completed"
    assert asked == [1, 1]


def broken(path, what):
    """Make a journal that cannot be read; return what is told of it."""
    if what == "not there":
        return JournalError, "there is no journal"
    write(path)
    if what == "damaged":
        path.write_bytes(path.read_bytes()[:4096].ljust(path.stat().st_size, b"\xff"))
        return JournalCorrupt, "is damaged"
    if what == "other file":
        path.write_text("dear diary, " * 100)
        return JournalCorrupt, "is damaged"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        if what == "later":
            database.execute("PRAGMA user_version = 99")
            return JournalError, "was written by a later ipybatch: upgrade"
        database.execute("ALTER TABLE item RENAME TO other")
    return JournalCorrupt, "is not a journal of ours"


BROKEN = ["not there", "damaged", "other file", "later", "not ours"]


@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_be_read_is_told_in_a_sentence_and_left_as_it_is(path, what):
    kind, told = broken(path, what)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(kind, match=told) as raised:
        runs(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert (path.read_bytes() if path.exists() else None) == before
    assert names_in(path.parent) == ([path.name] if before else [])


def test_a_locked_journal_is_told_and_not_waited_for_long(path, monkeypatch):
    monkeypatch.setattr(history, "BUSY_S", 0.0)
    write(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(JournalLocked, match="is locked by another program: close it"):
            runs(path)


@pytest.mark.parametrize("what", BROKEN)
def test_one_that_cannot_be_read_keeps_nobody_from_the_others(path, tmp_path, what, caplog, patience):
    good = tmp_path / "good.db"
    write(good)
    Journal(good).close()
    Journal(path).close()
    path.unlink()
    _, told = broken(path, what)
    assert [(at, [run.name for run in found]) for at, found in everywhere(tmp_path / "none.db").items()] == [
        (good, ["night"])
    ]
    assert [record.getMessage() for record in caplog.records if told in record.getMessage()][1:] == []
    assert len(caplog.records) == (what != "not there"), "once, unless it is gone: then it is registered no more"
    assert not (tmp_path / "none.db").exists()


def test_a_journal_is_told_once(path, tmp_path, patience):
    """It may be registered, the default one, and be called by other names as well."""
    write(path)
    Journal(path).close()
    (tmp_path / "link.db").symlink_to(path)
    assert list(everywhere(tmp_path / "link.db")) == [path]


def test_a_journal_that_cannot_be_read_is_named_once(path, caplog, patience):
    """Though it is registered and the default one, too."""
    Journal(path).close()
    path.write_text("dear diary, " * 100)
    assert everywhere(path) == {}
    assert len(caplog.records) == 1


def test_what_runs_here_is_known_to_run_here(live, journal):
    hold = threading.Event()
    session = live(lambda item: hold.wait(20) and None, [1])
    session.start()
    ((run,),) = everywhere(journal).values()
    assert (run.state, run.where) == ("running", "in this kernel")
    hold.set()
    session.run()


@pytest.mark.parametrize("read", [runs, Journal, lambda path: history.jot(path, lambda _: None)])
def test_a_pipe_is_no_journal(path, read, patience):
    """SQLite would wait for ever for whoever writes to it."""
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # else this test waited, too
    try:
        with pytest.raises(JournalError, match="is no file: choose another"):
            read(path)
    finally:
        os.close(writer)


def test_what_ipybatch_did_not_write_is_told_in_a_sentence(path, caplog):
    write(path)

    def question(*_):
        msg = "what an item holds"
        raise ValueError(msg)

    for _ in range(3):
        with pytest.raises(JournalCorrupt, match=r"is damaged \(ValueError\): move it away"):
            look(path, question)
    assert len(caplog.records) == 1, "it is looked at every second"
