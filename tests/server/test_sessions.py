"""Routes of what is on record: the list, one session, its items, groups, errors and log."""

import json
import sqlite3
import time
from contextlib import closing

import msgspec
import pytest

from ipybatch import Limits, Permanent, Retry
from ipybatch.engine.store import history
from ipybatch.forecast import forecast
from tests.forecast.test_session import Inline, demand
from tests.server.conftest import BASE, DEAD, LATEST, write_runs
from tests.server.test_catalogue import ALIVE, submit


async def work(item):
    """Fails for every fifth, at first for every seventh; a result of some columns for the others."""
    if item % 5 == 0:
        msg = f"no page {item}"
        raise Permanent(msg)
    if item % 7 == 0 and item not in work.seen:
        work.seen.add(item)
        raise ConnectionError("went away")
    return {"square": item * item, "name": f"number {item}"}


@pytest.fixture
def night(served, plan, clock):
    """A session of 30 items in batches of ten: 6 failed, 4 of the others at the second attempt."""
    work.seen = set()
    limits = Limits(concurrency=3, batch_size=10)
    session = plan(work, list(range(1, 31)), name="night", limits=limits, retry=Retry(attempts=2))
    clock.run(session)
    (item,) = served.get("/sessions").json()["items"]
    return f"/sessions/{item['id']}"


def told(served, path, status=200):
    answer = served.get(path)
    assert answer.status_code == status, answer.text
    return answer.json()


def pages(served, path):
    """Return the entries of all pages, and how many there were; each is led to by the one before."""
    found, count = [], 0
    while path:
        answer = served.get(path)
        page = answer.json()
        found, count = found + page["items"], count + 1
        link = answer.headers.get("Link", "")
        assert ('rel="next"' in link) == (page["next"] is not None)
        path = link.partition("<")[2].partition(">")[0]
        assert (not path) or page["next"] in path
    return found, count


def test_the_list_says_what_an_item_must_have(served, night):
    (item,) = told(served, "/sessions")["items"]
    wanted = {"id", "name", "state", "counts", "started", "seconds", "eta_s", "usd", "reason", "workload", "kernel"}
    assert (wanted | {"notebook"}) <= set(item)
    assert (item["name"], item["state"], item["can"]) == ("night", "completed", [])
    assert item["counts"] == {
        "pending": 0,
        "running": 0,
        "completed": 24,
        "failed": 6,
        "timeout": 0,
        "cancelled": 0,
        "skipped": 0,
        "total": 30,
    }


def test_the_list_is_paged_and_filtered(served, tmp_path):
    write_runs(
        tmp_path / "journal.sqlite3", [{"name": f"n{n}", "state": ["completed", "failed"][n % 2]} for n in range(9)]
    )
    found, count = pages(served, "/sessions?limit=4")
    assert ([item["name"] for item in found], count) == ([f"n{n}" for n in range(8, -1, -1)], 3)
    found, _ = pages(served, "/sessions?limit=2&state=failed,cancelled&name=N")
    assert [item["name"] for item in found] == ["n7", "n5", "n3", "n1"]


def test_one_session_has_its_groups_its_links_and_what_its_item_has(served, night):
    session = told(served, night)
    (item,) = told(served, "/sessions")["items"]
    assert {name: session[name] for name in item} == item
    assert [(group["name"], group["items"], group["done"], group["failed"]) for group in session["groups"]] == [
        ("Batch 1", 10, 10, 2),
        ("Batch 2", 10, 10, 2),
        ("Batch 3", 10, 10, 2),
    ]
    assert session["breaker_detail"] == {"state": "closed", "failures": 0, "openings": 0, "limit_group": ""}
    for name in ("items", "groups", "errors", "log"):
        assert session["links"][name] == f"{BASE}{night}/{name}"
        assert served.get(session["links"][name]).status_code == 200


@pytest.mark.parametrize("path", ["", "/sessions"])
def test_what_did_not_change_is_not_sent_again(served, night, path):
    at = path or night
    first = served.get(at)
    tag = first.headers["ETag"]
    again = served.get(at, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert served.get(at, headers={"If-None-Match": '"other"'}).content == first.content
    head = served.request("HEAD", at)
    assert (head.status_code, head.content) == (200, b"")


def test_items_are_in_plan_order_with_their_results(served, night):
    found, count = pages(served, f"{night}/items?limit=7")
    assert ([item["key"] for item in found], count) == (list(range(1, 31)), 5)
    assert found[0]["result"] == {"square": 1, "name": "number 1"}
    assert (found[0]["status"], found[0]["attempts"], found[0]["group"], found[0]["error"]) == ("completed", 1, 1, "")
    fifth = found[4]
    assert (fifth["status"], fifth["error"], fifth["scope"], fifth["result"]) == ("failed", "no page 5", "item", None)
    assert fifth["traceback"].startswith("test_sessions.py:")
    assert (found[0]["traceback"], found[0]["tries"]) == ("", [])
    ((at, error),) = [(each["attempt"], each["error"]) for each in found[6]["tries"]]
    assert (at, "went away" in error) == (1, True)


def test_items_of_a_status_or_a_group_alone(served, night):
    found, _ = pages(served, f"{night}/items?status=failed&limit=4")
    assert [item["key"] for item in found] == [5, 10, 15, 20, 25, 30]
    found, _ = pages(served, f"{night}/items?group=2&limit=9")
    assert [item["key"] for item in found] == list(range(11, 21))
    found, _ = pages(served, f"{night}/items?group=3&status=failed")
    assert [item["key"] for item in found] == [25, 30]


def test_items_of_a_list_that_was_ordered_anew_are_in_its_order(served, plan, clock):
    clock.run(plan(lambda item: item, [1, 2, 3, 4]))
    clock.run(plan(lambda item: item, [4, 9, 2, 1, 3]))
    (item,) = told(served, "/sessions")["items"]
    found, count = pages(served, f"/sessions/{item['id']}/items?limit=2")
    assert ([entry["key"] for entry in found], count) == ([4, 9, 2, 1, 3], 3)


def test_a_page_of_large_results_is_short(served, plan, clock):
    clock.run(plan(lambda item: "x" * 1_500_000, list(range(7))))
    (item,) = told(served, "/sessions")["items"]
    path = f"/sessions/{item['id']}/items"
    assert len(served.get(path).content) < 5 << 20
    found, count = pages(served, path)
    assert ([len(entry["result"]) for entry in found], count) == ([1_500_000] * 7, 4)


def test_groups_are_paged(served, night):
    found, count = pages(served, f"{night}/groups?limit=2")
    assert ([group["number"] for group in found], count) == ([1, 2, 3], 2)
    assert found[0]["seconds"] >= 0
    assert found[0]["status"] == "completed"


def test_a_session_without_groups_has_none(served, plan, clock):
    clock.run(plan(lambda item: item, [1]))
    (item,) = told(served, "/sessions")["items"]
    assert told(served, f"/sessions/{item['id']}/groups") == {"items": [], "next": None}


def test_failures_are_grouped_by_message(served, plan, clock):
    async def fail(item):
        raise Permanent("gone" if item > 7 else f"no page {item}")

    clock.run(plan(fail, list(range(10))))
    (item,) = told(served, "/sessions")["items"]
    found, count = pages(served, f"/sessions/{item['id']}/errors?limit=1")
    assert count == 2
    assert [(error["message"], error["count"], error["key"], error["scope"]) for error in found] == [
        ("no page <key>", 8, 0, "item"),
        ("gone", 2, 8, "item"),
    ]


def test_failures_are_searched_and_paged_in_the_journal(served, plan, clock):
    """A page and the one after it are of one list; what cannot be is refused with its field."""

    async def fail(item):
        raise Permanent("gone" if item > 7 else f"no page {item}")

    clock.run(plan(fail, list(range(10))))
    (item,) = told(served, "/sessions")["items"]
    at = f"/sessions/{item['id']}/failures"
    first = told(served, f"{at}?limit=3")
    assert [(group["message"], group["count"]) for group in first["groups"]] == [("no page <key>", 8), ("gone", 2)]
    rest = told(served, f"{at}?offset=3&version={first['version']}")
    assert [one["key"] for one in (*first["items"], *rest["items"])] == [str(number) for number in range(10)]
    assert rest["version"] == first["version"]
    assert [one["key"] for one in told(served, f"{at}?search=PAGE%205")["items"]] == ["5"]
    for asked, field in (
        ("offset=-1", "offset"),
        ("limit=0", "limit"),
        ("limit=2001", "limit"),
        ("version=x", "version"),
    ):
        response = served.get(f"{at}?{asked}")
        assert (response.status_code, response.json()["field"]) == (422, field)


def test_the_log_tells_attempts_and_outcomes_the_latest_first(served, night):
    found, count = pages(served, f"{night}/log?limit=10")
    texts = [line["text"] for line in found]
    assert (len(found), count) == (34, 4)
    assert sorted(found, key=lambda line: line["at"], reverse=True) == found
    assert sum(line["level"] == "bad" for line in found) == 6
    assert "7: attempt 1 failed: ConnectionError: went away; it is tried again" in texts
    assert any(text.startswith("7 completed in ") and text.endswith(", 2 attempts") for text in texts)
    assert any(text.startswith("5 failed in ") and text.endswith(": no page 5") for text in texts)


@pytest.mark.parametrize("part", ["", "/items", "/groups", "/errors", "/log"])
@pytest.mark.parametrize(
    "id_",
    ["x", "0000000000000000-1", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e", "..%5c..%5cx", "%00", "a" * 3000, "ä-1", "-"],
)
def test_an_id_that_is_not_ours_reads_nothing(served, night, id_, part):
    answer = served.get(f"/sessions/{id_}{part}")
    assert answer.status_code in (400, 404)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "passwd" not in answer.text


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/sessions?state=asleep", "state"),
        ("/sessions?state=completed,nothing", "state"),
        ("/sessions?limit=101", "limit"),
        ("/sessions?limit=0", "limit"),
        ("/sessions?limit=ten", "limit"),
        ("/sessions?cursor=nonsense", "cursor"),
        (f"/sessions?name={'n' * 51_000}", "name"),
        ("NIGHT/items?status=pending", "status"),
        ("NIGHT/items?group=-1", "group"),
        ("NIGHT/items?group=99999999999999999999", "group"),
        ("NIGHT/items?limit=1e3", "limit"),
        ("NIGHT/items?cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "cursor"),  # 10 to the 24th
        ("NIGHT/groups?cursor=W10", "cursor"),
        ("NIGHT/errors?limit=-1", "limit"),
        ("NIGHT/log?cursor=MQ", "cursor"),
        ("NIGHT/log?cursor=WzEsMSw5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OV0", "cursor"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_by_its_name(served, night, path, field):
    problem = told(served, path.replace("NIGHT", night), 422)
    assert (problem["field"], problem["status"]) == (field, 422)
    assert problem["message"] == problem["detail"]


@pytest.mark.parametrize("number", [-5, 0, 1 << 41, (1 << 62), -(1 << 62)])
def test_a_place_that_is_nowhere_gives_an_empty_page_or_all(served, night, number):
    from ipybatch.server.cursor import to_cursor

    for part, value in (("items", number), ("groups", number), ("errors", number), ("log", [1.5e300, number, number])):
        page = told(served, f"{night}/{part}?cursor={to_cursor(value)}")
        assert page["next"] is None


def test_a_place_before_the_first_leads_to_no_other_session(served, night, plan, clock):
    from ipybatch.server.cursor import to_cursor

    clock.run(plan(work, [101, 102], name="later"))
    later = night.rpartition("-")[0] + "-2"
    found = told(served, f"{later}/items?cursor={to_cursor(-(1 << 62))}")
    assert [item["key"] for item in found["items"]] == [101, 102]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("UPDATE run SET notes = '{'", ""),
        ("UPDATE run SET notes = '{'", "/panel"),
        ("UPDATE run SET listing = x'01'", "/items"),
        ("UPDATE run SET listing = x'01'", "/panel"),
        ("UPDATE item SET error = x'ff'", "/items"),
        ("UPDATE plan SET tasks = x'ff'", "/results.csv"),
        ("UPDATE payload SET result = x'ff'", "/results.jsonl"),
        ("UPDATE run SET total = 'many'", "/results.parquet"),
    ],
)
def test_what_ipybatch_did_not_write_is_told_in_a_sentence(served, night, journal, change, part):
    with closing(sqlite3.connect(journal)) as database, database:
        database.execute(change)
    problem = told(served, f"{night}{part}", 503)
    assert problem["detail"].startswith("journal journal.db is damaged (")


@pytest.mark.parametrize(
    "part", ["", "/items", "/groups", "/errors", "/log", "/failures", "/panel", "/results.csv", "/results.jsonl"]
)
def test_a_journal_that_another_program_holds_is_there_again_in_a_moment(served, tmp_path, monkeypatch, part):
    """Every route that reads says so as its description tells, and how long to wait."""
    write_runs(tmp_path / "journal.sqlite3", [{}])
    path = f"/sessions/{told(served, '/sessions')['items'][0]['id']}{part}"
    monkeypatch.setattr(history, "BUSY_S", 0.01)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite3", isolation_level=None)) as database:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("UPDATE run SET reason = 'held'")
        answer = served.get(path)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "is locked by another program" in answer.json()["detail"]
        (unread,) = told(served, "/sessions")["unread"]
        assert "is locked by another program" in unread
    assert served.get(path).status_code == 200


@pytest.mark.parametrize("steps", range(1, LATEST))
def test_what_an_older_version_recorded_is_read(served, tmp_path, steps):
    path = tmp_path / "journal.sqlite3"
    write_runs(path, [{"name": "old", "total": 2, "completed": 1, "failed": 1}], steps=steps)
    with closing(sqlite3.connect(path)) as database:
        columns = "id, key, digest, status, final, grp, attempts, seconds, ended_s, error, has_result"
        for values in (
            ((1 << 40), "1", "d", "completed", 1, 1, 1, 0.5, 20.0, "", 1),
            ((1 << 40) + 1, "2", "d", "failed", 1, 1, 1, 0.5, 21.0, "no", 0),
        ):
            database.execute(f"INSERT INTO item ({columns}) VALUES ({', '.join('?' * 11)})", values)
        database.execute("INSERT INTO payload VALUES (?, ?)", (1 << 40, json.dumps({"a": 1}).encode()))
        database.commit()
    before = path.read_bytes()
    (item,) = told(served, "/sessions")["items"]
    at = f"/sessions/{item['id']}"
    assert [group["items"] for group in told(served, at)["groups"]] == [2]
    assert [entry["result"] for entry in told(served, f"{at}/items")["items"]] == [{"a": 1}, None]
    assert [error["message"] for error in told(served, f"{at}/errors")["items"]] == ["no"]
    assert [line["text"] for line in told(served, f"{at}/log")["items"]] == [
        "2 failed in 0.5 s: no",
        "1 completed in 0.5 s",
    ]
    assert path.read_bytes() == before


def test_a_live_session_is_shown_with_what_is_in_flight(served, live, gate):
    session = live(gate, list(range(5)), limits=Limits(concurrency=2))
    session.start()
    gate.wait_begun(2)
    (item,) = told(served, "/sessions?state=running")["items"]
    assert told(served, f"/sessions/{item['id']}")["where"] == "in this kernel"
    gate.open()
    session.run()
    assert told(served, "/sessions?state=running")["items"] == []


def test_without_a_token_nothing_is_told(served, night):
    bare = {"Authorization": ""}
    for path in ("/sessions", night, f"{night}/items", "/sessions/nothing"):
        assert served.get(path, headers=bare).status_code == 403


def test_other_verbs_are_refused_with_those_that_are_possible(served, night):
    answer = served.request("PUT", f"{night}/items")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


def deleted(served, path, tag):
    return served.delete(path, headers={} if tag is None else {"If-Match": tag})


def test_a_session_is_deleted_as_it_was_read(served, night, journal):
    tag = served.get(night).headers["ETag"]
    assert (deleted(served, night, None).status_code, deleted(served, night, '"x"').status_code) == (428, 412)
    assert told(served, night)["counts"]["total"] == 30
    answer = deleted(served, night, tag)
    assert (answer.status_code, answer.content) == (204, b"")
    assert served.get(night).status_code == deleted(served, night, tag).status_code == 404
    assert told(served, "/sessions")["items"] == []
    with closing(sqlite3.connect(journal)) as database:
        for table in ("run", "item", "payload", "attempt", "plan", "traceback", "command"):
            assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


def test_another_run_of_the_name_stays(served, tmp_path):
    write_runs(tmp_path / "journal.sqlite3", [{"seconds": 1.0}, {"seconds": 2.0}])
    latest, first = told(served, "/sessions")["items"]
    assert deleted(served, f"/sessions/{latest['id']}", "*").status_code == 204
    assert told(served, "/sessions")["items"] == [first]


def test_what_runs_is_not_deleted(served, live, gate):
    session = live(gate, [1])
    session.start()
    gate.wait_begun(1)
    (item,) = told(served, "/sessions")["items"]
    at = f"/sessions/{item['id']}"
    answer = deleted(served, at, "*")
    assert (answer.status_code, answer.json()["detail"]) == (409, "the session is running in this kernel")
    gate.open()
    assert session.run().counts.completed == 1
    assert deleted(served, at, "*").status_code == 204


OTHER = "another-machine/1/x"


@pytest.mark.parametrize(
    ("owner", "silent_s", "status"),
    [(DEAD, 0, 204), (ALIVE, 3600, 409), (OTHER, 16, 409), (OTHER, 3600, 204)],
)
def test_only_what_is_gone_for_certain_is_deleted(served, tmp_path, owner, silent_s, status):
    write_runs(tmp_path / "journal.sqlite3", [{"state": "running", "owner": owner, "beat_s": time.time() - silent_s}])
    (item,) = told(served, "/sessions")["items"]
    assert deleted(served, f"/sessions/{item['id']}", "*").status_code == status
    assert len(told(served, "/sessions")["items"]) == (status == 409)


def test_a_submission_that_has_not_ended_is_not_deleted(served, tmp_path):
    path = tmp_path / "journal.sqlite3"
    (number,) = write_runs(path, [{"state": "failed"}])
    submit(path, number, "PENDING")
    (item,) = told(served, "/sessions")["items"]
    answer = deleted(served, f"/sessions/{item['id']}", "*")
    assert (answer.status_code, answer.json()["next_step"]) == (409, "cancel submission s1 first")


def test_images_of_a_submission_go_with_its_session_and_no_others(served, tmp_path):
    """What another run holds too stays, as does what lies elsewhere: where a user's own `images_to=` leads."""
    journal, folder = tmp_path / "journal.sqlite3", tmp_path / "images" / "night"
    first, latest, own = write_runs(
        journal, [{"workload": "gemini"}, {"workload": "gemini"}, {"workload": "gemini", "name": "own"}]
    )
    submit(journal, latest)
    folder.mkdir(parents=True)
    files = {name: folder / name for name in ("1.png", "2.png", "3.png", "mine.txt")} | {
        "users": tmp_path / "users.png"
    }
    files["of own"] = tmp_path / "images" / "own" / "1.png"
    files["of own"].parent.mkdir()
    for file in files.values():
        file.write_bytes(b"x")
    held = {first: ["1.png"], latest: ["1.png", "2.png", "3.png", "users"], own: ["of own"]}
    with closing(sqlite3.connect(journal)) as database, database:
        for run, names in held.items():
            result = msgspec.json.encode(
                {"files": [str(files[name]) for name in names], "file": str(folder / "gone.png")}
            )
            database.execute("INSERT INTO payload VALUES (?, ?)", (run << 40, result))
    for item in told(served, "/sessions?name=night")["items"]:
        if item["submission"]:
            assert deleted(served, f"/sessions/{item['id']}", "*").status_code == 204
    assert [name for name, file in files.items() if not file.exists()] == ["2.png", "3.png"]
    (item,) = told(served, "/sessions?name=own")["items"]
    assert deleted(served, f"/sessions/{item['id']}", "*").status_code == 204
    assert files["of own"].exists(), "no submission made that folder"


def test_the_files_of_a_forecast_go_with_it(served, journal):
    session = forecast(demand(), horizon=5, models=["naive"], journal=journal, backend=Inline())
    session.run()
    assert list(journal.parent.glob("journal-forecasts/*/*.arrow"))
    (item,) = told(served, "/sessions")["items"]
    assert deleted(served, f"/sessions/{item['id']}", "*").status_code == 204
    assert list(journal.parent.glob("journal-forecasts/*")) == []
