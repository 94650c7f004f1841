"""The routes of templates: listed, read, written, deleted; what is refused, and how that is said."""

import json

import pytest

from ipybatch import BatchSession, templates
from ipybatch.server.templates import TEMPLATES

MINE = {
    "based_on": "text",
    "description": "Short",
    "params": {"lane": "online", "system": "Be short.", "breaker": None},
}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "k" * 20)


def put(served, name="mine", body=MINE, **headers):
    return served.request(
        "PUT", f"/templates/{name}", json=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def refused(answer, status, field=""):
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert (answer.status_code, told.get("field", "")) == (status, field), told
    return told


def test_what_ships_is_listed_and_read(served):
    listed = served.get("/templates")
    items = listed.json()["items"]
    assert [item["name"] for item in items] == list(TEMPLATES)
    assert {(item["kind"], item["changed"], *item["can"]) for item in items} == {("shipped", None, "submit")}
    assert served.get("/templates", headers={"If-None-Match": listed.headers["ETag"]}).status_code == 304
    assert served.get("/templates/text").json()["params"]["model"] == "gemini-2.5-flash"
    assert served.get("/").json()["templates"] == list(TEMPLATES)


def test_one_is_written_read_changed_and_deleted(served):
    made = put(served)
    assert (made.status_code, made.headers["Location"]) == (201, "/ipybatch/api/v1/templates/mine")
    read = served.get("/templates/mine")
    assert read.headers["ETag"] == made.headers["ETag"]
    assert {field: read.json()[field] for field in MINE} == MINE
    assert templates.load("mine").params == MINE["params"]
    assert served.get("/").json()["templates"] == [*TEMPLATES, "mine"]
    listed = served.get("/templates").json()["items"][-1]
    assert (listed["name"], listed["kind"], listed["based_on"], listed["can"]) == (
        "mine", "own", "text", ["submit", "edit"],
    )  # fmt: skip
    assert listed["changed"].endswith("Z")
    changed = put(served, body={**read.json(), "description": "Shorter"}, If_Match=read.headers["ETag"])
    assert changed.status_code == 200
    assert served.get("/templates/mine").headers["ETag"] == changed.headers["ETag"] != read.headers["ETag"]
    assert served.delete("/templates/mine", headers={"If-Match": changed.headers["ETag"]}).status_code == 204
    assert served.get("/templates/mine").status_code == 404


def test_nobody_writes_over_what_he_has_not_read(served):
    tag = put(served).headers["ETag"]
    assert refused(put(served), 428, "If-Match")["next_step"].startswith("GET the template")
    assert refused(put(served, If_Match='"other"'), 412, "If-Match")["allowed"] == tag
    refused(put(served, If_None_Match="*"), 412, "If-None-Match")
    refused(served.delete("/templates/mine"), 428, "If-Match")
    refused(served.delete("/templates/mine", headers={"If-Match": '"other"'}), 412, "If-Match")
    refused(put(served, "other", If_Match=tag), 412, "If-Match")
    assert put(served, "other", If_None_Match="*").status_code == 201
    assert put(served, If_Match=f'"other", W/{tag}').status_code == 200
    assert served.delete("/templates/mine", headers={"If-Match": "*"}).status_code == 204


def test_what_ships_stays_as_it_is(served):
    for name in ("text", "TEXT", "session"):
        refused(put(served, name), 409, "name")
        refused(served.delete(f"/templates/{name}", headers={"If-Match": "*"}), 409, "name")


@pytest.mark.parametrize("name", ["..%2Fmine", "%2Emine", "a%00b", "x" * 65, "con", "mine%20"])
def test_name_that_is_no_safe_file(served, name, tmp_path):
    refused(put(served, name), 422, "name")
    refused(served.get(f"/templates/{name}"), 404)
    refused(served.delete(f"/templates/{name}", headers={"If-Match": "*"}), 404)
    assert not [*tmp_path.rglob("*mine*")]


def test_what_is_not_there(served):
    refused(served.get("/templates/mine"), 404)
    refused(served.delete("/templates/mine", headers={"If-Match": "*"}), 404)


WRONG = [
    ({}, "body"),
    ({"based_on": "txt"}, "based_on"),
    ({"based_on": "text", "parms": {}}, "body"),
    ({"based_on": "text", "params": []}, "params"),
    ({"based_on": "text", "params": {"lane": "bach"}}, "params.lane"),
    ({"based_on": "text", "params": {"limits": {"concurency": 1}}}, "params.limits.concurency"),
    ({"based_on": "text", "params": {"api_key": "AKIAIOSFODNN7EXAMPLE"}}, "params.api_key"),
    ({"based_on": "text", "params": {"system": "AKIAIOSFODNN7EXAMPLE"}}, "params.system"),
    ({"based_on": "text", "priority": "urgent"}, "priority"),
    ({"based_on": "text", "start_at": "soon"}, "start_at"),
    ({"based_on": "text", "start_at": "22:00", "zone": "Europe/Berlim"}, "zone"),
    ({"based_on": "text", "notify": "nobody"}, "notify"),
    ({"based_on": "session", "params": {"work": "os:system"}}, "params.work"),
]


@pytest.mark.parametrize(("body", "field"), WRONG, ids=[json.dumps(body)[:60] for body, _ in WRONG])
def test_what_is_wrong_is_named(served, body, field):
    told = refused(put(served, body=body), 422, field)
    assert "AKIA" not in json.dumps(told)
    assert served.get("/templates/mine").status_code == 404


def test_a_file_that_somebody_broke_is_listed_and_can_be_put_right(served):
    path = templates.save("mine", templates.load("text"))
    path.write_text("based_on = ")
    listed = served.get("/templates").json()["items"][-1]
    assert (listed["name"], listed["can"]) == ("mine", ["edit"])
    assert listed["error"].startswith("mine.toml must be TOML")
    assert "mine.toml must be TOML" in refused(served.get("/templates/mine"), 422, "file")["detail"]
    refused(put(served), 428, "If-Match")
    assert put(served, If_Match="*").status_code == 200
    assert served.get("/templates/mine").status_code == 200


def test_a_template_for_python_is_listed_and_not_submitted(served):
    BatchSession("x", json.dumps, []).save_template("mine")
    listed = served.get("/templates").json()["items"][-1]
    assert (listed["can"], listed["error"]) == (["edit"], "")
    assert listed["reason"].startswith("is for a function of your own")
    assert listed["reason"].endswith("run it in Python: BatchSession.from_template('mine', items=...)")
    told = refused(served.post("/submissions", json={"template": "mine", "requests": [1]}), 422, "template")
    assert "BatchSession.from_template('mine', items=...)" in told["next_step"]
    read = served.get("/templates/mine")
    body = {**read.json(), "params": {**read.json()["params"], "timeout_s": 5}}
    assert put(served, body=body, If_Match=read.headers["ETag"]).status_code == 200
    assert templates.load("mine").params == {"work": "json:dumps", "timeout_s": 5}


def test_a_submission_names_one(served):
    put(served)
    given = {"template": "mine", "requests": ["A star"], "params": {"system": "Be long."}}
    quoted = served.post("/submissions?dry_run=1", json=given)
    assert (quoted.status_code, quoted.json()["template"], quoted.json()["request_count"]) == (200, "text", 1)
    made = served.post("/submissions", json=given).json()
    assert made["name"].startswith("mine-")
    stored = json.loads(served.services.submissions().request(made["id"]))
    assert (stored["template"], stored["params"]) == ("text", {**MINE["params"], "system": "Be long."})
    refused(served.post("/submissions", json={**given, "template": "yours"}), 422, "template")
    wrong = served.post("/submissions", json={**given, "params": {"lane": "bach"}})
    refused(wrong, 422, "params.lane")


def test_a_schedule_names_one_as_it_is_each_time(served):
    """Its body is kept as it came: what the template says when it is due holds."""
    given = {"every": "1d", "submission": {"template": "mine", "requests": ["A star"]}}
    refused(served.request("PUT", "/schedules/nightly", json=given), 422, "submission.template")
    put(served)
    assert served.request("PUT", "/schedules/nightly", json=given).status_code == 201
    told = served.get("/schedules/nightly").json()["submission"]
    assert (told["template"], told["params"]) == ("mine", {})


def test_one_that_is_not_there_is_not_changed(served):
    refused(put(served, If_Match="*"), 412, "If-Match")
    assert served.get("/templates/mine").status_code == 404


def test_a_folder_that_cannot_be_made(served, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IPYBATCH_CONFIG", str(tmp_path / "file" / "config"))
    refused(put(served), 503)
