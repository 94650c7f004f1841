import itertools
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import JournalError
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store import schema
from ipybatch.engine.store.journal import Journal, Submission, default_path, open_journal, to_disk
from ipybatch.engine.store.journal_errors import is_busy, translated
from ipybatch.errors import JournalCorrupt, JournalFull, JournalLocked, JournalReadOnly

AS_NOBODY = """
import os, sys
from pathlib import Path
from ipybatch import JournalError
from ipybatch.engine.store.journal import Journal
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
try:
    Journal(Path(sys.argv[1]))
except JournalError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "journal.sqlite3"


@pytest.fixture
def book(path, patience):
    journal = Journal(path)
    journal.write(lambda database: database.execute("CREATE TABLE note (text TEXT UNIQUE)"))
    yield journal
    journal.close()


@pytest.fixture
def other(book):
    """Another connection, as another process has one: it holds the file's lock until it is rolled back."""
    connection = sqlite3.connect(book.path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


def put(text):
    return lambda database: database.execute("INSERT INTO note VALUES (?)", (text,)).rowcount


def notes(book):
    with book.reader() as database:
        return [text for (text,) in database.execute("SELECT text FROM note ORDER BY rowid")]


def raising(error):
    def unit(database):
        put("half done")(database)
        raise error

    return unit


class Acknowledged:
    """Keep what `done` is told, with what a reader saw at that moment."""

    def __init__(self, book):
        self.book = book
        self.told = []
        self.seen = []
        self.came = threading.Event()

    def __call__(self, result, error):
        self.told.append((result, error))
        self.seen.append(notes(self.book))
        self.came.set()

    def wait(self):
        assert self.came.wait(20), "nobody was told"
        return self.told[-1]


def test_what_is_acknowledged_is_on_disk(book):
    """A reader sees it at the moment of the acknowledgement, on either thread's way."""
    for size in (0, journals.LARGE + 1):
        done = Acknowledged(book)
        book.submit(put(f"size {size}"), done, size=size)
        assert done.wait() == (1, None)
        assert f"size {size}" in done.seen[0]


def test_nothing_is_acknowledged_before_its_commit(book, monkeypatch):
    """At the last moment before COMMIT nobody has been told."""
    told = []
    at_commit = []
    monkeypatch.setattr(journals, "on_commit", lambda place: at_commit.append((place, list(told))))
    book.submit(put("a"), lambda result, error: told.append(result))
    assert at_commit == [("before", []), ("after", [])]
    assert told == [1]


@pytest.fixture
def interruptible():
    """Let SIGINT raise, though whoever started the tests may have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted_at(event, call, times=1):
    """Call something with Ctrl-C at one of its lines, counted from 0; return whether it has so many."""
    left = event

    def trace(frame, what, _):
        nonlocal left
        if what == "line":
            left -= 1
            if left == -1:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
        return trace

    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return left < 0


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_at_any_line_leaves_the_journal_usable_and_nobody_untold(book, interruptible, times):
    """Of what goes with the commit that it meets, too: whoever waits for that is somebody else."""
    for line in itertools.count():
        told = Acknowledged(book)
        riders = [Submission(put(f"rider {line}"), told)]

        def take():
            taken, riders[:] = riders[:], []  # noqa: B023
            return taken

        book.before = [take]
        is_over = not interrupted_at(line, lambda: book.write(put(f"own {line}")), times)  # noqa: B023
        book.before = []
        book.write(put(f"after {line}"))
        assert (f"rider {line}" in notes(book)) is (not riders)
        if riders:  # nobody has taken it
            assert not told.told
        else:  # by the writer thread, perhaps
            assert told.wait() == (1, None)
        if is_over:
            break
    assert line > 20
    assert f"own {line}" in notes(book)


def test_what_interrupts_a_unit_leaves_no_transaction_open(book):
    """Nor does it end the writer thread, to which its neighbours are left."""
    rider = Acknowledged(book)
    riders = [Submission(put("rider"), rider)]
    book.before = [lambda: [riders.pop()] if riders else []]
    with pytest.raises(KeyboardInterrupt):
        book.write(raising(KeyboardInterrupt))
    assert rider.wait() == (1, None)
    book.write(put("after"))
    assert notes(book) == ["rider", "after"]


def test_what_may_take_long_does_not_keep_the_caller(book):
    """Large results are written by the writer thread."""
    threads = []
    done = threading.Event()

    def unit(database):
        threads.append(threading.current_thread().name)

    book.submit(unit, lambda *_: None)
    book.submit(unit, lambda *_: done.set(), size=journals.LARGE + 1)
    assert done.wait(20)
    assert threads == [threading.current_thread().name, "ipybatch-journal"]


def test_a_file_locked_elsewhere_does_not_block_the_caller(book, other):
    """The writer thread waits for the other process; the engine goes on, and is told in the end."""
    done = Acknowledged(book)
    started_s = time.monotonic()
    book.submit(put("patient"), done)
    assert time.monotonic() - started_s < 1.0
    assert not done.came.is_set()
    other.execute("ROLLBACK")
    assert done.wait() == (1, None)


def test_a_file_locked_for_too_long_says_so(book, other, monkeypatch):
    """After `BUSY_S` each waiting unit is refused, and told what to do; whoever is more patient still waits."""
    monkeypatch.setattr(journals, "BUSY_S", 0.05)
    monkeypatch.setattr(journals, "_ROUND_S", 0.05)
    patient = Acknowledged(book)
    book.submit(put("patient"), patient, patience_s=20)
    waiting = [Acknowledged(book) for _ in range(5)]
    for number, done in enumerate(waiting):
        book.submit(put(f"{number}"), done)
    errors = [done.wait()[1] for done in waiting]
    assert not patient.came.is_set()
    assert {type(error) for error in errors} == {JournalLocked}
    assert "is locked by another program: close it, then run the session again" in str(errors[0])
    assert is_busy(errors[0])
    other.execute("ROLLBACK")
    assert patient.wait() == (1, None)
    assert book.write(put("after")) == 1
    assert notes(book) == ["patient", "after"]


@pytest.mark.parametrize(
    "error", [sqlite3.IntegrityError("no"), ValueError("a bug"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no")]
)
@pytest.mark.parametrize("large", [False, True])
def test_one_failing_unit_does_not_spoil_its_neighbours(book, other, error, large):
    """Units that share a transaction are written one by one when one of them fails, whatever it raises."""
    size = journals.LARGE + 1 if large else 0
    tellings = [Acknowledged(book) for _ in range(3)]
    units = [put("first"), raising(error), put("third")]
    for unit, done in zip(units, tellings, strict=True):
        book.submit(unit, done, size=size)
    other.execute("ROLLBACK")  # all three were waiting: now they are one group
    first, second, third = (done.wait() for done in tellings)
    assert (first, third) == ((1, None), (1, None))
    assert isinstance(second[1], JournalError)
    assert notes(book) == ["first", "third"]


def test_what_is_left_of_a_group_that_failed_waits_for_another_program(book, monkeypatch):
    """For as long as each has patience: nobody is refused because the lock came between two of them."""
    monkeypatch.setattr(journals, "BUSY_S", 0.05)
    monkeypatch.setattr(journals, "_ROUND_S", 0.05)
    commit, came = book._commit_together, threading.Event()
    other = sqlite3.connect(book.path, isolation_level=None, check_same_thread=False)

    def lock_after_failure(group, *, wait_s):
        told = commit(group, wait_s=wait_s)
        if told is None and threading.current_thread() is book._thread and not came.is_set():
            other.execute("BEGIN IMMEDIATE")
            came.set()
        return told

    monkeypatch.setattr(book, "_commit_together", lock_after_failure)
    rider, hasty, failing = (Acknowledged(book) for _ in range(3))
    riders = [Submission(put("rider"), rider), Submission(put("hasty"), hasty, until_s=0.0)]
    book.before = [lambda: [riders.pop(0) for _ in riders[:]]]
    book.submit(raising(ValueError("a bug")), failing, patience_s=20)
    assert came.wait(20)
    assert isinstance(hasty.wait()[1], JournalLocked)
    assert not rider.told
    other.execute("ROLLBACK")
    other.close()
    assert rider.wait() == (1, None)
    assert "a bug" in str(failing.wait()[1])
    assert notes(book) == ["rider"]


def test_what_its_caller_cannot_write_goes_before_what_another_thread_submits_meanwhile(book, monkeypatch):
    commit, meanwhile = book._commit_together, []

    def refuse_once(group, *, wait_s):
        if not meanwhile:
            meanwhile.append(threading.Thread(target=lambda: book.write(put("second"))))
            meanwhile[0].start()
            while book._handed == book._taken:
                time.sleep(0.001)
            return None
        return commit(group, wait_s=wait_s)

    monkeypatch.setattr(book, "_commit_together", refuse_once)
    book.write(put("first"))
    meanwhile[0].join()
    assert notes(book) == ["first", "second"]


class Stalled:
    """A queue whose reader falls asleep with what it has just taken."""

    def __init__(self, inner):
        self._inner, self.has_taken, self.awake = inner, threading.Event(), threading.Event()

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def get(self):
        taken = self._inner.get()
        self.has_taken.set()
        self.awake.wait(20)
        return taken


def test_nothing_passes_what_the_writer_has_just_taken_off_the_queue(book):
    stalled, first, second = Stalled(book._queue), Acknowledged(book), Acknowledged(book)
    book._queue = stalled
    stalled.put(Submission(lambda database: None, lambda result, error: None))  # of the reader that does not stall
    book._handed += 1
    while book._handed != book._taken:
        time.sleep(0.001)
    book.submit(put("first"), first, size=journals.LARGE + 1)
    assert stalled.has_taken.wait(20)
    book.submit(put("second"), second)
    assert not second.told
    stalled.awake.set()
    assert (first.wait(), second.wait()) == ((1, None), (1, None))
    assert notes(book) == ["first", "second"]


def test_what_one_thread_takes_along_goes_before_what_another_submits_then(book):
    """However long the first one takes from having it to handing it over."""
    taken, others = threading.Event(), []
    riders = [Submission(put("rider"), lambda result, error: None)]

    def take():
        took = [riders.pop()] if riders else []
        if took:
            others.append(threading.Thread(target=lambda: (taken.set(), book.write(put("second")))))
            others[0].start()
            taken.wait(20)
            time.sleep(0.01)  # the other would pass now, if anything let it
        return took

    book.before = [take]
    book.write(put("first"))
    others[0].join()
    assert notes(book) == ["rider", "first", "second"]


def test_whoever_leaves_meanwhile_keeps_nobody_from_being_asked_what_goes_before(book):
    def leave():
        book.before.remove(leave)
        return []

    book.before = [leave, lambda: [Submission(put("rider"), lambda result, error: None)]]
    book.write(put("own"))
    assert notes(book) == ["rider", "own"]


@pytest.mark.parametrize("size", [0, journals.LARGE + 1])
def test_what_waits_to_go_with_something_is_written_at_the_close_and_what_comes_later_refused(path, size):
    book, told = Journal(path), []
    book.write(lambda database: database.execute("CREATE TABLE note (text TEXT UNIQUE)"))
    riders = [Submission(put("rider"), lambda result, error: told.append(error))]
    book.before = [lambda: [riders.pop()] if riders else []]
    book.close()
    book.submit(put("late"), lambda result, error: told.append(error), size=size)
    assert notes(book) == ["rider"]
    assert told[0] is None
    assert "was closed" in str(told[1])


def test_whoever_raises_when_it_is_told_keeps_nobody_else_untold(book):
    told = []

    def fail(result, error):
        raise ValueError("bad")

    riders = [Submission(put("rider"), fail)]
    book.before = [lambda: [riders.pop()] if riders else []]
    with pytest.raises(ValueError, match="bad"):
        book.submit(put("own"), lambda result, error: told.append(error))
    assert told == [None]
    assert notes(book) == ["rider", "own"]


@pytest.mark.parametrize("error", [sqlite3.IntegrityError("no"), ValueError("a bug"), OverflowError("2**70")])
def test_a_failing_unit_leaves_no_transaction_open(book, error):
    """What it wrote is rolled back, and the next unit is written as if nothing had been."""
    with pytest.raises(JournalError):
        book.write(raising(error))
    assert book.write(put("next")) == 1
    assert notes(book) == ["next"]


def test_who_is_told_may_write_at_once(book):
    """A listener that starts another session from within an acknowledgement must not stop everything."""
    wrote = []
    book.submit(put("first"), lambda result, error: wrote.append(book.write(put("from within"))))
    assert wrote == [1]
    assert notes(book) == ["first", "from within"]


def test_the_writer_outlives_whom_it_tells(book, caplog):
    """An acknowledgement that raises (its loop is closed) costs nobody else theirs."""

    def closed(result, error):
        msg = "Event loop is closed"
        raise RuntimeError(msg)

    book.submit(put("first"), closed, size=journals.LARGE + 1)
    done = Acknowledged(book)
    book.submit(put("second"), done, size=journals.LARGE + 1)
    assert done.wait() == (1, None)
    assert "Event loop is closed" in caplog.text


@given(sizes=st.lists(st.sampled_from([0, 0, 0, journals.LARGE + 1]), max_size=60))
def test_units_of_one_thread_are_all_written(tmp_path_factory, sizes):
    """Whichever way each takes: nothing is lost, nothing is written twice, and close() waits for all."""
    book = Journal(tmp_path_factory.mktemp("journal") / "j")
    book.write(lambda database: database.execute("CREATE TABLE note (text TEXT UNIQUE)"))
    told = []
    for number, size in enumerate(sizes):
        book.submit(put(str(number)), lambda result, error: told.append(error), size=size)
    book.close()
    assert told == [None] * len(sizes)
    with sqlite3.connect(book.path) as database:
        texts = [text for (text,) in database.execute("SELECT text FROM note")]
    database.close()
    assert sorted(texts, key=int) == [str(number) for number in range(len(sizes))]


def test_threads_may_submit_together(book):
    """Several sessions write to one journal: each unit once, each told once."""
    told = []

    def submit(first):
        for number in range(first, first + 200):
            book.submit(put(str(number)), lambda result, error: told.append(error), size=number % 3 * journals.LARGE)

    threads = [threading.Thread(target=submit, args=(first,)) for first in (0, 1000, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    book.write(put("last"))
    book.write(put("really last"))
    assert told == [None] * 600
    assert len(notes(book)) == 602


def test_the_log_file_does_not_grow_forever(book):
    """Checkpoints keep the write-ahead log at a few megabytes."""
    text = "x" * 3000
    for number in range(3000):
        book.submit(put(f"{number} {text}"), lambda *_: None)
    for number in range(2):  # the second one comes after the checkpoint that the first one called for
        done = Acknowledged(book)
        book.submit(put(f"large {number}"), done, size=journals.LARGE + 1)
        done.wait()
    wal = book.path.with_name(book.path.name + "-wal")
    assert wal.stat().st_size < journals.WAL_BYTES


def test_readers_see_what_was_committed_while_a_writer_writes(book, other):
    """Looking at the results never waits."""
    assert notes(book) == []


def test_the_file_is_for_its_owner_alone(book):
    """0600, and its companions too: results may be private."""
    book.write(put("x"))
    files = sorted(book.path.parent.iterdir())
    assert [file.name for file in files] == ["journal.sqlite3", "journal.sqlite3-shm", "journal.sqlite3-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_it_lies_where_the_environment_says(monkeypatch, tmp_path):
    """``IPYBATCH_JOURNAL`` moves it; without it, the user's data folder; an empty one counts as none."""
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(tmp_path / "here.db"))
    assert default_path() == tmp_path / "here.db"
    monkeypatch.setenv("IPYBATCH_JOURNAL", "")
    assert default_path() == platformdirs.user_data_path("ipybatch", appauthor=False) / "journal.sqlite3"


def test_a_home_in_its_path_is_understood(monkeypatch, tmp_path):
    """``~`` means the user's home, as in a shell."""
    monkeypatch.setenv("HOME", str(tmp_path))
    book = Journal(Path("~/mine.db"))
    book.close()
    assert book.path == tmp_path / "mine.db"


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def foreign_database(path, *, version=0):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE games (id INTEGER)")
        database.execute(f"PRAGMA user_version = {version}")
    database.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b"name,price\nPortal,9.99\n"),
        lambda path: path.write_bytes(b"SQLite format 3\0" + b"\x07" * 5000),
        lambda path: path.write_bytes(b"SQLite format 3\0"),
        foreign_database,
        lambda path: foreign_database(path, version=1),
    ],
    ids=["text", "damaged", "cut short", "another program's", "another program's with a version"],
)
def test_what_is_no_journal_is_left_byte_for_byte(tmp_path, make):
    """A wrong path never costs the user a file: it is refused and untouched, and nothing is put beside it."""
    make(tmp_path / "file.db")
    before = contents(tmp_path)
    with pytest.raises(JournalCorrupt, match=r"file\.db") as refused:
        Journal(tmp_path / "file.db")
    assert "move it away" in str(refused.value)
    assert contents(tmp_path) == before


def test_an_empty_file_becomes_a_journal(tmp_path):
    """What ``touch`` or mkstemp made holds nothing that could be lost."""
    (tmp_path / "j").touch()
    book = Journal(tmp_path / "j")
    with book.reader() as database:
        assert schema.version(database) == len(schema.STEPS)
    book.close()


def test_a_folder_is_no_journal(tmp_path):
    """Said in one line that names the variable."""
    with pytest.raises(JournalError, match="IPYBATCH_JOURNAL"):
        Journal(tmp_path)


def test_a_journal_of_version_0_is_migrated(path):
    """Whatever version a file has, it ends at the present one, its rows kept."""
    path.parent.mkdir()
    sqlite3.connect(path).close()
    Journal(path).close()
    again = Journal(path)
    with again.reader() as database:
        assert schema.version(database) == len(schema.STEPS)
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    again.close()
    assert tables >= {"run", "plan", "item", "payload", "attempt", "window", "resource"}


def test_migrations_are_steps_that_keep_what_is_there(path, monkeypatch):
    """A journal of today opens in a later version: each missing step runs once, in order."""
    book = Journal(path)
    book.write(lambda db: db.execute("INSERT INTO resource VALUES ('store', 5.0)").rowcount)
    book.close()
    later = (*schema.STEPS, "ALTER TABLE resource ADD COLUMN note TEXT DEFAULT 'kept'; CREATE TABLE more (a)")
    monkeypatch.setattr(schema, "STEPS", later)
    book = Journal(path)
    with book.reader() as database:
        assert database.execute("SELECT * FROM resource").fetchall() == [("store", 5.0, "kept")]
        assert schema.version(database) == len(later)
    book.close()


def test_usage_of_an_earlier_version_is_kept(path, monkeypatch):
    """Tokens may be unknown now; what was recorded stays as it was, and a later row may leave them out."""
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", schema.STEPS[:8])
        Journal(path).close()
    old = "INSERT INTO usage (at_s, session, lane, model, operation, project, status, tokens_in, usd) VALUES"
    with sqlite3.connect(path) as database:
        database.execute(f"{old} (1.0, 's', 'online', 'm', 'text', '', 'ok', 7, 0.5)")
    database.close()
    book = Journal(path)
    book.write(lambda db: db.execute(f"{old} (2.0, 's', 'online', 'm', 'text', '', 'ok', NULL, NULL)").rowcount)
    with book.reader() as database:
        rows = database.execute("SELECT tokens_in, tokens_out, usd, job, item FROM usage ORDER BY at_s").fetchall()
    book.close()
    assert rows == [(7, 0, 0.5, "", None), (None, None, None, "", None)]


def test_a_migration_that_fails_changes_nothing(path, monkeypatch):
    """A step is one transaction: half of it is never there."""
    Journal(path).close()
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, "CREATE TABLE more (a); CREATE TABLE more (a)"))
    with pytest.raises(JournalError, match="already exists"):
        Journal(path)
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT name FROM sqlite_master WHERE name = 'more'").fetchall() == []
        assert schema.version(database) == len(schema.STEPS) - 1
    database.close()


def test_a_journal_of_a_later_version_is_refused(path):
    """An older program must not write what it does not understand; the file stays as it was."""
    Journal(path).close()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {len(schema.STEPS) + 1}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match="was written by a later ipybatch: upgrade, or choose another journal="):
        Journal(path)
    assert path.read_bytes() == before


def as_nobody(path):
    """Open a journal as a user who may write nothing here; return how it was refused."""
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(path)], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def open_folder(tmp_path):
    """A folder that others may enter and read."""
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    return tmp_path


def test_a_read_only_file_is_refused_in_words(open_folder):
    """The message says which file, and how to choose another place."""
    path = open_folder / "journal.db"
    Journal(path).close()
    path.chmod(0o444)
    open_folder.chmod(0o555)
    before = path.read_bytes()
    said = as_nobody(path)
    open_folder.chmod(0o755)
    assert said.startswith("JournalReadOnly ")
    assert str(path) in said
    assert "set IPYBATCH_JOURNAL or journal= to a" in said
    assert path.read_bytes() == before


def test_a_read_only_folder_is_refused_in_words(open_folder):
    """A new journal cannot be made there, and nothing is left behind."""
    open_folder.chmod(0o555)
    said = as_nobody(open_folder / "journal.db")
    open_folder.chmod(0o755)
    assert said.startswith("JournalReadOnly ")
    assert list(open_folder.iterdir()) == []


def test_a_path_that_cannot_be_is_refused_in_words(tmp_path):
    """Its folder is a file: the user learns which path, and what to set."""
    (tmp_path / "file").touch()
    with pytest.raises(JournalReadOnly, match=r"file/journal.db cannot be written: .*; set IPYBATCH_JOURNAL"):
        Journal(tmp_path / "file" / "journal.db")


@pytest.mark.parametrize("spelt", ["text", "dots", "folder link", "file link", "hard link", "relative", "home"])
def test_a_process_has_one_journal_a_file(path, spelt, monkeypatch):
    """Sessions of one process share it, however its path is spelt."""
    book = open_journal(path)
    elsewhere = path.parent.parent / "elsewhere"
    elsewhere.mkdir()
    other = {
        "text": str(path),
        "dots": elsewhere / ".." / path.parent.name / "." / path.name,
        "folder link": elsewhere / "folder" / path.name,
        "file link": elsewhere / "link.db",
        "hard link": elsewhere / "hard.db",
        "relative": Path(path.parent.name) / path.name,
        "home": f"~/{path.name}",
    }[spelt]
    (elsewhere / "folder").symlink_to(path.parent)
    (elsewhere / "link.db").symlink_to(path)
    (elsewhere / "hard.db").hardlink_to(path)
    monkeypatch.chdir(path.parent.parent)
    monkeypatch.setenv("HOME", str(path.parent))
    assert open_journal(other) is book
    journals._open_journals.clear()
    book.close()


@pytest.mark.parametrize("what", ["deleted", "replaced", "log deleted"])
def test_a_journal_that_is_gone_is_not_read(path, tmp_path, what):
    """Whoever reads is told, and no empty file is made in its place."""
    book = Journal(path)
    book.write(lambda database: database.execute("INSERT INTO resource VALUES ('x', 1.0)").rowcount)
    if what == "log deleted":
        path.with_name(f"{path.name}-wal").unlink()
    elif what == "deleted":
        path.unlink()
    else:
        Journal(tmp_path / "copy").close()
        (tmp_path / "copy").replace(path)
    told = f"was {'deleted' if what == 'deleted' else 'replaced'} while it was in use: put it back, or make the session"
    with pytest.raises(JournalError, match=told), book.reader():
        pass
    with pytest.raises(JournalError, match=told):
        book.connect()
    assert path.exists() is (what != "deleted")
    book.close()


def test_a_journal_that_is_put_back_is_read_again(path):
    book = Journal(path)
    path.rename(path.with_suffix(".moved"))
    assert not book.is_there()
    path.with_suffix(".moved").rename(path)
    book.check_there()
    assert book.is_there()
    book.close()


def test_a_journal_of_an_older_version_keeps_its_runs_and_their_numbers(path, monkeypatch):
    """From this version on no number is given twice, not that of a run of which only items are left either."""
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", schema.STEPS[:4])
        Journal(path).close()
    with sqlite3.connect(path) as database:
        database.execute(
            "INSERT INTO run (name, resource, group_word, state, created_s) VALUES ('x', 'r', 'B', 'p', 5)"
        )
        database.execute(f"INSERT INTO payload VALUES ({7 << 40}, x'')")
    database.close()
    book = Journal(path)
    with book.reader() as database:
        assert database.execute("SELECT id, name, created_s, workload FROM run").fetchall() == [(1, "x", 5.0, "")]

    def make(db):
        return db.execute("INSERT INTO run (name, resource, group_word, state, created_s) VALUES ('y', '', '', '', 0)")

    by_position = "INSERT OR REPLACE INTO item VALUES (1, 'a', '', 'failed', 1, 0, 1, 0.0, 0.0, 'no', 0, '')"
    book.write(lambda db: db.execute(by_position).rowcount)  # as sessions of that version do, which may be running
    assert book.write(lambda db: make(db).lastrowid) == 8
    book.write(lambda db: db.execute("DELETE FROM run WHERE id = 8").rowcount)
    assert book.write(lambda db: make(db).lastrowid) == 9
    book.close()


@pytest.mark.parametrize("how", ["deleted", "replaced", "closed"])
def test_a_journal_that_is_gone_is_opened_anew(path, tmp_path, how):
    """A file the user deleted or restored from a copy is not written to behind its back."""
    first = open_journal(path)
    assert first.is_there()
    for end in ("-wal", "-shm") if how != "closed" else ():
        path.with_name(path.name + end).unlink()
    if how == "deleted":
        path.unlink()
    elif how == "replaced":
        Journal(tmp_path / "copy").close()
        (tmp_path / "copy").replace(path)
    assert first.is_there() is (how == "closed")
    first.close()
    second = open_journal(path)
    second.write(lambda database: database.execute("INSERT INTO resource VALUES ('x', 1.0)").rowcount)
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT name FROM resource").fetchall() == [("x",)]
    database.close()
    journals._open_journals.pop(path).close()


def test_a_kill_between_commits_loses_nothing_acknowledged(tmp_path):
    """``kill -9`` right after an acknowledgement: the row is there in the next process."""
    script = (
        "import os, sys; from pathlib import Path; from ipybatch.engine.store.journal import Journal\n"
        "book = Journal(Path(sys.argv[1]))\n"
        "for n in range(50): book.write(lambda db: db.execute('INSERT INTO resource VALUES (?, 0)', (str(n),)))\n"
        "print(n, flush=True); os.kill(os.getpid(), 9)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "j")], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout.strip()) == (-9, "49")
    book = Journal(tmp_path / "j")
    with book.reader() as database:
        assert database.execute("SELECT count(*) FROM resource").fetchone() == (50,)
    book.close()


def test_the_write_ahead_log_is_on_disk_when_it_returns(journal, monkeypatch):
    book = open_journal(journal)
    book.write(lambda database: database.execute("INSERT INTO resource VALUES ('a', 1.0)"))
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    to_disk(journal)
    assert synced == [journal.with_name(f"{journal.name}-wal").stat().st_ino]


def test_a_journal_without_one_is_on_disk_already(tmp_path):
    to_disk(tmp_path / "journal.db")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("SQLITE_FULL", JournalFull, "cannot grow (told): free some disk space"),
        ("SQLITE_IOERR_WRITE", JournalFull, "cannot grow (told): free some disk space"),
        ("SQLITE_BUSY_TIMEOUT", JournalLocked, "is locked by another program"),
        ("SQLITE_LOCKED", JournalLocked, "is locked by another program"),
        ("SQLITE_READONLY_DIRECTORY", JournalReadOnly, "is read-only: set IPYBATCH_JOURNAL"),
        ("SQLITE_CANTOPEN", JournalReadOnly, "is read-only: set IPYBATCH_JOURNAL"),
        ("SQLITE_PERM", JournalReadOnly, "is read-only: set IPYBATCH_JOURNAL"),
        ("SQLITE_CORRUPT_INDEX", JournalCorrupt, "is damaged (told): move it away"),
        ("SQLITE_NOTADB", JournalCorrupt, "is damaged (told): move it away"),
        ("SQLITE_MISUSE", JournalError, ": told"),
        (None, JournalError, ": told"),
    ],
)
def test_an_error_of_sqlite_says_what_to_do(path, name, kind, words):
    """By its name, whatever its text says; each names the file."""
    error = sqlite3.OperationalError("told")
    if name is not None:
        error.sqlite_errorname = name
    with pytest.raises(JournalError) as refused, translated(path):
        raise error
    assert type(refused.value) is kind
    assert str(refused.value).startswith(f"journal {path}")
    assert words in str(refused.value)
    assert refused.value.__cause__ is error


def test_an_error_of_a_unit_is_told_with_its_cause(book):
    """It is our own mistake: its type is told, and where it came from."""
    error = KeyError("seq")
    with pytest.raises(JournalError) as refused:
        book.write(raising(error))
    assert str(refused.value) == f"journal {book.path}: KeyError: 'seq'"
    assert refused.value.__cause__ is error
