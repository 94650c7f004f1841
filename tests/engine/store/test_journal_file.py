"""A path of a journal without links, on every Python."""

import pytest

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
