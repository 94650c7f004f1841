"""Catalogue: the sessions of all journals, the latest first, by ids that tell nothing."""

import itertools
import os
import sqlite3
import threading
import time
from contextlib import closing

import msgspec
import pytest

from ipybatch.engine.store import journal as journals
from ipybatch.engine.store import lease, registration
from ipybatch.server import journal_files
from ipybatch.server.catalogue import Catalogue
from ipybatch.server.refusal import Refusal
from ipybatch.server.run_rows import look
from tests.server.conftest import DEAD, LATEST, write_runs

ALIVE = f"{lease._HOST}/{os.getppid()}/other"  # a process that is there, and is not this one


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv(journals.PATH_VARIABLE, str(tmp_path / "default.sqlite3"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "default.sqlite3"


@pytest.fixture
def catalogue():
    return Catalogue()


def live_run(**values):
    beat_s = time.time() + 3600  # not old while the tests run
    return {"state": "running", "owner": ALIVE, "beat_s": beat_s, "begun_s": beat_s - 5, **values}


def opened_here(monkeypatch):
    """Note the journals that this thread opens from now on: servers of other tests may look at theirs."""
    opened, connect, here = [], journals.connect, threading.get_ident()

    def noted(path, *given, **more):
        if threading.get_ident() == here:
            opened.append(path)
        return connect(path, *given, **more)

    monkeypatch.setattr(journals, "connect", noted)
    return opened


def names(page):
    return [item.name for item in page.items]


def all_pages(catalogue, **given):
    found, cursor = [], None
    while True:
        page = catalogue.page(cursor=cursor, **given)
        found.append(names(page))
        if page.next is None:
            return found
        cursor = page.next


def test_without_a_journal_there_are_no_sessions(catalogue, path):
    page = catalogue.page()
    assert (page.items, page.next, page.unread) == ([], None, [])
    assert not path.exists()


def test_sessions_of_several_journals_are_paged_the_latest_first(catalogue, path, tmp_path):
    write_runs(path, [{"name": f"a{n}", "created_s": n} for n in (1, 3, 5)])
    write_runs(tmp_path / "other.db", [{"name": f"b{n}", "created_s": n} for n in (2, 4)])
    assert names(catalogue.page()) == ["a5", "b4", "a3", "b2", "a1"]
    assert all_pages(catalogue, limit=2) == [["a5", "b4"], ["a3", "b2"], ["a1"]]
    assert all_pages(catalogue, limit=5) == [["a5", "b4", "a3", "b2", "a1"]]


def test_a_session_that_begins_meanwhile_moves_no_page(catalogue, path, tmp_path):
    other = tmp_path / "other.db"
    write_runs(path, [{"name": f"a{n}", "created_s": n} for n in (4, 5, 6)])
    write_runs(other, [{"name": "b1", "created_s": 1}])
    first = catalogue.page(limit=2)
    write_runs(path, [{"name": "new", "created_s": 9}])
    write_runs(other, [{"name": "newer", "created_s": 10}])
    write_runs(tmp_path / "third.db", [{"name": "newest", "created_s": 11}])
    assert names(first) == ["a6", "a5"]
    assert names(catalogue.page(limit=9, cursor=first.next)) == ["a4", "b1"]
    assert names(catalogue.page(limit=3)) == ["newest", "newer", "new"]


def test_what_was_deleted_is_no_session(catalogue, path):
    write_runs(path, [{"name": "kept"}, {"name": ""}])
    assert names(catalogue.page()) == ["kept"]
    with pytest.raises(Refusal):
        catalogue.item(catalogue.id_of(path, 2))


STATES = {"done": "completed", "runs": "running", "held": "paused", "dead": "interrupted", "left": "interrupted"}


@pytest.mark.parametrize(
    ("states", "wanted"),
    [
        ((), ["left", "dead", "held", "runs", "done"]),
        (("running",), ["runs"]),
        (("paused", "running"), ["held", "runs"]),
        (("interrupted",), ["left", "dead"]),
        (("interrupted", "completed"), ["left", "dead", "done"]),
        (("failed",), []),
    ],
)
def test_a_state_is_as_it_stands_now(catalogue, path, states, wanted):
    dead = {"state": "running", "owner": DEAD, "beat_s": time.time()}
    write_runs(
        path,
        [
            {"name": "done"},
            live_run(name="runs"),
            live_run(name="held", state="paused"),
            {"name": "dead", **dead},
            {"name": "left", "state": "paused"},
        ],
    )
    page = catalogue.page(states)
    assert names(page) == wanted
    assert {item.name: item.state for item in page.items} == {name: STATES[name] for name in wanted}
    assert [item.name for item in catalogue.live()] == ["held", "runs"]


def test_pages_of_one_state_are_full_whatever_is_between(catalogue, path):
    dead = {"state": "running", "owner": DEAD}
    write_runs(path, [{"name": f"{n}", **(live_run() if n % 7 == 0 else dead)} for n in range(60)])
    assert all_pages(catalogue, states=("running",), limit=4) == [
        ["56", "49", "42", "35"],
        ["28", "21", "14", "7"],
        ["0"],
    ]


@pytest.mark.parametrize(
    ("part", "wanted"),
    [("NIGHT", ["Nightly", "night"]), ("ähre", ["ÄHREN"]), ("50%", ["50% off"]), ("_", ["a_b"]), ("\\", ["c\\d"])],
)
def test_a_name_is_looked_for_in_part_and_in_any_case(catalogue, path, part, wanted):
    write_runs(path, [{"name": name} for name in ("night", "Nightly", "ÄHREN", "50% off", "500 off", "a_b", "c\\d")])
    assert names(catalogue.page(name=part)) == wanted


def test_what_a_live_session_told_of_the_moment_is_shown(catalogue, path):
    live = {
        "running": 3,
        "total": 10,
        "status": {"waiting": "waits for the next second", "eta_s": [4.0, 6.0]},
        "breaker": {"state": "half_open"},
        "breaker_policy": [3, 5],
    }
    told = {"live": msgspec.json.encode(live), "completed": 4, "failed": 1, "usd": 0.5, "workload": "gemini"}
    write_runs(path, [live_run(total=None, **told), {"total": 10, **told}])
    ended, item = catalogue.page().items
    counts = item.counts
    assert (counts.running, counts.pending, counts.completed, counts.failed, counts.total) == (3, 2, 4, 1, 10)
    assert (item.eta_s, item.breaker, item.waiting, item.usd) == (6.0, "half_open", "waits for the next second", 0.5)
    assert item.where == f"in process {os.getppid()} on {lease._HOST}"
    assert (item.reason, item.workload, item.group_word) == ("waits for the next second", "gemini", "Batch")
    assert item.seconds == 5
    assert (ended.counts.running, ended.eta_s, ended.breaker, ended.waiting, ended.where) == (0, None, None, "", "")


def test_what_a_later_version_told_of_the_moment_is_not_shown(catalogue, path):
    write_runs(path, [live_run(live=b'{"running": "many"}', total=3)])
    (item,) = catalogue.page().items
    assert (item.counts.pending, item.breaker) == (3, None)


@pytest.mark.parametrize("steps", range(1, LATEST + 1))
def test_every_schema_is_read_as_it_is(catalogue, path, steps):
    write_runs(path, [{"name": "old", "state": "running", "owner": ALIVE, "beat_s": time.time()}], steps=steps)
    before = path.read_bytes()
    (item,) = catalogue.page(name="ol").items
    assert (item.name, item.state, item.workload, item.submission) == ("old", "running", "", None)
    assert catalogue.item(item.id) == item
    assert ("cancel" in item.can) == (steps >= 8)  # an older one has no place for commands
    assert path.read_bytes() == before


def test_a_journal_that_cannot_be_read_is_told_in_a_sentence_without_its_folder(catalogue, path, tmp_path):
    write_runs(path, [{"name": "fine"}])
    folder = tmp_path / "a folder"
    write_runs(folder / "later.db", [{}])
    with closing(sqlite3.connect(folder / "later.db")) as database:
        database.execute(f"PRAGMA user_version = {LATEST + 1}")
    write_runs(folder / "broken.db", [{}])
    (folder / "broken.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    page = catalogue.page()
    assert names(page) == ["fine"]
    assert sorted(page.unread)[1] == (
        "journal later.db was written by a later ipybatch: upgrade the one that this server has"
    )
    assert sorted(page.unread)[0].startswith("journal broken.db is damaged")
    assert not any("folder" in text or "/" in text for text in page.unread)


ODD = {
    "no file": "is no file",
    "links in a circle": "leads nowhere",
    "a time": "is damaged (ValidationError in run 1)",
    "a state": "is damaged (ValidationError in run 1)",
    "a number": "is damaged (ValidationError in run 1)",
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_journal_keeps_nobody_from_the_others(catalogue, path, tmp_path, what):
    write_runs(path, [{"name": "fine"}, live_run(name="live")])
    odd = tmp_path / "a folder" / "odd.db"
    values = {"a time": {"created_s": "long ago"}, "a state": {"state": "lost"}, "a number": {"completed": b"many"}}
    write_runs(odd, [live_run() | values.get(what, {})])
    writer = None
    if what in ("no file", "links in a circle"):
        odd.unlink()
    if what == "no file":
        os.mkfifo(odd)
        writer = os.open(odd, os.O_RDWR | os.O_NONBLOCK)  # else SQLite waited for one
    elif what == "links in a circle":
        odd.symlink_to(odd)
        registered = f'{{"path": "{tmp_path}", "asked": "{odd}"}}'
        (registration.folder() / "journal-0.json").write_text(registered)
    try:
        page = catalogue.page()
        assert names(page) == ["live", "fine"]
        (unread,) = page.unread
        assert ODD[what] in unread
        assert "/" not in unread
        assert [item.name for item in catalogue.live()] == ["live"]
    finally:
        if writer is not None:
            os.close(writer)


def test_a_damaged_row_keeps_nobody_from_the_others_of_its_journal(catalogue, path):
    """Pages of two meet it as the last of one, as the first of one, and alone."""
    odd = {"name": "odd", "completed": b"many"}
    write_runs(path, [{"name": "one"}, odd, {"name": "two"}, odd, odd, live_run(name="live")])
    found, unread, cursor = [], set(), None
    while cursor is not False:
        page = catalogue.page(limit=2, cursor=cursor)
        found, unread, cursor = found + names(page), unread | {*page.unread}, page.next or False
    assert found == ["live", "two", "one"]
    assert {text[: text.index(":")] for text in unread} == {
        f"journal {path.name} is damaged (ValidationError in run {run})" for run in (2, 4, 5)
    }
    assert [item.name for item in catalogue.live()] == ["live"]
    with pytest.raises(Refusal) as refused:
        catalogue.item(f"{catalogue.page().items[0].id.partition('-')[0]}-2")
    assert refused.value.status_code == 503


@pytest.mark.parametrize(
    "id_", ["", "x", "1-1", f"{'0' * 16}-1", f"{'0' * 16}-{'9' * 40}", "../../etc/passwd", f"{'0' * 16}-1\n", "%2e%2e"]
)
def test_an_id_that_is_not_there_is_refused(catalogue, path, id_):
    write_runs(path, [{}])
    for ask in (catalogue.item, catalogue.place):
        with pytest.raises(Refusal) as refused:
            ask(id_)
        assert refused.value.status_code == 404


def test_an_id_leads_to_its_journal_and_its_run(catalogue, path, tmp_path):
    other = tmp_path / "other.db"
    write_runs(other, [{"name": "one"}, {"name": "two"}])
    id_ = catalogue.page(name="two").items[0].id
    assert catalogue.place(id_) == (other, 2)
    assert catalogue.item(id_).name == "two"
    assert str(tmp_path) not in id_


def test_a_foreign_cursor_is_refused(catalogue):
    for cursor in ("x", "e30x", "WzFd", "/"):
        with pytest.raises(Refusal) as refused:
            catalogue.page(cursor=cursor)
        assert (refused.value.status_code, refused.value.field) == (422, "cursor")


def test_the_stamp_changes_with_every_commit_of_any_journal(catalogue, path, tmp_path):
    stamps = [catalogue.files().stamps]

    def wrote(at):
        time.sleep(0.02)  # longer than a tick of the file system's clock
        write_runs(at, [{}])
        stamps.append(catalogue.files().stamps)

    for at in (path, path, tmp_path / "other.db", path, tmp_path / "other.db"):
        wrote(at)
    assert all(one != two for one, two in itertools.combinations(stamps, 2))
    assert catalogue.files().stamps == stamps[-1]


def test_a_journal_that_nobody_wrote_to_is_not_opened_again(catalogue, path, monkeypatch):
    write_runs(path, [{"name": "one"}])
    old = time.time() - 60
    os.utime(path, (old, old))
    opened = opened_here(monkeypatch)
    first = [catalogue.page(), catalogue.live()]
    times = len(opened)
    assert [catalogue.page(), catalogue.live()] == first
    assert len(opened) == times == 1, "nothing that was written a minute ago is live"
    write_runs(path, [{"name": "two"}])
    assert names(catalogue.page()) == ["two", "one"]


def test_of_many_journals_only_those_are_opened_that_have_what_is_asked_for(catalogue, path, monkeypatch):
    """A page of the latest runs opens the latest journals, and no others; pages tell each run once all the same."""
    now_s = time.time()
    for at in range(30):
        each = path.with_name(f"j{at}.sqlite3")
        write_runs(each, [{"name": f"{at} {run}", "created_s": now_s - 1000 * at - run} for run in (2, 1, 0)])
        os.utime(each, (now_s - 1000 * at, now_s - 1000 * at))
    opened = opened_here(monkeypatch)
    page = catalogue.page(limit=4)
    assert names(page) == ["0 0", "0 1", "0 2", "1 0"]
    assert len(opened) == 2
    assert catalogue.live() == []
    told, cursor = names(page), page.next
    assert len(cursor) < 200
    while cursor:
        page = catalogue.page(limit=4, cursor=cursor)
        told, cursor = told + names(page), page.next
    assert told == [f"{at} {run}" for at in range(30) for run in range(3)]


def test_of_very_many_journals_old_ones_are_looked_at_seldom(catalogue, path, monkeypatch):
    """One that is written again is seen when it is registered again, as whoever opens it does, else a little later."""
    monkeypatch.setattr("ipybatch.server.journal_files._MANY", 3)
    old_s = time.time() - 7200
    for at in range(5):
        each = path.with_name(f"j{at}.sqlite3")
        write_runs(each, [{"name": f"old {at}", "created_s": old_s}])
        os.utime(each, (old_s, old_s))
    os.utime(registration.folder(), (old_s, old_s))
    assert len(names(catalogue.page())) == 5
    looked = []
    stamp = journal_files.stamp_of
    monkeypatch.setattr(journal_files, "stamp_of", lambda path: looked.append(path.name) or stamp(path))
    catalogue.files()
    assert looked == []
    write_runs(path.with_name("j3.sqlite3"), [live_run(name="new", created_s=time.time())])
    registration.register(path.with_name("j3.sqlite3"))
    assert names(catalogue.page(limit=1)) == ["new"]
    assert [item.name for item in catalogue.live()] == ["new"]


def test_its_state_is_judged_anew_though_nobody_wrote(catalogue, path, monkeypatch):
    write_runs(path, [live_run()])
    os.utime(path, (1, 1))
    assert catalogue.page().items[0].state == "running"
    monkeypatch.setattr(lease, "find_process", lambda owner: False)
    (item,) = catalogue.page().items
    assert (item.state, item.reason) == (
        "interrupted",
        f"process {os.getppid()} on {lease._HOST} ended without letting go",
    )
    assert catalogue.page(("running",)).items == []
    assert catalogue.live() == []


@pytest.mark.parametrize(
    ("run", "wanted"),
    [
        (live_run(), ["pause", "cancel", "adjust"]),
        (live_run(state="paused"), ["resume", "cancel", "adjust"]),
        (
            live_run(live=b'{"is_cooling": true}'),
            ["pause", "cancel", "adjust", "lift"],
        ),
        (
            live_run(live=b'{"status": {"starts_s": 4e9}}'),
            ["pause", "cancel", "adjust", "start_now"],
        ),
        ({"state": "completed", "failed": 3}, []),
        ({"state": "interrupted"}, []),
    ],
)
def test_only_what_can_work_is_offered(catalogue, path, run, wanted):
    write_runs(path, [run])
    assert catalogue.page().items[0].can == wanted


@pytest.mark.parametrize(
    ("run", "wanted"),
    [
        ({"state": "completed", "failed": 3}, ["retry_failed"]),
        ({"state": "completed"}, []),
        ({"state": "failed", "skipped": 2}, ["resume"]),
        ({"state": "cancelled", "cancelled": 2}, ["resume", "retry_failed"]),
        ({"state": "running", "owner": DEAD}, ["resume"]),
    ],
)
def test_a_submission_can_begin_again(catalogue, path, run, wanted):
    (number,) = write_runs(path, [run])
    submit(path, number)
    (item,) = catalogue.page().items
    assert (item.submission, item.can) == ("s1", wanted)


def test_a_submission_that_is_begun_by_itself_offers_nothing(catalogue, path):
    (number,) = write_runs(path, [{"state": "running", "owner": DEAD, "failed": 1}])
    submit(path, number, "RUNNING")
    assert catalogue.page().items[0].can == []


def submit(path, run, state="FAILED"):
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "INSERT INTO submission (id, name, template, request, requests, digest, state, created_s, queued_s, run)"
            " VALUES ('s1', 'night', 'text', x'', 1, '', ?, 1, 1, ?)",
            (state, run),
        )
        database.commit()


def test_commands_that_were_not_taken_are_told_after_a_second(catalogue, path):
    (number,) = write_runs(path, [live_run()])
    now_s = time.time()
    with closing(sqlite3.connect(path)) as database:
        for verb, asked_s, taken_s in (("cancel", now_s - 5, None), ("pause", now_s + 60, None), ("adjust", 1, 2)):
            values = (number, verb, asked_s, "me", taken_s)
            database.execute(
                "INSERT INTO command (run, verb, asked_s, asked_by, taken_s) VALUES (?, ?, ?, ?, ?)", values
            )
        database.commit()
    assert catalogue.page().items[0].untaken == ["cancel"]


def test_no_more_than_what_is_asked_for_is_read(catalogue, path):
    """100,000 sessions in a journal: the first page must not depend on how many there are."""
    write_runs(path, [{"name": f"s{n}", "state": "completed" if n % 2 else "failed"} for n in range(2000)])
    steps = []
    with closing(sqlite3.connect(path)) as database:
        database.set_progress_handler(lambda: steps.append(1) and None, 100)
        for states in ((), ("failed",), ("paused", "running")):
            steps.clear()
            look(database, states, "", None, 10)
            assert len(steps) < 30, states


def test_it_is_read_in_two_threads_at_once(catalogue, path):
    write_runs(path, [{"name": f"{n}"} for n in range(50)])
    pages = []

    def read():
        pages.extend(len(catalogue.page().items) for _ in range(20))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pages == [50] * 40


def test_a_true_session_is_followed_from_its_start_to_its_end(served, live, gate):
    session = live(gate, [1, 2])
    session.start()
    gate.wait_begun(2)
    catalogue = served.services.catalogue
    (item,) = catalogue.page(name="wish").items
    assert (item.state, item.where, item.can[0]) == ("running", "in this kernel", "pause")
    gate.open()
    session.run()
    after = catalogue.item(item.id)
    assert (after.state, after.counts.completed, after.can, after.where) == ("completed", 2, [], "")
