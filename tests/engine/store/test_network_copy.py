"""Network copy: a journal on a network file system lies on a local disk, and nothing is lost between the two."""

import fcntl
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import ipybatch
from ipybatch import BatchSession
from ipybatch.engine.store import history, network_copy
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store.journal import Journal, open_journal
from ipybatch.errors import JournalError, JournalLocked, JournalReadOnly

DISK = "/dev/sda1 / ext4 rw 0 0"
INSERT = "INSERT INTO run (name, resource, group_word, state, created_s) VALUES (?, 'r', 'Batch', 'completed', 1.0)"


@pytest.fixture
def mounts(monkeypatch, tmp_path):
    """Say what is mounted where."""
    read_text = Path.read_text

    def set_mounts(*lines):
        monkeypatch.setattr(
            Path,
            "read_text",
            lambda self, *a, **k: "\n".join(lines) if str(self) == "/proc/self/mounts" else read_text(self, *a, **k),
        )

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    return set_mounts


@pytest.fixture
def asked(mounts, tmp_path):
    """A journal's path in a home folder on NFS."""
    mounts(DISK, f"server:/net {tmp_path / 'net'} nfs4 rw 0 0")
    return tmp_path / "net" / "me" / "night.db"


@pytest.fixture
def on(monkeypatch, tmp_path, patience):
    """Be on a machine, with a disk of its own; what was opened on the one before is closed there."""
    made = []

    def leave_for(machine):
        leave()
        move(machine)

    def move(machine):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / machine))
        monkeypatch.setattr("socket.gethostname", lambda: machine)

    def leave():
        for journal in [*made, *journals._open_journals.values()]:
            if not journal._closed:
                journal.close()
        made.clear()
        journals._open_journals.clear()

    def opened(path):
        made.append(Journal(path))
        return made[-1]

    leave_for.open = opened
    leave_for.leave = leave
    leave_for.move = move
    yield leave_for
    leave()


def put(book, *names):
    for name in names:
        book.write(lambda database, name=name: database.execute(INSERT, (name,)).rowcount)


def names(book):
    with book.reader() as database:
        return [name for (name,) in database.execute("SELECT name FROM run ORDER BY id")]


def names_at(path):
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
        return [name for (name,) in database.execute("SELECT name FROM run ORDER BY id")]


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p", "lustre", "gpfs", "fuse.gcsfuse"])
def test_a_journal_on_a_network_file_system_lies_on_local_disk(mounts, on, tmp_path, kind):
    home = tmp_path / "home"
    mounts(DISK, f"server:/home {home} {kind} rw 0 0")
    book = on.open(home / "me" / "journal.db")
    assert book.path.is_relative_to(tmp_path / "state")
    assert not home.exists(), "nothing is written there while it is in use"
    assert str(book.path) in book.network_copy.note
    assert str(home / "me" / "journal.db") in book.network_copy.note


def test_two_journals_of_a_network_file_system_stay_two(mounts, on, tmp_path):
    """Two projects call theirs journal.db: each keeps its own."""
    mounts(f"server:/home {tmp_path / 'home'} nfs rw 0 0")
    assert on.open(tmp_path / "home/a/journal.db").path != on.open(tmp_path / "home/b/journal.db").path


def test_a_mount_with_a_space_in_its_name_is_found(mounts, on, tmp_path):
    r"""The kernel writes a space as \040."""
    mounts(rf"server:/x {tmp_path}/my\040files nfs rw 0 0")
    assert on.open(tmp_path / "my files" / "journal.db").network_copy is not None


def test_a_local_disk_inside_a_network_file_system_is_local(mounts, on, tmp_path):
    """The nearest mount decides."""
    mounts(f"server:/home {tmp_path} nfs rw 0 0", f"/dev/sdb1 {tmp_path}/scratch ext4 rw 0 0")
    book = on.open(tmp_path / "scratch" / "journal.db")
    assert (book.path, book.network_copy) == (tmp_path / "scratch" / "journal.db", None)


@pytest.fixture
def shared(monkeypatch, tmp_path):
    """Folders that all users share, in place of /var/tmp and /tmp."""
    for name in ("var", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(
        network_copy, "Path", lambda *parts: Path(*parts) if parts != ("/var/tmp",) else tmp_path / "var"
    )
    monkeypatch.setattr(network_copy.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    return f"ipybatch-{os.geteuid()}"


@pytest.mark.parametrize("places", ["net > state", "net state > var", "net state var > tmp", "net state tmp > var"])
def test_the_home_is_in_the_first_folder_that_is_itself_local(mounts, on, tmp_path, shared, places):
    """``~/.local/state`` is often on the same network file system as the rest of the home folder."""
    network, where = places.split(" > ")
    mounts(DISK, *(f"server:/{name} {tmp_path / name} nfs4 rw 0 0" for name in network.split()))
    book = on.open(tmp_path / "net" / "journal.db")
    assert book.path.parent == tmp_path / where / ("ipybatch" if where == "state" else shared)
    assert stat.S_IMODE(book.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(book.path.stat().st_mode) == 0o600


def test_a_link_to_a_network_file_system_is_not_local(mounts, on, tmp_path, shared):
    (tmp_path / "net").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "net")
    mounts(DISK, f"server:/net {tmp_path / 'net'} nfs rw 0 0")
    assert on.open(tmp_path / "net" / "journal.db").path.is_relative_to(tmp_path / "var")


@pytest.mark.parametrize("what", ["link", "writable by all", "another's", "file"])
def test_a_folder_that_others_may_have_made_is_not_used(mounts, on, tmp_path, shared, what):
    if what == "another's" and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    own = tmp_path / "var" / shared
    if what == "link":
        (tmp_path / "theirs").mkdir()
        own.symlink_to(tmp_path / "theirs")
    elif what == "file":
        own.touch()
    else:
        own.mkdir()
        own.chmod(0o777 if what == "writable by all" else 0o700)
        if what == "another's":
            os.chown(own, 12345, -1)
    mounts(DISK, *(f"server:/{name} {tmp_path / name} nfs4 rw 0 0" for name in ("net", "state")))
    assert on.open(tmp_path / "net" / "journal.db").path.parent == tmp_path / "tmp" / shared


def test_without_any_local_folder_it_is_refused_in_a_sentence(mounts, on, tmp_path, shared):
    mounts(f"server:/ {tmp_path} nfs4 rw 0 0")
    path = tmp_path / "net" / "journal.db"
    told = r"night.db|journal.db is on a network file system \(nfs4\), which could damage it, and no local folder was"
    with pytest.raises(JournalError, match=told) as raised:
        BatchSession("night", str, [1], journal=path)
    assert "set IPYBATCH_JOURNAL or journal= to a place on a local disk" in str(raised.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tmp", "var"]


def test_what_is_recorded_is_copied_where_it_was_asked_for(asked, on):
    """Another machine goes on with it, and the first one with what that did."""
    on("ant")
    put(on.open(asked), "one")
    on("bee")
    assert names_at(asked) == ["one"]
    book = on.open(asked)
    assert names(book) == ["one"]
    put(book, "two")
    on("ant")
    book = on.open(asked)
    assert names(book) == ["one", "two"]
    put(book, "three")
    on.leave()
    assert names_at(asked) == ["one", "two", "three"]
    assert [file.name for file in asked.parent.iterdir()] == [asked.name], "no drafts, no logs"
    assert asked.read_bytes()[18:20] == b"\1\1", "not in WAL: who opens it there needs no shared memory"
    assert stat.S_IMODE(asked.stat().st_mode) == 0o600


def test_what_was_only_read_here_is_not_taken_for_a_change(asked, on, tmp_path):
    """SQLite counts copies in the file's head: that is no record."""
    put(on.open(tmp_path / "other.db"), "one")
    on("ant")
    asked.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "other.db", asked)
    for number in range(3):
        on("bee")
        assert len(names(on.open(asked))) == 1 + number
        on("ant")
        put(on.open(asked), "more")
    on.leave()
    assert [file.name for file in asked.parent.iterdir()] == [asked.name]


def test_a_copy_that_nobody_changed_is_left_alone(asked, on):
    on("ant")
    put(on.open(asked), "one")
    on("ant")
    before = asked.stat()
    for _ in range(2):
        assert names(on.open(asked)) == ["one"]
        on("ant")
    assert asked.stat() == before


@pytest.mark.parametrize("log", ["none", "live", "left"])
def test_a_journal_that_was_there_is_copied_in(asked, on, tmp_path, log):
    """Whether an earlier version wrote it, or it was put there; with the log that a crash left beside it."""
    book = on.open(tmp_path / "other.db")
    put(book, "one")
    asked.parent.mkdir(parents=True)
    if log == "none":
        book.close()
        shutil.copy(book.path, asked)
    for part in ("", "-wal", "-shm") if log != "none" else ():
        shutil.copy(f"{book.path}{part}", f"{asked}{part}")
    if log == "live":
        asked.with_name(f"{asked.name}-shm").unlink()
    assert names(on.open(asked)) == ["one"]


def test_what_an_earlier_version_moved_to_a_network_file_system_is_found(mounts, on, tmp_path, shared):
    """It took the state folder for local: what is there goes on in a place that is."""
    mounts(DISK, f"server:/net {tmp_path / 'net'} nfs4 rw 0 0")
    path = tmp_path / "net" / "journal.db"
    put(on.open(path), "one")
    on.leave()
    path.unlink()
    for file in (tmp_path / "state" / "ipybatch").glob("*.copied"):
        file.unlink()
    mounts(DISK, *(f"server:/{name} {tmp_path / name} nfs4 rw 0 0" for name in ("net", "state")))
    book = on.open(path)
    assert book.path.is_relative_to(tmp_path / "var")
    assert names(book) == ["one"]
    on.leave()
    assert names_at(path) == ["one"]


def test_what_a_kill_kept_from_the_copy_is_copied_later(asked, on, tmp_path):
    """The home has it: the next process on this machine goes on there, and copies it."""
    on("ant")
    put(on.open(asked), "one")
    on("ant")
    book = on.open(asked)
    put(book, "two")
    shutil.copytree(tmp_path / "ant", tmp_path / "killed")
    copy = asked.read_bytes()
    on.leave()
    asked.write_bytes(copy)
    on("killed")
    assert names(on.open(asked)) == ["one", "two"]
    on.leave()
    assert names_at(asked) == ["one", "two"]
    assert [file.name for file in asked.parent.iterdir()] == [asked.name]


def test_a_kill_at_the_end_of_a_copy_parts_nobody(asked, on, monkeypatch):
    """What is there is known to be ours, though the home has gone on since."""
    on("ant")
    put(on.open(asked), "one")
    on("ant")
    put_there = network_copy._put

    def die(*arguments):
        put_there(*arguments)
        raise OSError(4, "killed")

    monkeypatch.setattr(network_copy, "_put", die)
    put(on.open(asked), "two")
    on("ant")
    monkeypatch.setattr(network_copy, "_put", put_there)
    with closing(sqlite3.connect(network_copy.home_of(asked))) as database:
        database.execute(INSERT, ("three",))
        database.commit()
    assert names_at(asked) == ["one", "two"]
    assert names(on.open(asked)) == ["one", "two", "three"]
    on.leave()
    assert names_at(asked) == ["one", "two", "three"]
    assert [file.name for file in asked.parent.iterdir()] == [asked.name]


def two_machines(asked, on):
    """Let both machines record something that the other has not seen."""
    on("ant")
    put(on.open(asked), "common")
    on("bee")
    bee = on.open(asked)
    put(bee, "bee's")
    folder = bee.path.parent
    shutil.copytree(folder, folder.with_name("kept"))
    before = asked.read_bytes(), asked.stat()
    on.leave()
    shutil.rmtree(folder)
    folder.with_name("kept").rename(folder)  # a kill: bee's is not copied
    asked.write_bytes(before[0])
    os.utime(asked, ns=(before[1].st_atime_ns, before[1].st_mtime_ns))
    on("ant")
    put(on.open(asked), "ant's")
    on.leave()
    assert names_at(asked) == ["common", "ant's"]


def test_what_two_machines_recorded_is_both_kept(asked, on, caplog):
    two_machines(asked, on)
    on("bee")
    book = on.open(asked)
    assert names(book) == ["common", "bee's"]
    own = asked.with_name("night-bee.db")
    assert f"its copy is {own}, as {asked} has what another machine recorded meanwhile: move" in book.network_copy.note
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    put(book, "more")
    on.leave()
    assert names_at(asked) == ["common", "ant's"]
    assert names_at(own) == ["common", "bee's", "more"]
    on("bee")
    book = on.open(asked)
    assert names(book) == ["common", "bee's", "more"], "it stays apart"
    assert str(own) in book.network_copy.note
    home = book.path
    on.leave()
    home.unlink()
    on("bee")
    (home.parent / f"{home.name}.copied").unlink()
    assert names(on.open(asked)) == ["common", "ant's"], "what the note says to go on with the other's"


def test_what_changed_on_another_machine_meanwhile_is_not_written_over(asked, on, tmp_path):
    """Both are in use at once; each at its end finds what the other left."""
    on("ant")
    put(on.open(asked), "common")
    on("bee")
    bee = on.open(asked)
    put(bee, "bee's")
    theirs = tmp_path / "theirs.db"
    shutil.copy(asked, theirs)
    with closing(sqlite3.connect(theirs)) as database:
        database.execute(INSERT, ("ant's",))
        database.commit()
    theirs.replace(asked)  # as ant's copying does
    on.leave()
    assert names_at(asked) == ["common", "ant's"]
    assert names_at(asked.with_name("night-bee.db")) == ["common", "bee's"]


def test_what_changes_in_the_midst_of_copying_is_not_written_over(asked, on, monkeypatch, tmp_path, caplog):
    """It is found before the draft takes its place, and the two part when it is tried again."""
    on("ant")
    put(on.open(asked), "common")
    on("bee")
    put(on.open(asked), "bee's")
    copy = shutil.copyfileobj

    def meanwhile(*arguments):
        copy(*arguments)
        with closing(sqlite3.connect(asked)) as database:
            database.execute(INSERT, ("ant's",))
            database.commit()

    monkeypatch.setattr(network_copy.shutil, "copyfileobj", meanwhile)
    on("bee")
    monkeypatch.setattr(network_copy.shutil, "copyfileobj", copy)
    assert "was changed just now" in caplog.text
    assert [file.name for file in asked.parent.iterdir()] == [asked.name], "no draft is left"
    put(on.open(asked), "more")
    on.leave()
    assert names_at(asked) == ["common", "ant's"]
    assert names_at(asked.with_name("night-bee.db")) == ["common", "bee's", "more"]


def test_a_closed_journal_lets_its_home_go(asked, on):
    on("ant")
    home = on.open(asked).path
    on.leave()
    with home.with_name(f"{home.name}.in-use").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_name_that_is_taken_is_not_written_over(asked, on):
    two_machines(asked, on)
    taken = asked.with_name("night-bee.db")
    taken.write_text("mine")
    on("bee")
    on.open(asked)
    on.leave()
    assert taken.read_text() == "mine"
    assert names_at(asked.with_name("night-bee2.db")) == ["common", "bee's"]


def test_a_copy_that_was_only_touched_has_not_changed(asked, on):
    """A restored backup, another server: its stamp differs, and what it holds does not."""
    on("ant")
    put(on.open(asked), "one")
    on("ant")
    book = on.open(asked)
    put(book, "two")
    shutil.copy(asked, asked.with_name("again"))
    asked.with_name("again").replace(asked)
    os.utime(asked, (1, 1))
    on.leave()
    assert names_at(asked) == ["one", "two"]
    assert [file.name for file in asked.parent.iterdir()] == [asked.name]


def test_a_kernel_that_stays_open_takes_over_what_another_machine_did(asked, on):
    """At its next session, if it has recorded nothing since its copy."""
    on("ant")
    put(open_journal(asked), "one")
    journal = open_journal(asked)
    journal.network_copy.copy_back()
    theirs = asked.with_name("theirs")
    shutil.copy(asked, theirs)
    with closing(sqlite3.connect(theirs)) as database:
        database.execute(INSERT, ("two",))
        database.commit()
    theirs.replace(asked)
    assert open_journal(asked) is journal
    assert names(journal) == ["one", "two"]
    put(journal, "three")
    on.leave()
    assert names_at(asked) == ["one", "two", "three"]


def test_a_home_that_another_process_has_open_is_not_changed_under_it(asked, on, monkeypatch):
    on("ant")
    put(on.open(asked), "one")
    on("bee")
    put(on.open(asked), "two")
    on("ant")
    home = network_copy.home_of(asked)
    lock = f"file = open({f'{home}.in-use'!r}); fcntl.flock(file, fcntl.LOCK_SH)"
    code = f"import fcntl; {lock}; print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert names(on.open(asked)) == ["one"]
        on.leave()
        other.communicate(b"\n")
    assert names_at(asked) == ["one", "two"]
    assert names(on.open(asked)) == ["one", "two"]


@pytest.mark.parametrize("what", ["other file", "other database", "later"])
def test_a_copy_that_is_no_journal_is_refused_and_left_as_it_is(asked, on, what):
    on("ant")
    put(on.open(asked), "one")
    on.leave()
    if what == "other file":
        asked.write_text("dear diary, " * 100)
    else:
        with closing(sqlite3.connect(asked)) as database:
            database.execute("PRAGMA user_version = 99" if what == "later" else "ALTER TABLE item RENAME TO other")
            database.commit()
    before = asked.read_bytes()
    with pytest.raises(JournalError, match=r"later ipybatch|not a journal of ours|damaged") as raised:
        on.open(asked)
    assert str(asked) in str(raised.value)
    assert asked.read_bytes() == before
    asked.unlink()
    assert names(on.open(asked)) == ["one"], "the home has all of it"


def test_a_copy_that_is_written_all_the_time_is_refused(asked, on, monkeypatch):
    asked.parent.mkdir(parents=True)
    asked.touch()
    stamps = iter(range(1000))
    monkeypatch.setattr(network_copy, "_stamp", lambda path: (next(stamps), 0, 0) if path == asked else None)
    with pytest.raises(JournalLocked, match=r"night\.db is written all the time, on another machine"):
        on.open(asked)


@pytest.mark.parametrize("what", ["folder is a file", "another machine is copying"])
def test_a_copy_that_cannot_be_written_fails_no_session(asked, on, what, caplog):
    """It is told in the log, and made up for at the next use."""
    on("ant")
    beside = asked.with_name(f".{asked.name}.copying")
    if what == "folder is a file":
        asked.parent.parent.mkdir()
        asked.parent.touch()
    else:
        asked.parent.mkdir(parents=True)
        beside.touch()
    put(on.open(asked), "one")
    on.leave()
    assert "it is tried again when it is used next" in caplog.text
    (asked.parent if what == "folder is a file" else beside).unlink()
    on("ant")
    assert names(on.open(asked)) == ["one"]
    on.leave()
    assert names_at(asked) == ["one"]


def test_a_draft_that_a_crash_left_is_in_nobodys_way(asked, on):
    on("ant")
    asked.parent.mkdir(parents=True)
    beside = asked.with_name(f".{asked.name}.copying")
    beside.touch()
    os.utime(beside, (1, 1))
    put(on.open(asked), "one")
    on.leave()
    assert names_at(asked) == ["one"]
    assert not beside.exists()


def test_a_network_that_is_down_keeps_nobody_from_the_home(asked, on, monkeypatch, tmp_path):
    on("ant")
    put(on.open(asked), "one")
    on("ant")
    stamp = network_copy._stamp

    def down(path):
        if path.is_relative_to(asked.parent):
            raise OSError(116, "Stale file handle")
        return stamp(path)

    monkeypatch.setattr(network_copy, "_stamp", down)
    journal = open_journal(asked)
    assert names(journal) == ["one"]
    assert open_journal(asked) is journal
    on.leave()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    with pytest.raises(JournalReadOnly):
        on.open(asked)


async def work(item):
    return item


def test_a_session_is_copied_when_it_has_ended(asked, on, plan, clock, monkeypatch):
    """Without a session of this process in it, it is at rest; a session told where it lies says so in a note."""
    monkeypatch.setattr(network_copy, "REST_S", 0.0)
    session = plan(work, [1, 2], journal=asked)
    assert [note for note in session.snapshot.notes if "is its copy whenever nothing runs" in note]
    clock.run(session)
    journal = open_journal(asked)
    assert session.journal == journal.path
    journal.network_copy._timer.join(20)
    assert names_at(asked) == ["wishlist"]
    assert ipybatch.history(asked)["state"].tolist() == ["completed"]


def test_another_machine_goes_on_where_the_first_one_ended(asked, on, plan, clock):
    called = []

    async def count(item):
        called.append(item)
        return item

    on("ant")
    clock.run(plan(count, [1, 2], journal=asked))
    on("bee")
    clock.run(plan(count, [1, 2, 3], journal=asked))
    on("ant")
    session = plan(count, [1, 2, 3, 4], journal=asked)
    clock.run(session)
    assert called == [1, 2, 3, 4]
    assert session.results()["result"].tolist() == [1, 2, 3, 4]


def test_history_everywhere_calls_it_what_it_was_asked_for_by(asked, on, plan, clock, tmp_path):
    """On a machine that has not opened it, the copy is read."""
    on("ant")
    clock.run(plan(work, [1], journal=asked))
    assert ipybatch.history(tmp_path / "none.db", everywhere=True)["journal"].tolist() == [str(asked)]
    on("bee")
    assert [run.name for run in history.look_for_runs(asked)] == ["wishlist"]
    assert not (tmp_path / "bee").exists()
    assert [file.name for file in asked.parent.iterdir()] == [asked.name]


EXITS = """
import sys
from pathlib import Path
from ipybatch.engine.store import network_copy
from ipybatch import BatchSession
network_copy._file_system = lambda path: "nfs" if "/net/" in str(path) else "ext4"
BatchSession("night", str, [1], journal=sys.argv[1]).run()
assert not Path(sys.argv[1]).exists(), "it is copied in a moment"
"""


def test_at_its_end_a_process_copies_what_changed(asked, on):
    subprocess.run([sys.executable, "-c", EXITS, str(asked)], check=True, timeout=60)
    assert names_at(asked) == ["night"]


class Machines:
    """Three machines that use one journal as they like, all at once, and what each has recorded in it."""

    def __init__(self, asked, on, monkeypatch, rng):
        self.asked, self.on, self.monkeypatch, self.rng = asked, on, monkeypatch, rng
        self.recorded, self.opened, self.put_there = {}, {}, network_copy._put

    def go_to(self, machine):
        self.on.move(machine)
        book = self.opened.get(machine) or self.opened.setdefault(machine, self.on.open(self.asked))
        assert set(self.recorded.setdefault(machine, [])) <= set(names(book))
        return book

    def leave(self, machine, put_there=None):
        self.monkeypatch.setattr(network_copy, "_put", put_there or self.put_there)
        self.opened.pop(machine).close()
        self.monkeypatch.setattr(network_copy, "_put", self.put_there)

    def killed(self, *arguments):
        if self.rng.random() < 0.5:
            self.put_there(*arguments)
        raise OSError(4, "killed")

    def step(self, number):
        machine = self.rng.choice(["ant", "bee", "cat"])
        book = self.go_to(machine)
        for record in range(self.rng.randrange(3)):
            self.recorded[machine].append(f"{machine} {number}.{record}")
            put(book, self.recorded[machine][-1])
        end = self.rng.choice(["leave", "kill", "copy", "refresh", "touch", "go on"])
        if end in ("leave", "kill"):
            self.leave(machine, self.killed if end == "kill" else None)
        elif end == "copy":
            book.network_copy.copy_back()
        elif end == "refresh":
            book.refresh()
        elif end == "touch" and self.asked.exists():
            os.utime(self.asked, (number, number))


@pytest.mark.parametrize("seed", range(int(os.environ.get("NETWORK_COPY_SEEDS", "6"))))
def test_whatever_three_machines_do_no_record_is_lost(asked, on, monkeypatch, seed):
    """Each always finds its own records; in the end all of them are where the journal was asked for."""
    machines = Machines(asked, on, monkeypatch, random.Random(seed))
    for number in range(30):
        machines.step(number)
    for machine in machines.recorded:
        machines.go_to(machine)
        machines.leave(machine)
    kept = {name for file in asked.parent.iterdir() for name in names_at(file)}
    assert kept >= {name for own in machines.recorded.values() for name in own}
