"""The faults of jobs, over HTTP."""

import json
import math

import pytest

PROMPTS = ("a", "b", "c", "d", "e", "f")


def state(job):
    return job["metadata"]["state"].removeprefix("BATCH_STATE_")


def inlined(job):
    return job["metadata"]["output"]["inlinedResponses"]["inlinedResponses"]


def told(result):
    """Return the prompt that an answer begins with."""
    return result["response"]["candidates"][0]["content"]["parts"][0]["text"].split(":")[0].removeprefix("On ")


def is_whole(content):
    try:
        return [json.loads(line) for line in content.splitlines()]
    except ValueError:
        return None


@pytest.mark.parametrize("as_file", [False, True])
def test_output_comes_late_by_so_many_looks(start, as_file):
    """The job has succeeded, its counts say so, and the list of jobs counts as no look."""
    line = start(job_faults=["late"], job_looks=2)
    name = line.ended(*PROMPTS, as_file=as_file)
    for _ in range(2):
        (listed,) = line("GET", "/v1/batches?pageSize=5")[1]["operations"]
        assert "output" not in listed["metadata"]
        job = line.job(name)
        assert (state(job), job["done"]) == ("SUCCEEDED", True)
        assert job["metadata"]["batchStats"] == {"requestCount": "6", "successfulRequestCount": "6"}
        assert ("output" in job["metadata"], "response" in job, "error" in job) == (False, False, False)
    assert "output" in line.job(name)["metadata"]


def test_output_comes_late_by_so_many_seconds(start):
    line = start(job_faults={"d": "late"}, job_looks=0, job_late_s=3600.0)
    name = line.ended("a", advance_s=100.0)
    assert ["output" in line.job(name)["metadata"] for _ in range(4)] == [False] * 4
    line.advance(3600.0)
    assert "output" in line.job(name)["metadata"]


def test_output_never_comes(start):
    line = start(job_faults={"late": 1.0}, job_looks=math.inf)
    name = line.ended("a")
    line.advance(1e6)
    assert not any("output" in line.job(name)["metadata"] for _ in range(5))


def test_a_named_result_file_is_not_there_yet(start):
    line = start(job_faults=["late_file"])
    job = line.job(line.ended(*PROMPTS, as_file=True))
    assert [b'"code":404' in line.lines(job) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(("fault", "is_torn"), [("cut", False), ("torn", True)])
def test_a_result_file_ends_early_and_cleanly(start, fault, is_torn):
    """Fewer rows than batchStats says; the next looks find them."""
    line = start(job_faults=[fault], job_looks=1)
    job = line.job(line.ended(*PROMPTS, as_file=True))
    response = line.send("GET", f"/v1/{job['metadata']['output']['responsesFile']}:download?alt=media")
    assert response.status_code == 200
    assert int(response.headers["content-length"]) == len(response.content)
    assert response.content.count(b"\n") == 3
    assert (is_whole(response.content) is None) == is_torn
    assert job["metadata"]["batchStats"]["successfulRequestCount"] == "6"
    assert [row["delivered"] for row in line.ledger()] == [True] * 3 + [False] * 3
    assert len(is_whole(line.lines(job))) == 6
    assert all(row["delivered"] for row in line.ledger())


def test_inline_answers_are_too_few(start):
    line = start(job_faults=["cut"], job_looks=1)
    name = line.ended(*PROMPTS)
    assert [len(inlined(line.job(name))) for _ in range(2)] == [3, 6]


@pytest.mark.parametrize("options", [{"job_faults": ["shuffled+keyless"]}, {"job_faults": {"shuffled+keyless": 1.0}}])
def test_inline_answers_have_another_order_and_no_keys(start, options):
    line = start(**options)
    results = inlined(line.job(line.ended(*PROMPTS)))
    assert all(result.keys() == {"response"} for result in results)
    assert sorted(map(told, results)) == list(PROMPTS)
    assert [told(result) for result in results] != list(PROMPTS)


def test_the_order_is_the_same_at_each_look_and_at_each_start(start):
    orders = []
    for _ in range(2):
        line = start(job_faults=["shuffled"])
        name = line.ended(*PROMPTS)
        orders += [[told(result) for result in inlined(line.job(name))] for _ in range(2)]
        keys = [result["metadata"]["key"] for result in inlined(line.job(name))]
        assert [PROMPTS[int(key[1:])] for key in keys] == orders[-1], "a key stays with its answer"
    assert all(order == orders[0] for order in orders)


def test_two_answers_are_always_exchanged(start):
    """A shuffle that changes nothing would play no fault."""
    line = start(job_faults={"": "shuffled"})
    for number in range(8):
        results = inlined(line.job(line.ended(f"a {number}", f"b {number}")))
        assert [told(result)[0] for result in results] == ["b", "a"]


def test_a_job_from_a_file_answers_inline_without_keys(start):
    line = start(job_faults=["inline+keyless+shuffled"])
    results = inlined(line.job(line.ended(*PROMPTS, as_file=True)))
    assert {frozenset(result) for result in results} == {frozenset({"response"})}


def test_a_result_file_may_have_no_keys(start):
    line = start(job_faults=["keyless"])
    rows = is_whole(line.lines(line.job(line.ended(*PROMPTS, as_file=True))))
    assert all(row.keys() == {"response"} for row in rows)


@pytest.mark.parametrize(("end", "name"), [("fail", "FAILED"), ("expire", "EXPIRED"), ("cancel", "CANCELLED")])
@pytest.mark.parametrize("as_file", [False, True])
def test_a_job_that_did_not_succeed_has_an_output_and_is_billed_for_it(start, end, name, as_file):
    """The error stands beside the metadata, and the output within it."""
    line = start(job_faults=[f"{end}+partial"], partial_share=0.5)
    job = line.job(line.ended(*PROMPTS, as_file=as_file))
    assert (state(job), "error" in job, "response" in job) == (name, True, False)
    assert job["metadata"]["batchStats"] == {"requestCount": "6", "successfulRequestCount": "3"}
    results = is_whole(line.lines(job)) if as_file else inlined(job)
    assert [told(result) for result in results] == ["a", "b", "c"]
    rows = line.ledger()
    assert [row["finish_reason"] for row in rows] == ["STOP"] * 3 + ["NOT_PROCESSED"] * 3
    assert [row["billed"] for row in rows] == [row["delivered"] for row in rows] == [True] * 3 + [False] * 3


def test_a_job_that_its_client_cancels_keeps_its_partial_output(start):
    line = start(job_faults=["partial"], batch_delay_s=None, cancel_s=1.0)
    name = line.ended(*PROMPTS)
    assert line("POST", f"/v1/{name}:cancel") == (200, {})
    line.advance(1.0)
    job = line.job(name)
    assert (state(job), len(inlined(job))) == ("CANCELLED", 3)


def test_a_job_may_be_billed_without_any_output(start):
    line = start(job_faults=["expire+billed"], partial_share=1.0)
    job = line.job(line.ended(*PROMPTS))
    assert (state(job), "output" in job["metadata"]) == ("EXPIRED", False)
    assert [(row["billed"], row["delivered"]) for row in line.ledger()] == [(True, False)] * 6


def test_a_job_is_not_seen_at_first_though_the_list_shows_it(start):
    line = start(job_faults=["unseen"], job_looks=2)
    name = line.create("a")[1]["name"]
    assert [line("GET", f"/v1/{name}")[0] for _ in range(3)] == [404, 404, 200]
    assert line("GET", "/v1/batches?pageSize=5")[1]["operations"][0]["name"] == name


def test_a_job_that_is_stuck_stays_pending_until_it_expires(start):
    line = start(job_faults=["stuck"])
    name = line.create("a")[1]["name"]
    seen = []
    for hours in (1, 46.9, 0.2):
        line.advance(hours * 3600.0)
        seen.append(state(line.job(name)))
    assert seen == ["PENDING", "PENDING", "EXPIRED"]


def test_too_many_pending_jobs_stall_one_another(start):
    """None of them starts, until few enough are left."""
    line = start(stall_above=2, batch_delay_s=(10.0, 10.0), cancel_s=0.0)
    names = [line.create("a", name=f"d{n}")[1]["name"] for n in range(4)]
    line.advance(3600.0)
    assert [state(line.job(name)) for name in names] == ["PENDING"] * 4
    for name in names[:2]:
        line("POST", f"/v1/{name}:cancel")
    line.advance(5.0)
    assert [state(line.job(name)) for name in names[2:]] == ["PENDING"] * 2
    line.advance(20.0)
    assert [state(line.job(name)) for name in names[2:]] == ["SUCCEEDED"] * 2


@pytest.mark.parametrize(("status", "word"), [(404, "NOT_FOUND"), (403, "PERMISSION_DENIED")])
def test_a_job_is_visible_to_its_own_key_only(start, status, word):
    line = start(keys=["OTHER"], foreign_status=status, batch_delay_s=None)
    name = line.create("a")[1]["name"]
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", ":cancel")):
        seen, answer = line(method, f"/v1/{name}{path}", key="OTHER")
        assert (seen, answer["error"]["status"]) == (status, word)
    assert line("GET", "/v1/batches?pageSize=5", key="OTHER") == (200, {})
    assert state(line.job(name)) == "RUNNING"


def test_each_key_has_room_for_jobs_of_its_own(start):
    line = start(keys=["OTHER"], max_active_jobs=1, batch_delay_s=None)
    assert [line.create(f"{n}", key=key)[0] for n, key in enumerate(["SIMULATED", "OTHER", "OTHER"])] == [200, 200, 429]


def test_a_look_may_answer_200_with_the_body_of_an_error(start):
    line = start(job_faults=["error_body+error_file"], job_looks=1)
    name = line.create("a", as_file=True)[1]["name"]
    line.advance(10.0)
    status, answer = line("GET", f"/v1/{name}")
    assert (status, answer["error"]["code"]) == (200, 503)
    job = line.job(name)
    assert json.loads(line.lines(job))["error"]["status"] == "UNAVAILABLE"
    assert [row["delivered"] for row in line.ledger()] == [False]
    assert json.loads(line.lines(job))["key"] == "k0"
    assert [row["delivered"] for row in line.ledger()] == [True]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_create_may_answer_200_with_the_body_of_an_error(start, when):
    line = start(create_faults=[f"error_body_{when}"], batch_delay_s=None)
    status, answer = line.create("a")
    assert (status, answer["error"]["code"], answer["error"]["status"]) == (200, 503, "UNAVAILABLE")
    assert len(line.simulator.truth()["jobs"]) == (when == "after")


@pytest.mark.parametrize(
    ("faults", "got"),
    [
        (["late+later"], "'late\\+later'"),
        (["fail+expire"], "'fail\\+expire'"),
        ({"late": 2.0}, "'late': 2.0"),
        ({"night": 0.5}, "'night': 0.5"),
    ],
)
def test_faults_of_jobs_are_checked(start, faults, got):
    with pytest.raises(ValueError, match=f"job_faults must be .*, got .*{got}"):
        start(job_faults=faults)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"job_looks": -1}, "job_looks must be >= 0, got -1"),
        ({"job_late_s": -1}, "job_late_s must be >= 0 seconds, got -1"),
        ({"partial_share": 2}, r"partial_share must be in \[0, 1\], got 2"),
        ({"stall_above": 0}, "stall_above must be >= 1 or None, got 0"),
        ({"foreign_status": 500}, "foreign_status must be 403 or 404, got 500"),
    ],
)
def test_options_of_jobs_are_checked(start, options, message):
    with pytest.raises(ValueError, match=message):
        start(**options)
