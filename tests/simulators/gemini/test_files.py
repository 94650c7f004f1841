import base64
import hashlib
import json

import pytest

from ipybatch.simulators import GeminiSimulator, Request

KEY = {"X-Goog-Api-Key": "SIMULATED", "Host": "127.0.0.1:99"}


def start(service, about=None):
    headers = KEY | {"X-Goog-Upload-Command": "start"}
    content = json.dumps({"file": about or {"display_name": "in", "mime_type": "application/jsonl"}}).encode()
    return service.handle(Request("/upload/v1beta/files", "POST", headers, content), 0.0).headers["X-Goog-Upload-URL"]


def piece(service, url, offset, content, command="upload"):
    headers = {"X-Goog-Upload-Command": command, "X-Goog-Upload-Offset": str(offset), "Host": "127.0.0.1:99"}
    return service.handle(Request(url, "POST", headers, content), 0.0)


def upload(service, content=b"abc", about=None):
    return json.loads(piece(service, start(service, about), 0, content, "upload, finalize").body)["file"]


def ask(service, method, path, now_s=0.0):
    reply = service.handle(Request(path, method, KEY), now_s)
    return reply.status, json.loads(reply.body)


def test_a_file_comes_in_pieces():
    service = GeminiSimulator()
    url = start(service)
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
    assert start(service).startswith("http://127.0.0.1:99/upload/v1beta/files?upload_id=")
    assert upload(service)["uri"].startswith("http://127.0.0.1:99/")


@pytest.mark.parametrize("offset", [1, 2, 4])
def test_a_piece_out_of_place_is_refused(offset):
    service = GeminiSimulator()
    url = start(service)
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
