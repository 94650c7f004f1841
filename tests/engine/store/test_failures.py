"""Failures: what failed on record, by message, found and paged whatever the number."""

import contextlib
import sqlite3

import pytest

from ipybatch import BatchSession, InputError, Permanent, Retry, Transient, secret
from ipybatch.engine.data import masking
from ipybatch.engine.store import failures
from ipybatch.engine.store.schema import ids
from tests.works import Recorder

NO_RETRY = Retry(attempts=1)


def bad(number):
    return Permanent(f"HTTP 404: no such game {number}" if number % 10 == 3 else "HTTP 410: gone")


@pytest.fixture
def session(live):
    made = live(Recorder({n: bad(n) for n in range(40) if n % 10 in (3, 5, 6)}), list(range(40)), breaker=None)
    made.run()
    return made


def told(found):
    return [(group.message, group.count) for group in found.groups]


def test_what_failed_is_grouped_by_message_the_most_frequent_first(session):
    """Items of one group lie together, in input order, each with its attempts."""
    found, items = session.failures(limit=100)
    assert told(found) == [("HTTP 410: gone", 8), ("HTTP 404: no such game <key>", 4)]
    assert [item.key for item in items] == ["5", "6", "15", "16", "25", "26", "35", "36", "3", "13", "23", "33"]
    assert (found.of, len(found.ids)) == (12, 12)
    assert {item.status for item in items} == {"failed"}
    assert items[-1].error == "HTTP 404: no such game 33"


def test_pages_of_one_list_fit_together_whatever_is_recorded_meanwhile(session, journal):
    """A page is asked for with the version of its list; a list is made anew when something was recorded."""
    found, first = session.failures(limit=5)
    with contextlib.closing(sqlite3.connect(journal)) as database, database:
        database.execute("UPDATE item SET status = 'completed' WHERE key = '5'")
        database.execute("UPDATE run SET failed = failed - 1, completed = completed + 1")
    again, rest = session.failures(offset=5, limit=100, version=found.version)
    assert again is found
    assert [item.key for item in [*first, *rest]][:6] == ["5", "6", "15", "16", "25", "26"]
    now, items = session.failures(limit=100)
    assert now.version != found.version
    assert [item.key for item in items][:2] == ["6", "15"]
    assert session.failures(offset=10**15)[1] == []


@pytest.mark.parametrize(
    ("search", "keys"),
    [
        ("GONE", ["5", "6", "15", "16", "25", "26", "35", "36"]),
        ("404", ["3", "13", "23", "33"]),
        ("game 13", ["13"]),
        ("no such game <KEY>", ["3", "13", "23", "33"]),
        ("36", ["36"]),
        ("%", []),
        ("'; DROP TABLE item; --", []),
    ],
)
def test_a_search_is_made_in_the_journal(session, search, keys):
    """In keys and messages, and in the message that stands for many; of whatever case."""
    found, items = session.failures(search)
    assert [item.key for item in items] == keys
    assert found.of == 12


def test_nothing_failed(live):
    made = live(Recorder(), [1, 2])
    assert made.failures()[0].groups == []
    made.run()
    found, items = made.failures("x")
    assert (found.groups, found.of, items) == ([], 0, [])


def test_items_of_another_input_and_those_not_listed_count_no_more(live):
    """As in results and counts: what is on record of them answers another question."""
    live(Recorder({n: Permanent("bad") for n in (1, 2, 3)}), [1, 2, 3]).run()
    again = live(Recorder({n: Permanent("bad") for n in (1, 2, 3)}), [2, 3], settings=None)
    assert [item.key for item in again.failures()[1]] == ["2", "3"]
    assert live(Recorder(), [1, 2], settings="another").failures()[1] == []


def test_earlier_tries_and_the_place_in_the_users_code_come_along(live):
    async def work(item, attempt):
        raise Transient(f"HTTP 500, try {attempt.number}")

    made = live(work, [7], retry=Retry(attempts=3, initial_s=0.0, max_s=0.0), breaker=None)
    made.run()
    _, [item] = made.failures()
    assert [each.error for each in item.tries] == ["HTTP 500, try 1", "HTTP 500, try 2"]
    assert item.attempts == 3
    assert item.traceback.startswith("test_failures.py:")


def test_a_follower_reads_them_too(session, journal):
    """A session that is opened again, as one of another process is."""
    assert told(BatchSession.open("wishlist", journal=journal).failures()[0]) == told(session.failures()[0])


def test_those_that_match_are_run_again_and_no_others(session, wait_for):
    session.retry_matching("404")
    assert wait_for(session).counts.failed == 12, "they fail again"
    work = session.policy.work
    assert work is not None
    with pytest.raises(ValueError, match="nothing that failed matches 'teapot'"):
        session.retry_matching("teapot")


def test_many_come_with_few_steps(journal, live, monkeypatch):
    """Python's lock is let go of and taken back at each: with an engine at full speed that takes its time."""
    monkeypatch.setattr(failures, "_AT_ONCE", 500)
    made = live(Recorder({0: Permanent("bad")}), [0])
    made.run()
    with contextlib.closing(sqlite3.connect(journal)) as database:
        (run,) = database.execute("SELECT id FROM run").fetchone()
        first, _ = ids(run)
        database.executemany(
            "INSERT OR REPLACE INTO item VALUES (?, ?, '', ?, 1, 0, 1, 0.1, 1.0, ?, 0, '')",
            [
                (first + n, f'"key {n}"', "failed" if n % 4 else "completed", f"HTTP 404: no {n % 3} of key {n}")
                for n in range(4000)
            ],
        )
        database.execute("UPDATE run SET failed = 3000")
        database.commit()
        steps = 0

        class Counting(sqlite3.Cursor):
            def fetchone(self):
                nonlocal steps
                steps += 1
                return super().fetchone()

        class Connection(sqlite3.Connection):
            def execute(self, *given):
                return self.cursor(Counting).execute(*given)

        with contextlib.closing(sqlite3.connect(journal, factory=Connection)) as counted:
            found = failures.look(counted, run)
        assert steps < 12
        assert told(found) == [(f"HTTP 404: no {n} of <key>", 1000) for n in (1, 2, 0)]
        assert len(failures.page(database, found.ids[1000:1100])) == 100
        assert failures.keys_of(database, found.ids[:2]) == ['"key 1"', '"key 7"']
        assert failures.keys_of(database, []) == []


def missing(number):
    if number % 3 == 0:
        raise Permanent(f"no game {number}")


GENERATED, LISTED = (lambda items: (item for item in items)), list


@pytest.mark.parametrize(
    ("first", "then", "step"),
    [
        (GENERATED, GENERATED, 1),
        (GENERATED, GENERATED, 2),
        (GENERATED, LISTED, 1),
        (LISTED, GENERATED, 1),
        (LISTED, LISTED, 1),
        (LISTED, LISTED, 2),
    ],
)
def test_what_its_items_are_no_more_is_not_listed(live, journal, first, then, step):
    """Of a list or a generator that has become shorter, or is sent otherwise: as counts and `errors` have it."""
    live(missing, first(range(30)), name="shorter", breaker=None, settings="1").run()
    session = live(missing, then(range(0, 15, step)), name="shorter", breaker=None, settings=str(step))
    session.run()
    with contextlib.closing(sqlite3.connect(journal)) as database:
        on_record = failures.look(database, 1)
    failed = list(range(0, 15, 3 * step))
    assert session.counts.failed == len(failed)
    assert session.errors()["count"].sum() == len(failed)
    assert [item.key for item in session.failures()[1]] == list(map(str, failed))
    assert (on_record.of, [number - ids(1)[0] for number in on_record.ids]) == (len(failed), failed)


def test_a_version_is_that_of_one_search_of_one_session(live, journal):
    """A page that is asked for with another's version is one of a list of its own."""
    one, other = (live(missing, list(range(number)), name=f"of {number}", breaker=None) for number in (10, 13))
    one.run()
    other.run()
    looks = failures.Looks()
    with contextlib.closing(sqlite3.connect(journal)) as database:
        first = looks.at(journal, database, 1)
        searched = looks.at(journal, database, 1, "game 9", first.version)
        apart = looks.at(journal, database, 2, "", first.version)
        assert looks.at(journal, database, 1, "", first.version) is first
    assert [len(found.ids) for found in (first, searched, apart)] == [4, 1, 5]


def test_a_secret_that_was_registered_since_is_not_found_and_tells_no_messages_apart(live, monkeypatch):
    """Not by a part of it either, nor where the looked-at part of an error ends in it."""
    monkeypatch.setattr(masking, "_secrets", ())
    texts = [f"{'x' * number} refused {word}" for number in (0, 985) for word in ("hush-money-1", "hush-money-2")]
    session = live(Recorder(dict(enumerate(map(Permanent, texts)))), list(range(4)), breaker=None)
    session.run()
    assert len(session.failures("hush-m")[0].ids) == 4
    for word in ("hush-money-1", "hush-money-2"):
        secret(word)
    with pytest.raises(InputError, match="nothing that failed"):
        session.retry_matching("hush-m")
    assert not len(session.failures("hush-m")[0].ids)
    groups = session.failures("refused")[0].groups
    assert [group.count for group in groups] == [2, 2]
    assert not [group for group in groups if "hush" in group.message]


def test_after_a_rollback_what_failed_is_remembered(live):
    """As in a forecast whose one partition fails: the number in the header is a button that leads to its error."""
    session = live(missing, [1, 2, 9], name="all or nothing", breaker=None, on_failure="rollback")
    session.run()
    assert session.state == "rolled_back"
    found, (item,) = session.failures()
    assert (told(found), found.of) == ([("no game 9", 1)], 1)
    assert (item.key, item.status, item.error) == ("9", "failed", "no game 9")
    assert session.failures("GAME 9")[1] == [item]
    assert session.failures("else")[1] == session.failures(offset=1)[1] == []
    assert session.failures()[0].version == found.version
