"""Results as files are those of `BatchSession.save`, in bounded pieces; images go by their recorded name alone."""

import gc
import io
import itertools
import os
import random
import sqlite3
import time
from contextlib import closing

import httpx2
import msgspec
import pytest
from pyarrow import parquet

from ipybatch import Permanent
from ipybatch.engine.store.journal import open_journal
from ipybatch.forecast import forecast
from ipybatch.server import result_pages
from tests.forecast.test_session import Inline, demand
from tests.server.conftest import write_runs

SUFFIXES = ("csv", "jsonl", "parquet")


def odd(item):
    """Results of every kind: numbers of both kinds, texts that begin a formula, names of ours, lists, none."""
    if item % 9 == 8:
        msg = f"=no {item}"
        raise Permanent(msg)
    kinds = [
        {"n": item, "=text": "=1+1", "status": "mine"},
        {"n": item + 0.5, "text": f'a "quoted", {item}\r\nline', "error": None},
        {"n": None, "list": [1, {"a": 2}], "flag": True},
        {"late": item, "flag": None, "result": "own"},
        {"text": "-5", "big": 10**20 if item > 20 else 5},
        None,
        "plain" if item % 2 else item,
    ]
    return kinds[item % len(kinds)]


def url(served, suffix, **found):
    (item,) = served.get("/sessions", params=found).json()["items"]
    return f"/sessions/{item['id']}/results.{suffix}"


def saved(session, suffix, tmp_path):
    return session.save(tmp_path / f"saved.{suffix}").read_bytes()


def same(suffix, sent, wanted):
    if suffix == "parquet":
        ours, theirs = (parquet.read_table(io.BytesIO(data)) for data in (sent, wanted))
        assert ours.column_names == theirs.column_names
        assert ours.to_pylist() == theirs.to_pylist()
    else:
        assert sent == wanted


@pytest.fixture
def small(monkeypatch):
    """Pieces of a few rows."""
    monkeypatch.setattr(result_pages, "PIECE_BYTES", 100)


WORKS = {
    "odd": odd,
    "numbers": lambda item: {"whole": item, "either": item if item % 2 else item / 2, "bool": item > 3},
    "plain": lambda item: item * 1.5,
    "nothing": lambda item: None,
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("name", "suffix"), [*itertools.product(WORKS, SUFFIXES)])
def test_a_file_is_what_save_writes(served, plan, tmp_path, name, suffix):
    session = plan(WORKS[name], list(range(40)), clock=None)
    session.run()
    answer = served.get(url(served, suffix))
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"] == f'attachment; filename="wishlist.{suffix}"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    same(suffix, answer.content, saved(session, suffix, tmp_path))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("given", "suffix"), [*itertools.product((list, iter), ("csv", "jsonl"))])
def test_a_file_is_in_the_order_of_the_latest_list(served, plan, tmp_path, given, suffix):
    """Others, fewer and changed items: what the list does not have is left out, what it has anew is to be done."""
    plan(odd, given(range(30)), clock=None).run()
    items = [*range(25, 5, -1), *range(40, 50)]
    random.Random(5).shuffle(items)
    session = plan(odd, given(items), clock=None)
    session.run()
    same(suffix, served.get(url(served, suffix)).content, saved(session, suffix, tmp_path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_not_done_is_a_row_too(served, plan, clock, tmp_path, suffix):
    def fail(item):
        raise Permanent("no") if item == 3 else ValueError(item)

    session = plan(lambda item: fail(item) if item > 2 else item, list(range(2500)), on_failure="stop")
    clock.run(session)
    answer = served.get(url(served, suffix))
    same(suffix, answer.content, saved(session, suffix, tmp_path))


def test_an_older_schema_gives_its_results(served, tmp_path):
    path = tmp_path / "journal.sqlite3"
    write_runs(path, [{"name": "old", "total": 1}], steps=1)
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "INSERT INTO item VALUES (?, '\"a\"', 'd', 'completed', 1, 0, 1, 0.5, 20.0, '', 1)", (1 << 40,)
        )
        database.execute("INSERT INTO payload VALUES (?, ?)", (1 << 40, b'{"x": 7}'))
        database.commit()
    assert served.get(url(served, "csv")).text == "key,status,attempts,seconds,error,x\r\na,completed,1,0.5,,7\r\n"


def test_of_what_runs_only_what_had_ended_is_told(served, live, gate, journal):
    session = live(gate, [1, 2, 3])
    session.start()
    gate.wait_begun(3)
    lines = served.get(url(served, "jsonl")).content.splitlines()
    assert [msgspec.json.decode(line)["status"] for line in lines] == ["pending"] * 3
    gate.open()
    session.run()
    pages = result_pages.Pages(journal, 1, "running", before_s=0.0)
    assert [row[1] for page in pages for row in page] == ["pending"] * 3


def test_head_tells_what_get_would_send(served, plan, clock):
    clock.run(plan(odd, [1]))
    head = served.request("HEAD", url(served, "csv"))
    assert (head.status_code, head.content, head.headers["Content-Type"]) == (200, b"", "text/csv; charset=utf-8")
    assert "Content-Length" not in head.headers, "it is not known, and not 0"


def test_a_piece_holds_no_more_than_its_bytes(served, plan, clock, journal):
    clock.run(plan(lambda item: "x" * 400_000, list(range(20))))
    sizes = [sum(len(row[-1]) for row in page) for page in result_pages.Pages(journal, 1, "completed")]
    assert sum(sizes) == 20 * 400_000
    assert max(sizes) <= result_pages.PIECE_BYTES + 400_000


def test_no_transaction_stays_open_between_pieces(served, plan, clock, journal, small):
    clock.run(plan(odd, list(range(30))))
    pieces = result_pages.pieces(journal, 1, "completed", "csv", is_live=False)
    next(pieces)
    with closing(sqlite3.connect(journal, timeout=0)) as database:
        (busy, *_) = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0


def test_a_file_that_cannot_be_sent_to_its_end_is_cut(served, plan, clock, monkeypatch):
    """It is not ended as a whole one is: curl and browsers say that it broke off."""
    clock.run(plan(odd, list(range(30))))
    told = iter([b"key,status\r\n"])

    def broken(*given, **more):
        yield from told
        raise OSError("gone")

    monkeypatch.setattr(result_pages, "pieces", broken)
    with pytest.raises(httpx2.RemoteProtocolError):
        served.get(url(served, "csv"))


@pytest.mark.parametrize("piece", [b"x" * 100_000, b""], ids=["while it is sent", "while its columns are looked for"])
def test_a_reader_that_goes_away_ends_it(served, plan, clock, monkeypatch, piece):
    clock.run(plan(odd, [1]))
    made, ended = [], []

    def endless(*given, **more):
        try:
            while True:
                made.append(1)
                yield piece or (b"" if len(made) > 1 else b"key")
        finally:
            ended.append(len(made))

    monkeypatch.setattr(result_pages, "pieces", endless)
    served.client.cookies.clear()
    at = f"/ipybatch/api/v1{url(served, 'csv')}"
    with served.client.stream("GET", at) as answer:
        next(answer.iter_bytes())
    until_s = time.monotonic() + 20
    while not ended:
        gc.collect()
        assert time.monotonic() < until_s
        time.sleep(0.02)
    assert made


@pytest.mark.parametrize("path", ["results.csv", "results.exe", "files/x.png", "results.csv/"])
def test_what_is_not_there_is_not_found(served, path):
    answer = served.get(f"/sessions/{'0' * 16}-1/{path}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("on_failure", ["continue", "rollback"])
def test_a_forecast_is_one_file_and_all_or_nothing(served, journal, tmp_path, on_failure, suffix):
    table = demand(sites=("Ambon", "=Palu", "Sofifi"))
    backend = Inline(fails=("Sofifi",))
    given = {"horizon": 5, "models": ["naive"], "journal": journal, "backend": backend, "on_failure": on_failure}
    session = forecast(table, **given)
    session.run()
    answer = served.get(url(served, suffix))
    assert answer.headers["Content-Disposition"] == f'attachment; filename="forecast.{suffix}"'
    wanted = saved(session, suffix, tmp_path)
    if suffix == "parquet":
        same(suffix, answer.content, wanted)
        return
    assert answer.content.strip() == wanted.strip()
    assert answer.content.count(b"\n") == (0 if on_failure == "rollback" else 40) + (suffix == "csv")


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))


@pytest.fixture
def pictures(served, plan, clock, tmp_path):
    """A session of Gemini whose results name files; and a folder with others."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("1.png", "1.2.png", "other.png"):
        (folder / name).write_bytes(PNG)
    (folder / "text.png").write_text("<script>")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.txt")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    named = {
        1: {"file": str(folder / "1.png"), "files": [str(folder / "1.png"), str(folder / "1.2.png")]},
        2: {"file": str(folder / "link.png")},
        3: {"file": str(folder / "folder.png")},
        4: {"file": str(folder / "pipe.png")},
        5: {"file": str(folder / "text.png")},
        6: {"file": "s3://bucket/far.png"},
        7: {"file": str(folder / ".." / "secret.txt")},
        8: {"file": str(folder / "gone.png")},
        9: {"text": "other.png"},
        10: {"file": "relative.png"},
    }
    clock.run(plan(lambda item: named[item], list(named), name="art"))
    journal = open_journal(tmp_path / "journal.db")
    journal.write(lambda database: database.execute("UPDATE run SET workload = 'gemini'"))
    (item,) = served.get("/sessions").json()["items"]
    return f"/sessions/{item['id']}/files"


@pytest.mark.parametrize("name", ["1.png", "1.2.png"])
def test_an_image_that_a_result_names_is_sent(served, pictures, name):
    answer = served.get(f"{pictures}/{name}")
    assert (answer.status_code, answer.content) == (200, PNG)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    head = served.request("HEAD", f"{pictures}/{name}")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(PNG)))


def test_what_is_no_image_is_not_shown_as_one(served, pictures):
    answer = served.get(f"{pictures}/text.png")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="text.png"'


@pytest.mark.parametrize(
    "name",
    [
        "link.png",
        "folder.png",
        "pipe.png",
        "far.png",
        "secret.txt",
        "gone.png",
        "other.png",
        "relative.png",
        "..%2fsecret.txt",
        "%2e%2e%2fsecret.txt",
        "..%5csecret.txt",
        "%2fetc%2fpasswd",
        ".png",
        "1.png%00",
        "*",
        "a" * 300,
    ],
)
def test_nothing_else_is_read(served, pictures, name):
    answer = served.get(f"{pictures}/{name}")
    assert answer.status_code in (400, 404)
    assert "secret" not in answer.text.replace("secret.txt", "")


def test_a_file_that_the_users_own_code_names_is_not_read(served, plan, clock, tmp_path):
    (tmp_path / "1.png").write_bytes(PNG)
    clock.run(plan(lambda item: {"file": str(tmp_path / "1.png")}, [1]))
    (item,) = served.get("/sessions").json()["items"]
    assert served.get(f"/sessions/{item['id']}/files/1.png").status_code == 404
