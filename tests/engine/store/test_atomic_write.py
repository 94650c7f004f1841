"""Files that appear complete, or not at all."""

import pytest

from ipybatch.engine.store.atomic_write import draft_of


def test_a_draft_takes_the_paths_place(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("old")
    with draft_of(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_draft_that_fails_leaves_all_as_it_was(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("old")

    def fail():
        with draft_of(path) as draft:
            draft.write_text("ne")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
