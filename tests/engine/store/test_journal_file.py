"""Which file a journal is, on every Python, and when it is gone."""

import sqlite3
from contextlib import closing
from types import SimpleNamespace

import pytest

from ipybatch import JournalError
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store import journal_file
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.journal_file import real_path, write_ahead


@pytest.mark.parametrize("behind", ["", "journal.db"])
def test_links_in_a_circle_lead_nowhere(tmp_path, behind):
    (tmp_path / "there").symlink_to(tmp_path / "back")
    (tmp_path / "back").symlink_to(tmp_path / "there")
    with pytest.raises(OSError, match=r"symbolic links"):
        real_path(tmp_path / "there" / behind)


@pytest.mark.parametrize("what", ["nothing there", "below a file", "too long"])
def test_what_cannot_be_opened_is_a_path_all_the_same(tmp_path, what):
    """Whoever opens it says what is wrong."""
    (tmp_path / "file").write_text("x")
    path = {"nothing there": "a/b.db", "below a file": "file/b.db", "too long": "x" * 300}[what]
    (tmp_path / "link").symlink_to(tmp_path)
    assert real_path(tmp_path / "link" / path) == tmp_path.resolve() / path


def test_a_journal_that_is_deleted_while_it_is_looked_for_is_gone(tmp_path, monkeypatch):
    """The thread that renews leases met that as an error of the system, and ended."""
    path = tmp_path / "journal.db"
    book = Journal(path)
    monkeypatch.setattr(journals, "read_log", lambda _: path.unlink())
    with pytest.raises(JournalError, match="was deleted while it was in use"):
        book.check_there()
    book.close()


def open_new(path):
    return closing(sqlite3.connect(path, timeout=0, isolation_level=None))


def test_a_new_file_that_others_hold_is_switched_as_soon_as_they_let_go(tmp_path, monkeypatch):
    """Eight kernels that began at once on a new journal: one of sixty was told that it is locked."""
    with open_new(tmp_path / "new.db") as other, open_new(tmp_path / "new.db") as database:
        other.execute("CREATE TABLE t (x)")
        other.execute("BEGIN IMMEDIATE")
        pauses = []

        def let_go_at_last(seconds):
            pauses.append(seconds)
            if len(pauses) == 3:
                other.execute("COMMIT")

        clock = SimpleNamespace(monotonic=lambda: 0.0, sleep=let_go_at_last)
        monkeypatch.setattr(journal_file, "time", clock)
        write_ahead(database, 3600)
        assert len(pauses) == 3
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_that_is_held_for_longer_is_not_waited_for(tmp_path):
    with open_new(tmp_path / "new.db") as other, open_new(tmp_path / "new.db") as database:
        other.execute("CREATE TABLE t (x)")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            write_ahead(database, 0.0)
