from __future__ import annotations

import sqlite3
import stat
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import InputError, JournalError
from ipybatch.engine.store.journal import open_journal
from ipybatch.errors import JournalCorrupt, JournalReadOnly
from ipybatch.library import Library
from ipybatch.library.records import STALENESS, Record, age_in_words, staleness

DAY_S = 86_400.0
NOW_S = 1_763_000_000.0


def game(key: object, *, days: float = 0.0, kind: str = "game", place: str = "us", name: str = "Portal") -> Record:
    return Record(kind=kind, key=key, place=place, fetched_at_s=NOW_S - days * DAY_S, data={"name": name, "price": 999})


def test_what_was_put_is_there_after_reopening(library: Library) -> None:
    library.put(game(440))
    again = Library(library.path)
    assert again.get("game", 440) == game(440)
    assert len(again) == 1


def test_a_later_record_takes_the_place_of_an_earlier_one(library: Library) -> None:
    library.put(game(440, days=5))
    library.put(game(440, days=0))
    assert len(library) == 1
    assert library.fetched_at_s("game", 440) == NOW_S


def test_keys_of_another_type_are_others(library: Library) -> None:
    library.put(game(440))
    assert library.get("game", "440") is None
    assert library.get("guild", 440) is None


def test_places_are_kept_apart(library: Library) -> None:
    """A German price does not answer what the American one is."""
    library.put(game(440, days=2, place="de"))
    library.put(game(440, days=1, place="us"))
    assert library.get("game", 440, "de") == game(440, days=2, place="de")
    assert library.get("game", 440) == game(440, days=1, place="us")  # of any place the latest
    assert library.fetched_at_s("game", 440, "jp") is None


def test_staleness_is_that_of_the_record(library: Library) -> None:
    library.put(game(440, days=5))
    assert library.staleness("game", 440, now_s=NOW_S) == "medium"
    assert library.staleness("game", 570, now_s=NOW_S) == "high"


def test_outdated_gives_items_oldest_first(library: Library) -> None:
    for key, days in ((1, 2), (2, 9), (3, 0), (4, 5)):
        library.put(game(key, days=days))
    library.put(game("ravencrest/them", days=30, kind="guild", place=""))
    assert library.outdated(older_than_s=DAY_S, kind="game", now_s=NOW_S) == [2, 4, 1]
    assert library.outdated(older_than_s=DAY_S, now_s=NOW_S) == ["ravencrest/them", 2, 4, 1]
    assert library.outdated(older_than_s=DAY_S, kind="game", place="de", now_s=NOW_S) == []


def test_outdated_is_what_a_refresh_would_fetch(library: Library) -> None:
    """Without an age, the one from which on a record is no longer fresh."""
    for key, days in ((1, 1.001), (2, 0.999), (3, 8)):
        library.put(game(key, days=days))
    outdated = library.outdated(kind="game", now_s=NOW_S)
    assert outdated == [3, 1]
    assert outdated == [key for key in (3, 1, 2) if library.staleness("game", key, now_s=NOW_S) != "fresh"]


def test_outdated_refuses_a_negative_age(library: Library) -> None:
    with pytest.raises(InputError, match="older_than_s must be >= 0, got -1"):
        library.outdated(older_than_s=-1)


def test_frame_has_a_row_for_each_record(library: Library) -> None:
    library.put(game(440, days=0))
    library.put(game(570, days=8, name="=1+1"))
    frame = library.to_frame("game", now_s=NOW_S)
    assert list(frame.columns) == ["kind", "key", "place", "name", "fetched_at", "staleness", "absent_since", "data"]
    assert frame["key"].tolist() == [570, 440]
    assert frame["name"].tolist() == ["=1+1", "Portal"]
    assert frame["staleness"].tolist() == ["high", "fresh"]
    assert str(frame["fetched_at"].dt.tz) == "UTC"
    assert frame["data"][0] == {"name": "=1+1", "price": 999}


def test_an_empty_library_is_an_empty_frame(library: Library) -> None:
    frame = library.to_frame()
    assert len(frame) == 0
    assert "fetched_at" in frame.columns


def test_forget_deletes_what_it_is_told_to(library: Library) -> None:
    for key in (1, 2, 3):
        library.put(game(key))
    library.put(game("them", kind="guild"))
    assert library.forget("game", 2) == 1
    assert library.keys("game") == [1, 3]
    assert library.forget("game") == 2
    assert library.forget() == 1
    with pytest.raises(InputError, match="kind must be given"):
        library.forget(key=1)


def test_counts_by_staleness(library: Library) -> None:
    for key, days in ((1, 9), (2, 9), (3, 4), (4, 2), (5, 0)):
        library.put(game(key, days=days))
    assert library.by_staleness(now_s=NOW_S) == {"high": 2, "medium": 1, "low": 1, "fresh": 1}


def test_data_that_json_cannot_hold_is_refused(library: Library) -> None:
    with pytest.raises(InputError, match="game 440"):
        library.put(Record(kind="game", key=440, place="us", fetched_at_s=0.0, data={"when": object()}))
    assert len(library) == 0


def test_the_path_comes_from_the_environment(tmp_path: Path) -> None:
    assert Library().path == tmp_path / "library.sqlite3"


@pytest.mark.skipif(sys.platform == "win32", reason="modes are those of POSIX")
def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    library = Library(tmp_path / "deep" / "games.db")
    library.put(game(440))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "deep").iterdir()}
    assert set(modes.values()) == {0o600}, modes


@pytest.mark.parametrize("content", [b"a text, not a database", b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_file_is_refused_and_left_as_it_was(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.db"
    path.write_bytes(content)
    with pytest.raises(JournalCorrupt, match=r"library .*broken\.db .*move it away"):
        Library(path)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["broken.db"]


def test_another_programs_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE bookmark (url TEXT)")
    database.close()
    content = path.read_bytes()
    with pytest.raises(JournalCorrupt, match="not an ipybatch library"):
        Library(path)
    assert path.read_bytes() == content


def test_a_journal_is_no_library(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "runs.db")
    with pytest.raises(JournalCorrupt, match="not an ipybatch library"):
        Library(journal.path)


def test_damage_found_later_is_told(library: Library) -> None:
    for key in range(200):
        library.put(game(key, name="x" * 500))
    library.close()
    content = bytearray(library.path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    library.path.write_bytes(content)
    with pytest.raises(JournalCorrupt, match="is damaged"):
        Library(library.path).to_frame()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalReadOnly, match="IPYBATCH_LIBRARY"):
        Library(tmp_path / "file" / "games.db")


def test_a_lock_of_another_program_is_told(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipybatch.library.records.BUSY_S", 0.0)
    blocked = Library(library.path)
    other = sqlite3.connect(library.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match="locked by another program"):
        blocked.put(game(440))
    other.close()


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted there")
@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_nothing_is_written_to_a_file_that_nobody_will_find_again(tmp_path: Path, how: str) -> None:
    library = Library(tmp_path / "games.db")
    library.put(game(440))
    if how == "deleted":
        library.path.unlink()
    else:
        library.path.rename(tmp_path / "old.db")
    if how == "replaced":
        Library(library.path).close()
    for write in (lambda: library.put(game(570)), lambda: library.mark_absent([])):
        with pytest.raises(JournalError, match=r"games\.db was moved, deleted or replaced since it was opened"):
            write()


def test_many_threads_write_at_once(library: Library) -> None:
    def write(first: int) -> None:
        for key in range(first, first + 50):
            library.put(game(key))

    threads = [threading.Thread(target=write, args=(first,)) for first in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(library) == 400


# Staleness


@pytest.mark.parametrize(
    ("age_s", "expected"),
    [
        (0.0, "fresh"),
        (1 * DAY_S, "fresh"),
        (1 * DAY_S + 1, "low"),
        (3 * DAY_S, "low"),
        (3 * DAY_S + 1, "medium"),
        (7 * DAY_S, "medium"),
        (7 * DAY_S + 1, "high"),
    ],
)
def test_age_decides(age_s: float, expected: str) -> None:
    """The words begin beyond 1, 3 and 7 days."""
    assert staleness(NOW_S - age_s, NOW_S) == expected


def test_what_is_missing_is_the_stalest() -> None:
    assert staleness(None, NOW_S) == "high"
    assert STALENESS[0] == "high"


def test_a_time_in_the_future_proves_nothing() -> None:
    """A clock that ran ahead must not keep a record from being fetched for years."""
    assert staleness(NOW_S + 365 * DAY_S, NOW_S) == "high"
    assert staleness(NOW_S + 5, NOW_S) == "fresh"  # two machines' clocks


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_older_is_never_fresher(age_s: float, more_s: float) -> None:
    younger, older = staleness(NOW_S - age_s, NOW_S), staleness(NOW_S - age_s - more_s, NOW_S)
    assert STALENESS.index(older) <= STALENESS.index(younger)


@pytest.mark.parametrize(
    ("age_s", "words"), [(-3.0, "0 s"), (42.0, "42 s"), (120, "2 min"), (7300, "2 h"), (2e5, "2 d")]
)
def test_ages_read_as_people_say_them(age_s: float, words: str) -> None:
    assert age_in_words(age_s) == words
