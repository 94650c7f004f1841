"""A journal that is full, locked, damaged or not to be written: which of them is said, and the file is left alone."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from ipybatch import BatchSession, JournalError, Limits
from ipybatch.engine.store import lease
from ipybatch.errors import JournalCorrupt, JournalLocked, JournalReadOnly
from tests.chaos.rounds import ROOT, Rounds


async def same(item):
    return item


def test_a_full_disk_ends_the_session_and_a_later_run_goes_on(tmp_path):
    """What was acknowledged stays; with room again, the rest is done and nothing recorded is asked for again."""
    with Rounds(tmp_path / "journal.db", ids=300, concurrency=4) as rounds:
        returncode, said = rounds.run(room_bytes=300_000)
        assert returncode == 0
        assert "victim failed" in said[-1]
        assert "cannot grow" in said[-1]
        assert "free some disk space, then run the session again" in said[-1]
        assert 0 < len(rounds.recorded()) < 300
        rounds.check_complete()


@pytest.mark.parametrize("damage", ["another file", "header", "middle", "half"])
def test_a_damaged_journal_is_named_and_left_as_it_is(live, journal, damage):
    """The error says that it is damaged and what to do; not one byte is changed."""
    if damage == "another file":
        journal.write_text("key,name\n440,Team Fortress 2\n")
    else:
        build(journal)
        data = bytearray(journal.read_bytes())
        if damage == "header":
            data[:16] = b"not a database!!"
        elif damage == "middle":
            data[4096 * 2 : 4096 * 12] = os.urandom(4096 * 10)
        else:
            del data[len(data) // 2 :]
        journal.write_bytes(data)
    before = journal.read_bytes()
    with pytest.raises(JournalCorrupt, match=r"damaged|not a journal of ours") as caught:
        live(same, list(range(600)), name="recorded").run()
    assert str(journal) in str(caught.value)
    assert "move it away" in str(caught.value)
    assert journal.read_bytes() == before


def build(journal):
    """Record 500 items in a process of their own, so that this one has nothing open."""
    code = (
        "import sys; from ipybatch import BatchSession\n"
        "async def work(item): return {'text': str(item) * 50}\n"
        "BatchSession('recorded', work, list(range(500)), journal=sys.argv[1]).run()\n"
        "import sqlite3; sqlite3.connect(sys.argv[1]).execute('PRAGMA wal_checkpoint(TRUNCATE)')"
    )
    subprocess.run([sys.executable, "-c", code, str(journal)], check=True, cwd=ROOT)


def test_a_journal_of_a_later_version_is_refused(live, journal):
    build(journal)
    with sqlite3.connect(journal) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(JournalError, match="written by a later ipybatch: upgrade"):
        live(same, [1])


def test_a_live_session_of_the_same_name_locks_it_in_this_kernel(live):
    hold = threading.Event()
    first = live(lambda item: hold.wait(20) and None, [1])
    first.start()
    second = live(same, [1, 2])
    with pytest.raises(JournalLocked, match=r"'wishlist' is already running in this kernel: cancel it there first"):
        second.start()
    hold.set()
    assert first.run().counts.completed == 1
    assert second.run().counts.completed == 2


def test_a_live_session_of_the_same_name_locks_it_from_another_process(live, journal):
    code = (
        "import sys, threading; from ipybatch import BatchSession\n"
        "BatchSession('wishlist', lambda item: print(item, flush=True) or threading.Event().wait(), ['here'],"
        " journal=sys.argv[1]).start()\n"
        "threading.Event().wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(journal)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as owner:
        assert owner.stdout.readline() == "here\n"
        with pytest.raises(JournalLocked, match=f"already running in process {owner.pid} on"):
            live(same, ["here"]).start()
        owner.kill()
        owner.wait()
        assert live(same, ["here"]).run().counts.completed == 1


def test_another_name_is_not_locked(live):
    hold = threading.Event()
    first = live(lambda item: hold.wait(20) and None, [1])
    first.start()
    assert live(same, [1], name="other").run().counts.completed == 1
    hold.set()


@pytest.mark.chaos
def test_a_program_that_holds_the_file_is_named_as_the_cause(live, journal, monkeypatch):
    """Somebody's database browser with an open transaction: a start waits (half a minute, here less), then says so."""
    monkeypatch.setattr(lease, "PATIENCE_S", 1.0)
    live(same, [1]).run()
    browser = sqlite3.connect(journal, isolation_level=None)
    browser.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalLocked, match="locked by another program: close it, then run the session again"):
        live(same, [1, 2]).run()
    browser.execute("ROLLBACK")
    browser.close()
    assert live(same, [1, 2]).run().counts.completed == 2


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_journal_that_cannot_be_written_is_refused(what):
    """Read-only file or folder: the message says which, and how to choose another place."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    journal = folder / "journal.db"
    if what == "file":
        build(journal)
        journal.chmod(0o444)
        folder.chmod(0o777)
    child = os.fork()
    if not child:  # root may write anything: try it as somebody else
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            else:
                folder.chmod(0o555)
            BatchSession("recorded", same, [1], journal=journal)
        except JournalReadOnly as error:
            os._exit(0 if "IPYBATCH_JOURNAL or journal= to a writable place" in str(error) else 2)
        except BaseException:  # told by the status
            os._exit(3)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    folder.chmod(0o755)
    shutil.rmtree(folder)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_the_journal_is_the_users_alone(live, journal):
    live(same, [1]).run()
    assert {path.stat().st_mode & 0o777 for path in journal.parent.glob("journal.db*")} == {0o600}


def test_a_session_that_was_taken_over_writes_nothing_more(live, journal):
    """A kernel that wakes after another took its session: its late outcome meets another epoch and is refused."""
    hold, begun = threading.Event(), threading.Event()

    def work(item):
        begun.set()
        hold.wait(20)
        return "late"

    session = live(work, [1, 2], limits=Limits(concurrency=1))
    session.start()
    assert begun.wait(20)
    with sqlite3.connect(journal) as database:
        database.execute("UPDATE run SET owner = 'elsewhere/1/other', epoch = epoch + 1")
    database.close()
    hold.set()
    summary = session.run()
    assert summary.state == "failed"
    assert "another process took this session over" in summary.reason
    with sqlite3.connect(journal) as database:
        assert database.execute("SELECT count(*) FROM item").fetchone() == (0,)
    database.close()
