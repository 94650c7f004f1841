import json
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.simulators import Faults, GeminiSimulator, Request
from ipybatch.simulators.gemini.batches import CREATE_FAULTS, INLINE_BYTES

FLASH = "gemini-2.5-flash"
KEY = {"X-Goog-Api-Key": "SIMULATED"}


def request_of(text):
    return {"contents": [{"role": "user", "parts": [{"text": text}]}]}


def send(service, method, path, now_s=0.0, content=None):
    raw = content if isinstance(content, bytes) else json.dumps(content).encode() if content else b""
    reply = service.handle(Request(path, method, KEY, raw), now_s)
    return reply if reply.drop else (reply.status, json.loads(reply.body))


def create(service, *prompts, name="d1", now_s=0.0):
    entries = [{"request": request_of(text), "metadata": {"key": f"k{n}"}} for n, text in enumerate(prompts)]
    batch = {"displayName": name, "inputConfig": {"requests": {"requests": entries}}}
    return send(service, "POST", f"/v1/models/{FLASH}:batchGenerateContent", now_s, {"batch": batch})


def upload(service, content, now_s=0.0):
    start = {**KEY, "x-goog-upload-command": "start", "host": "here:1"}
    reply = service.handle(Request("/upload/v1/files", "POST", start, b'{"file": {"display_name": "in"}}'), now_s)
    end = {"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": "0"}
    reply = service.handle(Request(reply.headers["X-Goog-Upload-URL"], "POST", end, content), now_s)
    return json.loads(reply.body)["file"]["name"]


def create_from(service, content, name="d1", now_s=0.0):
    batch = {"displayName": name, "inputConfig": {"fileName": upload(service, content)}}
    return send(service, "POST", f"/v1/models/{FLASH}:batchGenerateContent", now_s, {"batch": batch})


def lines(*prompts):
    return b"".join(
        json.dumps({"key": f"k{n}", "request": request_of(p)}).encode() + b"\n" for n, p in enumerate(prompts)
    )


def get(service, operation, now_s):
    return send(service, "GET", f"/v1/{operation['name']}", now_s)[1]


def inlined(operation):
    return operation["response"]["inlinedResponses"]["inlinedResponses"]


def test_a_new_job_waits_with_counts_as_strings():
    status, operation = create(GeminiSimulator(epoch_s=0.0), "a", "b", name="dämmerung", now_s=1.5)
    assert status == 200
    assert operation["metadata"] == {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
        "model": "models/gemini-2.5-flash",
        "displayName": "dämmerung",
        "inputConfig": {},
        "createTime": "1970-01-01T00:00:01.500000Z",
        "updateTime": "1970-01-01T00:00:01.500000Z",
        "batchStats": {"requestCount": "2", "pendingRequestCount": "2"},
        "state": "BATCH_STATE_PENDING",
        "name": operation["name"],
    }
    assert operation["name"].startswith("batches/")
    assert "done" not in operation


def test_a_job_waits_runs_and_succeeds_by_the_clock_alone():
    service = GeminiSimulator(batch_delay_s=(10, 20))
    _, job = create(service, "a")
    states = [get(service, job, now_s)["metadata"]["state"] for now_s in (0, 9.9, 10, 29.9, 30)]
    assert [state.removeprefix("BATCH_STATE_") for state in states] == [
        "PENDING",
        "PENDING",
        "RUNNING",
        "RUNNING",
        "SUCCEEDED",
    ]


def test_one_number_is_half_waiting_and_half_running():
    service = GeminiSimulator(batch_delay_s=10)
    _, job = create(service, "a")
    states = [get(service, job, now_s)["metadata"]["state"][12:] for now_s in (4.9, 5, 10)]
    assert states == ["PENDING", "RUNNING", "SUCCEEDED"]


def test_results_come_in_the_order_of_the_requests_with_their_keys():
    service = GeminiSimulator()
    prompts = [f"prompt {number}" for number in range(30)]
    done = get(service, create(service, *prompts)[1], 5.0)
    texts = [entry["response"]["candidates"][0]["content"]["parts"][0]["text"] for entry in inlined(done)]
    assert done["done"] is True
    assert texts == [service.answers.text(prompt) for prompt in prompts]
    assert [entry["metadata"] for entry in inlined(done)] == [{"key": f"k{n}"} for n in range(30)]
    assert done["metadata"]["output"]["inlinedResponses"] == done["response"]["inlinedResponses"]
    assert done["metadata"]["batchStats"] == {"requestCount": "30", "successfulRequestCount": "30"}


def test_keys_need_not_come_back():
    service = GeminiSimulator(echo_keys=False)
    done = get(service, create(service, "a", "b")[1], 5.0)
    assert [entry.keys() for entry in inlined(done)] == [{"response"}, {"response"}]


def test_a_job_with_failed_items_succeeds_and_they_are_not_billed():
    service = GeminiSimulator(item_failure_rate=0.3)
    done = get(service, create(service, *(f"p{n}" for n in range(500)))[1], 5.0)
    failed = [entry["error"] for entry in inlined(done) if "error" in entry]
    assert done["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
    assert len(failed) == pytest.approx(150, abs=41)
    assert {error["code"] for error in failed} == {8, 13, 14}
    assert done["metadata"]["batchStats"]["failedRequestCount"] == str(len(failed))
    assert service.truth()["billed"]["batch"]["generations"] == 500 - len(failed)


def test_a_failed_item_may_succeed_when_it_is_submitted_again():
    service = GeminiSimulator(item_failure_rate=0.5)
    outcomes = set()
    for number in range(20):
        job = create(service, "a", name=f"d{number}", now_s=number * 10)[1]
        outcomes |= inlined(get(service, job, number * 10 + 5))[0].keys()
    assert outcomes >= {"response", "error"}


def test_an_item_marked_invalid_fails_each_time():
    service = GeminiSimulator()
    done = get(service, create(service, "[[invalid]]")[1], 5.0)
    assert inlined(done)[0]["error"]["code"] == 3


def test_a_job_from_a_file_gives_a_file():
    service = GeminiSimulator()
    _, job = create_from(service, lines("a", "b"))
    assert job["metadata"]["inputConfig"]["fileName"].startswith("files/")
    done = get(service, job, 5.0)
    name = done["response"]["responsesFile"]
    assert done["metadata"]["output"] == {"responsesFile": name}
    assert name == f"files/batch-{job['name'].removeprefix('batches/')}"
    content = service.handle(Request(f"/v1/{name}:download?alt=media", "GET", KEY), 6.0).body
    results = [json.loads(line) for line in content.splitlines()]
    assert [(result["key"], "response" in result) for result in results] == [("k0", True), ("k1", True)]
    assert get(service, job, 7.0)["metadata"]["batchStats"]["successfulRequestCount"] == "2"


def test_a_job_from_a_file_may_answer_inline():
    service = GeminiSimulator(inline_answers=True)
    done = get(service, create_from(service, lines("a", "b"))[1], 5.0)
    assert [entry["metadata"]["key"] for entry in inlined(done)] == ["k0", "k1"]


@pytest.mark.parametrize("content", [b"{\n", b'{"key": "k"}\n', b"[]\n", b""])
def test_a_job_from_a_file_of_something_else_fails(content):
    service = GeminiSimulator()
    done = get(service, create_from(service, content)[1], 5.0)
    assert (done["metadata"]["state"], done["error"]["code"]) == ("BATCH_STATE_FAILED", 13)


def test_a_file_that_is_not_there_is_not_found():
    batch = {"batch": {"displayName": "d", "inputConfig": {"fileName": "files/none"}}}
    path = f"/v1/models/{FLASH}:batchGenerateContent"
    assert send(GeminiSimulator(), "POST", path, content=batch)[0] == 404


@pytest.mark.parametrize(("how", "state", "code"), [("fail", "FAILED", 13), ("expire", "EXPIRED", 4)])
@pytest.mark.parametrize("shape", ["share", "name", "order"])
def test_jobs_go_wrong_by_share_by_name_or_in_order(how, state, code, shape):
    faults = {"share": {how: 1.0}, "name": {"bad": how}, "order": [how]}[shape]
    service = GeminiSimulator(job_faults=faults)
    done = get(service, create(service, "a", name="bad-1")[1], 5.0)
    assert (done["metadata"]["state"], done["error"]["code"]) == (f"BATCH_STATE_{state}", code)
    assert done["done"] is True
    assert "response" not in done
    assert service.truth()["billed"]["batch"]["generations"] == 0


def test_other_jobs_go_well():
    service = GeminiSimulator(job_faults=[None, "fail"])
    other = GeminiSimulator(job_faults={"bad": "fail"})
    assert get(service, create(service, "a")[1], 5.0)["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
    assert get(other, create(other, "a", name="good")[1], 5.0)["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"


def test_a_job_that_went_wrong_by_share_may_go_well_again():
    service = GeminiSimulator(job_faults={"fail": 0.5, "expire": 0.2})
    ends = {
        get(service, create(service, "a", now_s=n * 10)[1], n * 10 + 5)["metadata"]["state"][12:] for n in range(40)
    }
    assert ends == {"SUCCEEDED", "FAILED", "EXPIRED"}


def test_a_job_that_never_finishes_runs_and_expires_after_two_days():
    service = GeminiSimulator(batch_delay_s=None)
    _, job = create(service, "a")
    states = [get(service, job, hours * 3600.0)["metadata"]["state"][12:] for hours in (0, 47.9, 48)]
    assert states == ["RUNNING", "RUNNING", "EXPIRED"]


def test_cancelling_takes_a_moment_and_leaves_no_results():
    service = GeminiSimulator(batch_delay_s=100, cancel_s=2.0)
    _, job = create(service, "a")
    assert send(service, "POST", f"/v1/{job['name']}:cancel", 60.0) == (200, {})
    assert get(service, job, 61.9)["metadata"]["state"] == "BATCH_STATE_RUNNING"
    done = get(service, job, 62.0)
    assert (done["metadata"]["state"], done["error"]["code"]) == ("BATCH_STATE_CANCELLED", 1)
    assert service.truth(now_s=200.0)["billed"]["batch"]["generations"] == 0


def test_cancelling_too_late_changes_nothing():
    service = GeminiSimulator(batch_delay_s=10, cancel_s=2.0)
    _, early = create(service, "a")
    send(service, "POST", f"/v1/{early['name']}:cancel", 9.0)
    assert get(service, early, 10.0)["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
    send(service, "POST", f"/v1/{early['name']}:cancel", 11.0)
    assert get(service, early, 20.0)["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"


def test_deleting_does_not_cancel():
    """Nobody sees it again, and it is billed all the same."""
    service = GeminiSimulator(batch_delay_s=10)
    _, job = create(service, "a")
    assert send(service, "DELETE", f"/v1/{job['name']}", 1.0) == (200, {})
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", ":cancel")):
        assert send(service, method, f"/v1/{job['name']}{path}", 2.0)[0] == 404
    assert send(service, "GET", "/v1/batches?pageSize=5", 3.0) == (200, {})
    assert service.truth(now_s=11.0)["billed"]["batch"]["generations"] == 1


def test_jobs_are_listed_in_pages_latest_first_and_a_new_one_shifts_nothing():
    service = GeminiSimulator()
    for number in range(5):
        create(service, f"p{number}", name=f"d{number}")
    seen, token = [], ""
    while True:
        page = send(service, "GET", f"/v1/batches?pageSize=2&pageToken={token}", 1.0)[1]
        seen += [operation["metadata"]["displayName"] for operation in page["operations"]]
        create(service, "more", name="later")
        token = page.get("nextPageToken")
        if token is None:
            break
    assert seen == ["d4", "d3", "d2", "d1", "d0"]


def test_without_a_page_size_the_list_is_empty():
    service = GeminiSimulator()
    create(service, "a")
    assert send(service, "GET", "/v1/batches") == (200, {})


def test_the_list_tells_states_and_not_results():
    service = GeminiSimulator()
    create(service, "a")
    (operation,) = send(service, "GET", "/v1/batches?pageSize=1", 5.0)[1]["operations"]
    assert (operation["metadata"]["state"], operation["done"]) == ("BATCH_STATE_SUCCEEDED", True)
    assert "inlinedResponses" not in operation["response"]


def test_a_body_above_20_mb_is_refused():
    service = GeminiSimulator()
    path = f"/v1/models/{FLASH}:batchGenerateContent"
    status, answer = send(service, "POST", path, content=b" " * (INLINE_BYTES + 1))
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert service.truth()["jobs"] == {}


def test_one_job_too_many_is_refused_until_one_has_ended():
    service = GeminiSimulator(max_active_jobs=2, batch_delay_s=10)
    assert [create(service, "a", now_s=now_s)[0] for now_s in (0, 1, 2)] == [200, 200, 429]
    error = create(service, "a", now_s=3)[1]["error"]
    assert [detail["@type"].rpartition(".")[2] for detail in error["details"]] == ["Help"]
    assert create(service, "a", now_s=10)[0] == 200


@pytest.mark.parametrize("fault", CREATE_FAULTS)
def test_every_fault_of_a_create_leaves_a_job_or_none_and_gives_no_sound_answer(fault):
    """`before` and `after` tell whether the service took the job; the next create is sound."""
    service = GeminiSimulator(create_faults=[fault], batch_delay_s=None)
    sound = 0
    try:
        reply = create(service, "a", name="d1")
        sound += isinstance(reply, tuple) and reply[0] == 200 and "metadata" in reply[1]
    except json.JSONDecodeError:
        pass
    assert not sound
    assert service.truth()["jobs"] == ({"d1": ["RUNNING"]} if fault.endswith("after") else {})
    assert create(service, "b", name="d2")[0] == 200


def test_faults_of_creates_are_met_in_order_and_none_is_no_fault():
    service = GeminiSimulator(create_faults=[None, "503_after", "drop_before"])
    first, second, third, fourth = (create(service, f"p{n}", name=f"d{n}") for n in range(4))
    assert (first[0], second[0], third.drop, fourth[0]) == (200, 503, "close", 200)
    assert list(service.truth()["jobs"]) == ["d0", "d1", "d3"]


def test_the_same_requests_submitted_again_are_submitted_twice():
    service = GeminiSimulator()
    create(service, "a", "b", name="first")
    create(service, "a", name="other")
    assert service.truth()["submitted_twice"] == []
    create(service, "a", "b", name="again")
    truth = service.truth(now_s=100.0)
    assert truth["submitted_twice"] == ["again"]
    assert truth["billed_twice"] == ["a", "b"]
    assert truth["prompts"]["a"]["batch"] == 3


def test_a_job_that_failed_may_be_submitted_again():
    service = GeminiSimulator(job_faults=["fail"])
    create(service, "a", name="first")
    create(service, "a", name="again", now_s=5.0)
    truth = service.truth(now_s=10.0)
    assert (truth["submitted_twice"], truth["billed_twice"]) == ([], [])
    assert truth["jobs"] == {"first": ["FAILED"], "again": ["SUCCEEDED"]}


def test_a_prompt_billed_online_and_in_a_job_is_billed_twice():
    service = GeminiSimulator()
    create(service, "a")
    content = json.dumps(request_of("a") | {"serviceTier": "flex"}).encode()
    service.handle(Request(f"/v1/models/{FLASH}:generateContent", "POST", KEY, content), 0.5)
    assert service.truth(now_s=0.5)["billed_twice"] == []
    assert service.truth(now_s=5.0)["billed_twice"] == ["a"]


def test_an_unknown_job_is_not_found():
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", ":cancel")):
        assert send(GeminiSimulator(), method, f"/v1/batches/none{path}")[0] == 404


def test_times_are_words_that_can_be_read():
    service = GeminiSimulator(epoch_s=1_767_225_600.0)
    done = get(service, create(service, "a", now_s=1.0)[1], 5.0)["metadata"]
    times = [datetime.fromisoformat(done[name]) for name in ("createTime", "updateTime", "endTime")]
    assert [moment.timestamp() - 1_767_225_600.0 for moment in times] == [1.0, 2.0, 2.0]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.integers(0, 99))
def test_every_item_of_every_job_is_answered_once_in_its_place(sizes, seed):
    """Whatever fails, no result is lost, doubled or moved."""
    service = GeminiSimulator(item_failure_rate=0.3, faults=Faults(seed=seed))
    jobs = [create(service, *(f"job {n} item {i}" for i in range(size)), name=f"d{n}") for n, size in enumerate(sizes)]
    billed = 0
    for size, (_, job) in zip(sizes, jobs, strict=True):
        entries = inlined(get(service, job, 100.0))
        assert [entry["metadata"]["key"] for entry in entries] == [f"k{i}" for i in range(size)]
        billed += sum("response" in entry for entry in entries)
    assert service.truth()["billed"]["batch"]["generations"] == billed
    assert service.truth()["billed_twice"] == []
