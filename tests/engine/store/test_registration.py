"""Registration: a help for those who list sessions, which fails nobody and trusts nobody else."""

import json
import os
import stat
from pathlib import Path

import pytest

from ipybatch.engine.store import registration
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.registration import Registered, register, registered


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    folder = tmp_path / "runtime"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setattr(registration, "_system", lambda: Path("/proc/nowhere"))
    monkeypatch.setattr(registration.tempfile, "gettempdir", lambda: "/proc/nowhere")
    return folder / "ipybatch"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "journal.db"
    path.touch()
    return path


def test_whoever_opens_a_journal_registers_it(runtime, tmp_path, patience):
    Journal(tmp_path / "a.db").close()
    Journal(tmp_path / "b.db").close()
    Journal(tmp_path / "a.db").close()
    assert {one.path for one in registered()} == {tmp_path / "a.db", tmp_path / "b.db"}
    assert len(list(runtime.iterdir())) == 2, "no drafts are left, and one file a journal"


def test_it_is_for_this_user_alone(runtime, path):
    before = os.umask(0)
    register(path)
    os.umask(before)
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    (file,) = runtime.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text()) == {"path": str(path), "asked": str(path)}


@pytest.mark.parametrize("name", ["Bücher 日本.db", "line\nbreak.db", os.fsdecode(b"\xff\xfe.db")], ids=ascii)
def test_any_path_can_be_registered(tmp_path, name):
    path = tmp_path / name
    path.touch()
    register(path)
    assert list(registered()) == [Registered(path, path)]


@pytest.mark.parametrize("gone", ["file", "folder", "folder is a file"])
def test_a_journal_that_is_gone_is_dropped(runtime, tmp_path, gone):
    path = tmp_path / "folder" / "journal.db"
    path.parent.mkdir()
    path.touch()
    register(path)
    path.unlink()
    if gone != "file":
        path.parent.rmdir()
    if gone == "folder is a file":
        path.parent.touch()
    assert list(registered()) == []
    assert list(runtime.iterdir()) == []


def untrusted(runtime, path, what, monkeypatch):
    file = next(runtime.iterdir(), None)
    if what == "folder is a link":
        runtime.rename(runtime.with_name("elsewhere"))
        runtime.symlink_to(runtime.with_name("elsewhere"))
    elif what == "folder is writable by the group":
        runtime.chmod(0o770)
    elif what == "folder is another's":
        os.chown(runtime, 12345, -1)
    elif what == "file is a link":
        file.rename(path.with_name("elsewhere.json"))
        file.symlink_to(path.with_name("elsewhere.json"))
    elif what == "file is writable by all":
        file.chmod(0o666)
    elif what == "file is another's":
        os.chown(file, 12345, -1)
    elif what == "file is a pipe":
        file.unlink()
        os.mkfifo(file)
    elif what == "file is huge":
        os.truncate(file, 1 << 40)


@pytest.mark.parametrize(
    "what",
    [
        "folder is a link",
        "folder is writable by the group",
        "folder is another's",
        "file is a link",
        "file is writable by all",
        "file is another's",
        "file is a pipe",
        "file is huge",
    ],
)
def test_what_others_may_have_written_is_not_trusted(runtime, path, what, monkeypatch):
    if "another's" in what and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    register(path)
    assert len(list(registered())) == 1
    untrusted(runtime, path, what, monkeypatch)
    assert list(registered()) == []
    if what.startswith("folder"):
        before = sorted(runtime.iterdir())
        register(path.with_name("other.db"))
        assert sorted(runtime.iterdir()) == before, "nothing is written there either"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"path": 3, "asked": 4}', '{"path": "/x"}', "\xff"])
def test_a_file_that_says_nothing_harms_nobody(runtime, path, text):
    register(path)
    (runtime / "journal-00.json").write_bytes(text.encode("latin-1"))
    assert [one.path for one in registered()] == [path]


@pytest.mark.parametrize("what", ["is a file", "is full", "cannot be made"])
def test_a_session_does_not_need_it(runtime, tmp_path, what, monkeypatch, patience):
    """Wherever registrations cannot be written, the journal is opened all the same."""
    if what == "is a file":
        runtime.parent.touch()
    elif what == "cannot be made":
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/proc/nowhere")
    else:
        monkeypatch.setattr(registration, "draft_of", raising)
    Journal(tmp_path / "journal.db").close()
    assert (tmp_path / "journal.db").exists()
    assert list(registered()) == []


def raising(path):
    raise OSError(28, "No space left on device")


def test_without_a_runtime_folder_it_is_one_of_the_users_own(tmp_path, monkeypatch):
    """In a container, say: a name of this user's, in the folder for temporary files."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(registration.tempfile, "gettempdir", lambda: str(tmp_path))
    system, own = Path("/proc/nowhere/ipybatch"), tmp_path / f"ipybatch-{os.geteuid()}"
    assert registration._places() == [system, own]
    for usable, expected in ([system, own], system), ([own], own), ([], own):
        monkeypatch.setattr(registration, "_is_usable", usable.__contains__)
        assert registration.folder() == expected


@pytest.mark.parametrize("what", ["is another's", "is not to be written", "is a file", "is a link", "is relative"])
def test_a_runtime_folder_that_is_not_this_users_is_passed_over(tmp_path, path, what, monkeypatch):
    """``su`` and ``sudo`` leave the variable as it was."""
    if what == "is another's" and os.geteuid() != 0:
        pytest.skip("only root gives folders away")
    given, spare = tmp_path / "given", tmp_path / "spare"
    (tmp_path / "target").mkdir(mode=0o700)
    if what == "is another's":
        (given / "ipybatch").mkdir(parents=True)
        os.chown(given / "ipybatch", 12345, -1)
    elif what == "is not to be written":
        given.mkdir()
        monkeypatch.setattr(registration.os, "access", lambda place, mode: place != given)
    elif what == "is a file":
        given.touch()
    elif what == "is a link":
        given.mkdir()
        (given / "ipybatch").symlink_to(tmp_path / "target")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "given" if what == "is relative" else str(given))
    first, *_ = registration._places()
    monkeypatch.setattr(registration, "_places", lambda: [*([] if what == "is relative" else [first]), spare])
    register(path)
    assert [one.path for one in registered()] == [path]
    assert spare.stat().st_mode & 0o777 == 0o700
