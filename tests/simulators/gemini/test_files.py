import base64
import hashlib
import json
import math
from urllib.parse import quote

import pytest

from ipybatch.simulators import GeminiSimulator, Request

KEY = {"X-Goog-Api-Key": "SIMULATED", "Host": "127.0.0.1:99"}


def begin(service, about=None):
    headers = KEY | {"X-Goog-Upload-Command": "start"}
    content = json.dumps({"file": about or {"display_name": "in", "mime_type": "application/jsonl"}}).encode()
    return service.handle(Request("/upload/v1beta/files", "POST", headers, content), 0.0).headers["X-Goog-Upload-URL"]


def piece(service, url, offset, content, command="upload"):
    headers = {"X-Goog-Upload-Command": command, "X-Goog-Upload-Offset": str(offset), "Host": "127.0.0.1:99"}
    return service.handle(Request(url, "POST", headers, content), 0.0)


def upload(service, content=b"abc", about=None):
    return json.loads(piece(service, begin(service, about), 0, content, "upload, finalize").body)["file"]


def ask(service, method, path, now_s=0.0):
    reply = service.handle(Request(path, method, KEY), now_s)
    return reply.status, json.loads(reply.body)


def test_a_file_comes_in_pieces():
    service = GeminiSimulator()
    url = begin(service)
    first = piece(service, url, 0, b"abc")
    last = piece(service, url, 3, b"de", "upload, finalize")
    assert (first.headers["X-Goog-Upload-Status"], last.headers["X-Goog-Upload-Status"]) == ("active", "final")
    shown = json.loads(last.body)["file"]
    digest = base64.b64encode(hashlib.sha256(b"abcde").hexdigest().encode()).decode()
    assert (shown["sizeBytes"], shown["state"], shown["sha256Hash"]) == ("5", "ACTIVE", digest)
    assert (shown["displayName"], shown["mimeType"]) == ("in", "application/jsonl")


def test_no_reply_sends_the_client_to_the_real_service():
    """Uploads and addresses of files lead back to where the request came in."""
    service = GeminiSimulator()
    assert begin(service).startswith("http://127.0.0.1:99/upload/v1beta/files?upload_id=")
    assert upload(service)["uri"].startswith("http://127.0.0.1:99/")


@pytest.mark.parametrize("offset", [1, 2, 4])
def test_a_piece_out_of_place_is_refused(offset):
    service = GeminiSimulator()
    url = begin(service)
    piece(service, url, 0, b"abc")
    assert piece(service, url, offset, b"de").status == 400


def test_an_unknown_upload_is_refused():
    assert piece(GeminiSimulator(), "/upload/v1/files?upload_id=none", 0, b"abc").status == 400


def test_a_name_of_the_clients_own_is_kept():
    assert upload(GeminiSimulator(), about={"name": "files/mine"})["name"] == "files/mine"


def test_files_are_got_listed_in_pages_and_deleted():
    service = GeminiSimulator()
    names = [upload(service)["name"] for _ in range(3)]
    assert len(set(names)) == 3
    assert ask(service, "GET", f"/v1/{names[0]}")[1]["name"] == names[0]
    page = ask(service, "GET", "/v1/files?pageSize=2")[1]
    assert [file["name"] for file in page["files"]] == names[:2]
    page = ask(service, "GET", f"/v1/files?pageSize=2&pageToken={page['nextPageToken']}")[1]
    assert ([file["name"] for file in page["files"]], page.get("nextPageToken")) == (names[2:], None)
    assert ask(service, "DELETE", f"/v1/{names[0]}") == (200, {})
    assert ask(service, "GET", f"/v1/{names[0]}")[0] == ask(service, "DELETE", f"/v1/{names[0]}")[0] == 404


def test_a_file_lives_for_two_days():
    service = GeminiSimulator()
    name = upload(service)["name"]
    assert [ask(service, "GET", f"/v1/{name}", hours * 3600.0)[0] for hours in (47.9, 48)] == [200, 404]
    assert ask(service, "GET", "/v1/files?pageSize=5", 48 * 3600.0) == (200, {})


def test_only_generated_files_can_be_downloaded():
    service = GeminiSimulator()
    assert ask(service, "GET", f"/v1/{upload(service)['name']}:download?alt=media")[0] == 400
    assert ask(service, "GET", "/v1/files/none:download?alt=media")[0] == 404


def test_a_file_is_not_active_at_first_and_nothing_can_be_done_with_it(start):
    line = start(file_wait_s=30.0)
    file = line.upload(b'{"key": "k", "request": {"contents": [{"parts": [{"text": "a"}]}]}}\n')
    assert file["state"] == "PROCESSING"
    part = {"fileData": {"fileUri": file["uri"], "mimeType": "application/jsonl"}}
    asked = {"contents": [{"parts": [part, {"text": "read"}]}]}
    for status, answer in (
        line.create(file=file["name"]),
        line("POST", "/v1/models/gemini-2.5-flash:generateContent", asked),
    ):
        assert (status, answer["error"]["status"]) == (400, "FAILED_PRECONDITION")
        assert answer["error"]["message"].endswith("is not in an ACTIVE state and usage is not allowed.")
    line.advance(30.0)
    assert line("GET", f"/v1/{file['name']}")[1]["state"] == "ACTIVE"
    assert line.create(file=file["name"])[0] == 200
    assert line("POST", "/v1/models/gemini-2.5-flash:generateContent", asked)[0] == 200


@pytest.mark.parametrize(("status", "name"), [(404, "NOT_FOUND"), (403, "PERMISSION_DENIED")])
def test_a_file_that_is_too_old_is_gone(start, status, name):
    """Uploads and results alike, and for the prompts that refer to them."""
    line = start(gone_status=status, job_faults=[None])
    file = line.upload()
    job = line.job(line.ended("a", as_file=True))
    result = job["metadata"]["output"]["responsesFile"]
    line.advance(48 * 3600.0)
    asked = {"contents": [{"parts": [{"fileData": {"file_uri": file["uri"]}}, {"text": "read"}]}]}
    for seen, answer in (
        line("GET", f"/v1/{file['name']}"),
        line("DELETE", f"/v1/{file['name']}"),
        line("GET", f"/v1/{result}:download?alt=media"),
        line.create(file=file["name"]),
        line("POST", "/v1/models/gemini-2.5-flash:generateContent", asked),
    ):
        assert (seen, answer["error"]["status"]) == (status, name)
    if status == 403:
        assert answer["error"]["message"].startswith("You do not have permission to access the File ")
    assert line.job(job["name"])["metadata"]["output"]["responsesFile"] == result


@pytest.mark.parametrize(
    ("options", "code"),
    [({"gone_status": 403, "file_life_s": 5.0, "batch_delay_s": 6.0}, 7), ({"file_wait_s": math.inf}, 9)],
)
def test_an_item_with_an_old_file_fails_alone(start, options, code):
    line = start(**options)
    file = line.upload()
    requests = [
        {"contents": [{"parts": [{"fileData": {"fileUri": file["uri"]}}, {"text": "old"}]}]},
        {"contents": [{"parts": [{"text": "sound"}]}]},
    ]
    source = {"requests": {"requests": [{"request": request} for request in requests]}}
    path = "/v1/models/gemini-2.5-flash:batchGenerateContent"
    name = line("POST", path, {"batch": {"displayName": "d", "inputConfig": source}})[1]["name"]
    line.advance(10.0)
    old, sound = line.job(name)["response"]["inlinedResponses"]["inlinedResponses"]
    assert (old["error"]["code"], "response" in sound) == (code, True)


def test_a_file_of_another_key_may_not_be_seen(start):
    line = start(keys=["OTHER"])
    file = line.upload()
    for status, answer in (
        line("GET", f"/v1/{file['name']}", key="OTHER"),
        line.create(file=file["name"], key="OTHER"),
    ):
        assert (status, answer["error"]["status"]) == (403, "PERMISSION_DENIED")
    assert line("GET", "/v1/files", key="OTHER") == (200, {})


def test_files_that_are_never_removed_fill_the_storage(start):
    """The refusal tells 292 billion years; deleting a file makes room."""
    line = start(storage_bytes=1000, file_life_s=math.inf, keys=["OTHER"])
    first, _ = line.upload(b"x" * 600), line.upload(b"x" * 400)
    assert "expirationTime" not in first
    line.advance(1000 * 3600.0)
    error = line.upload(b"x")["error"]
    assert (error["code"], error["status"]) == (429, "RESOURCE_EXHAUSTED")
    assert "file_storage_bytes, limit: 1000" in error["message"]
    details = {entry["@type"].rpartition(".")[2]: entry for entry in error["details"]}
    assert details["QuotaFailure"]["violations"][0]["quotaId"] == "FileStorageBytesPerProject"
    assert details["RetryInfo"]["retryDelay"] == "9223372036854775807s"
    assert "name" in line.upload(b"x", key="OTHER")
    line("DELETE", f"/v1/{first['name']}")
    assert "name" in line.upload(b"x" * 600)


def test_the_storage_holds_20_gib_unless_told(start):
    line = start()
    assert "name" in line.upload(size=21_474_836_480)
    assert line.upload(size=21_474_836_480)["error"]["code"] == 429


@pytest.mark.parametrize("what", ["files", "batches", "models"])
def test_page_tokens_may_hold_what_must_be_escaped(start, what):
    line = start(plus_tokens=True)
    for number in range(3):
        line.upload()
        line.create(f"{number}", name=f"d{number}")
    page = line("GET", f"/v1/{what}?pageSize=1")[1]
    token = page["nextPageToken"]
    assert "+" in token
    status, answer = line("GET", f"/v1/{what}?pageSize=1&pageToken={token}")
    assert (status, answer["error"]["message"]) == (400, "Invalid page token.")
    status, following = line("GET", f"/v1/{what}?pageSize=1&pageToken={quote(token, safe='')}")
    assert status == 200
    first, second = (next(iter(p.values()))[0]["name"] for p in (page, following))
    assert first != second


def test_a_result_that_was_deleted_does_not_come_back_empty(start):
    line = start()
    job = line.job(line.ended("a", as_file=True))
    result = job["metadata"]["output"]["responsesFile"]
    assert line("DELETE", f"/v1/{result}") == (200, {})
    line.job(job["name"])
    assert line("GET", f"/v1/{result}")[0] == 404


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"file_wait_s": -1}, "file_wait_s must be >= 0 seconds, got -1"),
        ({"file_life_s": 0}, "file_life_s must be > 0 seconds, got 0"),
        ({"gone_status": 410}, "gone_status must be 403 or 404, got 410"),
        ({"storage_bytes": -1}, "storage_bytes must be >= 0, got -1"),
    ],
)
def test_options_of_files_are_checked(start, options, message):
    with pytest.raises(ValueError, match=message):
        start(**options)
