"""Which file a journal is, on every Python, and when it is gone."""

import pytest

from ipybatch import JournalError
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.journal_file import real_path


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
