"""The routes of uploads, over a real server."""

import gzip
import hashlib
import http.client
import json
import os
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

pytest.importorskip("pyarrow")
from ipybatch.server import upload_store
from ipybatch.simulators.demand import demand
from tests.forecast.data.spreadsheet import xlsx

TABLE = demand(60, 2)
CSV = TABLE.to_csv(index=False).encode()
SHEET = xlsx({"Data": [list(TABLE.columns), *(list(row) for row in TABLE.itertuples(index=False))]})
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


@pytest.fixture
def kept_here(served, monkeypatch):
    """The server, which reads tables in its own process: that is quicker."""

    async def at_once(work, *arguments):
        return work(*arguments)

    monkeypatch.setattr(upload_store, "apart", at_once)
    return served


def send(served, data, content_type, path="/uploads", **headers):
    return served.post(path, content=data, headers={"Content-Type": content_type, **headers})


def names():
    folder = upload_store.folder_of()
    return [path.name for path in folder.iterdir()] if folder.exists() else []


WAYS = [
    ("text/csv", "/uploads", CSV),
    ("text/csv; charset=UTF-8", "/uploads", CSV),
    ("text/csv; charset=latin-1", "/uploads", CSV),
    ("text/csv", "/uploads", CSV.decode().encode("utf-16")),
    ("text/tab-separated-values", "/uploads", CSV.replace(b",", b"\t")),
    ("text/plain", "/uploads?filename=demand.txt", CSV.replace(b",", b";")),
    ("application/gzip", "/uploads?filename=demand.csv.gz", gzip.compress(CSV)),
    (XLSX, "/uploads", SHEET),
    ("application/vnd.apache.parquet", "/uploads", TABLE.to_parquet()),
    ("application/x-parquet", "/uploads", TABLE.to_parquet()),
    ("application/octet-stream", "/uploads?filename=../../etc/x.parquet", TABLE.to_parquet()),
]


@pytest.mark.parametrize(("content_type", "path", "data"), WAYS)
def test_a_body_is_kept_as_a_table(kept_here, content_type, path, data):
    answer = send(kept_here, data, content_type, path)
    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert (told["rows"], told["columns"], told["bytes"]) == (60, [*TABLE.columns], len(data))
    assert told["analysis"]["sites"] == 2
    assert answer.headers["Location"].endswith(f"/uploads/{told['id']}")
    again = kept_here.get(answer.headers["Location"])
    assert again.json() == told
    unchanged = kept_here.get(answer.headers["Location"], headers={"If-None-Match": again.headers["ETag"]})
    assert unchanged.status_code == 304
    assert {name.partition(".")[0] for name in names()} == {told["id"]}


@pytest.mark.parametrize("filename", ["demand.csv", "../../demand.CSV"])
def test_a_form_is_kept_as_a_table(kept_here, filename):
    answer = kept_here.post("/uploads", files={"file": (filename, CSV, "application/vnd.ms-excel")}, data={"by": "x"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["rows"] == 60
    assert {name.partition(".")[0] for name in names()} == {answer.json()["id"]}


def test_a_body_in_chunks_is_kept(kept_here):
    answer = send(kept_here, (CSV[at : at + 100] for at in range(0, len(CSV), 100)), "text/csv")
    assert answer.status_code == 201, answer.text
    assert answer.json()["bytes"] == len(CSV)


def test_a_table_is_read_in_a_process_of_its_own(served):
    assert send(served, CSV, "text/csv").json()["rows"] == 60


GZIP = "text/csv+gzip"  # as the test says it
BAD = [
    ("image/png", CSV, 415, "Content-Type"),
    ("application/octet-stream", CSV, 415, "Content-Type"),
    ("text/csv; charset=klingon", CSV, 415, "Content-Type"),
    ("text/csv; charset=ascii", "Köln".encode(), 422, ""),
    (GZIP, CSV, 415, "Content-Encoding"),
    ("multipart/form-data", CSV, 422, ""),
    ("multipart/form-data; boundary=b", b"--b--\r\n", 422, "file"),
    (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx',
        422,
        "file",
    ),
    ("text/csv", b"", 422, ""),
    ("text/csv", TABLE.to_parquet(), 422, ""),
    ("application/x-parquet", b"PAR1 no more", 422, ""),
    ("text/csv", b"a," * 9999 + b"b\n", 422, ""),
    (XLSX, b"PK\x03\x04", 422, ""),
]


@pytest.mark.parametrize(("content_type", "data", "status", "field"), BAD)
def test_what_cannot_be_kept_is_refused_and_nothing_is_left(kept_here, content_type, data, status, field):
    plain, _, encoding = content_type.partition("+")
    answer = send(kept_here, data, plain, **({"Content-Encoding": encoding} if encoding else {}))
    told = answer.json()
    assert (answer.status_code, told["status"], told.get("field", "")) == (status, status, field), told
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert told["message"]
    assert names() == []


def limited(served, monkeypatch, **options):
    """Let the server take so much: options are frozen, but for a test."""
    monkeypatch.setattr(served.services, "options", replace(served.services.options, **options))


BIG = b"0123456789abcde\n" * 65536  # a MB and a bit


@pytest.mark.parametrize("content", [BIG * 3, iter([BIG] * 3)])
def test_any_other_body_is_limited_too(served, monkeypatch, content):
    limited(served, monkeypatch, max_body_mb=1)
    answer = served.request("GET", "/", content=content)
    assert (answer.status_code, answer.json()["allowed"]) == (413, {"maximum": 1_000_000, "max_body_mb": 1})
    assert served.request("GET", "/", content=BIG[:1000]).status_code == 200


@pytest.mark.parametrize("way", ["whole", "chunks", "form"])
def test_a_large_body_is_refused_with_the_limit_named(kept_here, monkeypatch, way):
    limited(kept_here, monkeypatch, max_upload_mb=1)
    if way == "form":
        answer = kept_here.post("/uploads", files={"file": ("a.csv", BIG * 3)})
    else:
        answer = send(kept_here, BIG * 3 if way == "whole" else iter([BIG] * 3), "text/csv")
    assert answer.status_code == 413
    told = answer.json()
    assert told["allowed"] == {"maximum": 1_000_000, "max_upload_mb": 1}
    assert "1 MB" in told["detail"]
    assert "max_upload_mb" in told["next_step"]
    assert names() == []
    assert kept_here.get("/").status_code == 200


def test_the_refusal_comes_before_the_body(served):
    """A client that looks sees it with the first bytes; one that sends on can do so, and sees it then."""
    at = urlsplit(served.url)
    client = http.client.HTTPConnection(at.hostname, at.port, timeout=20)
    client.putrequest("POST", "/ipybatch/api/v1/uploads")
    for name, value in {"Authorization": served.client.headers["Authorization"], "Content-Type": "text/csv"}.items():
        client.putheader(name, value)
    client.putheader("Content-Length", "1000000000")
    client.endheaders()
    client.send(b"a,b\n")
    client.sock.settimeout(20)
    head = client.sock.recv(65536)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert json.loads(head.partition(b"\r\n\r\n")[2])["status"] == 413
    client.send(b"a,b\n" * 100_000)
    client.close()
    assert served.get("/").status_code == 200


def test_a_client_that_waits_to_be_asked_is_not_asked(served):
    at = urlsplit(served.url)
    client = http.client.HTTPConnection(at.hostname, at.port, timeout=20)
    headers = {"Content-Type": "image/png", "Content-Length": "1000", "Expect": "100-continue"}
    client.request("POST", "/ipybatch/api/v1/uploads", headers={**headers, **dict(served.client.headers)})
    assert client.getresponse().status == 415
    client.close()


@pytest.mark.parametrize("length", ["10", "100000000"])
def test_nobody_sends_without_a_token(served, length):
    at = urlsplit(served.url)
    client = http.client.HTTPConnection(at.hostname, at.port, timeout=20)
    client.request(
        "POST",
        "/ipybatch/api/v1/uploads",
        body=b"a,b\n1,2\n\n\n",
        headers={"Content-Type": "text/csv", "Content-Length": length},
    )
    assert client.getresponse().status == 403
    client.close()
    assert names() == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods_say_which_are_possible(served, method):
    answer = served.request(method, "/uploads", content=b"x" * 1000)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST, OPTIONS")
    assert served.request("OPTIONS", "/uploads", content=b"x").status_code == 204


def test_what_cannot_be_written_at_last_is_told_in_a_sentence(kept_here):
    """Such as on a disk that is full by then."""
    told = upload_store.folder_of() / f"{hashlib.sha256(CSV).hexdigest()[:32]}.json"
    (told / "in the way").mkdir(parents=True)
    answer = send(kept_here, CSV, "text/csv")
    assert (answer.status_code, answer.json()["detail"]) == (503, "the upload cannot be kept: Is a directory")


@pytest.mark.parametrize("name", ["0" * 32, "x", "..%2Fjournal", "%2e%2e%2fjournal"])
def test_what_is_not_there_is_not_found(served, name):
    answer = served.get(f"/uploads/{name}")
    assert answer.status_code == 404
    assert "application/problem+json" in answer.headers["Content-Type"]


def test_old_ones_go_when_another_comes(kept_here):
    old = send(kept_here, CSV, "text/csv").json()["id"]
    for path in upload_store.folder_of().iterdir():
        os.utime(path, (1.0, 1.0))
    new = send(kept_here, CSV.replace(b"Makassar", b"Palu"), "text/csv").json()["id"]
    assert {name.partition(".")[0] for name in names()} == {new} != {old}


@pytest.mark.parametrize(
    ("method", "body", "status", "stays"),
    [("PUT", b"", 405, True), ("PUT", b"abc", 405, True), ("PROPFIND", b"", 405, True)],
)
def test_a_refusal_keeps_the_connection_or_says_that_it_does_not(served, method, body, status, stays):
    at = urlsplit(served.url)
    client = http.client.HTTPConnection(at.hostname, at.port, timeout=20)
    client.request(method, "/ipybatch/api/v1/", body=body, headers=dict(served.client.headers))
    answer = client.getresponse()
    answer.read()
    assert (answer.status, answer.headers["Connection"]) == (status, None if stays else "close")
    before = client.sock
    client.request("GET", "/ipybatch/api/v1/", headers={"Authorization": served.client.headers["Authorization"]})
    assert client.getresponse().status == 200
    assert (client.sock is before) == stays
    client.close()
