import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.simulators.gemini.quotas import DAY_S, Bucket, Meter, Quota, Sliding, as_exhausted

FLASH = "gemini-2.5-flash"
GAPS = st.lists(st.integers(0, 40).map(lambda tick: tick / 8), max_size=60)  # eighths are exact in binary


def meter(reset_s=1000.0, **quota):
    return Meter(Quota(**quota), reset_s)


def admitted(meter, times_s, tokens=1):
    return [not meter.take(now_s, tokens) for now_s in times_s]


def details(reply):
    entries = json.loads(reply.body)["error"].get("details", [])
    return {entry["@type"].rpartition(".")[2]: entry for entry in entries}


@given(GAPS, st.integers(1, 5))
def test_no_window_ever_lets_more_than_its_limit_through(gaps, limit):
    gate, now_s, taken = Sliding(limit, 4.0), 0.0, []
    for gap_s in gaps:
        now_s += gap_s
        if not gate.wait_s(now_s, 1):
            gate.take(now_s, 1)
            taken.append(now_s)
    assert all(sum(end_s - 4.0 < at_s <= end_s for at_s in taken) <= limit for end_s in taken)


@given(GAPS, st.integers(1, 5))
def test_a_bucket_lets_through_its_size_and_what_it_gains(gaps, size):
    """In any span of t seconds at most size + rate * t pass."""
    gate, now_s, taken = Bucket(size, 0.5), 0.0, []
    for gap_s in gaps:
        now_s += gap_s
        if not gate.wait_s(now_s, 1):
            gate.take(now_s, 1)
            taken.append(now_s)
    for first, from_s in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= size + 0.5 * (taken[last] - from_s) + 1e-9


@given(GAPS, st.sampled_from([{"rpm": 60, "burst": 3}, {"rpm": 4}, {"windows": [(3, 2.0), (5, 9.0)]}, {"tpm": 7}]))
def test_whoever_waits_as_told_is_let_through(gaps, quota):
    """Neither too long nor too short: at the time told it fits, and just before it does not."""
    gate, now_s = meter(**quota), 0.0
    for gap_s in gaps:
        now_s += gap_s
        broken = gate.take(now_s, 2)
        if broken:
            wait_s = max(violation.wait_s for violation in broken)
            assert gate.take(now_s + wait_s - 0.01, 2) or wait_s <= 0.01
            now_s += wait_s
            assert not gate.take(now_s, 2)


def test_rpm_alone_is_a_window_of_a_minute():
    assert admitted(meter(rpm=2), [0, 1, 2, 59.9, 60, 60.5, 61]) == [True, True, False, False, True, False, True]


def test_rpm_with_a_burst_is_strict_in_every_second():
    """3,000 a minute with a burst of 50: the 51st at once is refused, and fits 20 ms later."""
    gate = meter(rpm=3000, burst=50)
    assert admitted(gate, [0.0] * 51) == [True] * 50 + [False]
    assert gate.take(0.0, 1)[0].wait_s == pytest.approx(0.02)
    assert admitted(gate, [0.02, 0.02]) == [True, False]


def test_a_refused_request_takes_nothing():
    """Hammering does not keep the window full."""
    assert admitted(meter(windows=[(1, 10.0)]), [0, 6, 9, 10]) == [True, False, False, True]


def test_tokens_of_a_minute_are_counted_apart_from_requests():
    gate = meter(tpm=100, rpm=10)
    assert not gate.take(0.0, 90)
    (violation,) = gate.take(1.0, 20)
    assert (violation.quota_id, violation.value) == ("GenerateContentInputTokensPerModelPerMinute-FreeTier", 100)
    assert violation.wait_s == 59.0
    assert not gate.take(1.0, 10)


def test_the_day_ends_when_it_is_told_and_then_every_day():
    gate = meter(reset_s=100.0, rpd=1)
    times_s = [0, 99, 100, 101, 100 + DAY_S - 1, 100 + DAY_S]
    assert admitted(gate, times_s) == [True, False, True, False, False, True]


def test_one_refusal_may_violate_the_day_and_the_minute():
    gate = meter(rpd=1, rpm=1)
    gate.take(0.0, 1)
    kinds = [violation.quota_id.partition("PerProject")[0] for violation in gate.take(1.0, 1)]
    assert kinds == ["GenerateRequestsPerMinute", "GenerateRequestsPerDay"]


def test_shape_a_tells_quota_limit_and_delay():
    gate = meter(rpm=10, burst=1)
    gate.take(0.0, 1)
    reply = as_exhausted("a", gate.take(1.0, 1), "gemini-2.5-flash")
    told = details(reply)
    assert reply.status == 429
    assert told["RetryInfo"]["retryDelay"] == "5.000000000s"
    assert told["QuotaFailure"]["violations"] == [
        {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
            "quotaDimensions": {"location": "global", "model": "gemini-2.5-flash"},
            "quotaValue": "10",
        }
    ]
    assert "Help" in told


def test_shape_b_tells_only_where_to_read_on():
    assert list(details(as_exhausted("b"))) == ["Help"]


def test_shape_c_tells_nothing():
    reply = as_exhausted("c")
    assert json.loads(reply.body)["error"] == {
        "code": 429,
        "message": "Resource has been exhausted (e.g. check quota).",
        "status": "RESOURCE_EXHAUSTED",
    }


@pytest.mark.parametrize("shape", ["a", "b", "c"])
def test_no_shape_has_a_retry_after(shape):
    assert "retry-after" not in {name.lower() for name in as_exhausted(shape).headers}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rpm": 0}, "rpm must be >= 1 or None, got 0"),
        ({"burst": 5}, "burst must come with rpm, got burst=5 alone"),
        ({"windows": [(0, 1.0)]}, r"windows must be pairs \(limit >= 1, per_s > 0\), got \(0, 1.0\)"),
        ({"tpm": -1}, "tpm must be >= 1 or None, got -1"),
        ({"rpd": 0}, "rpd must be >= 1 or None, got 0"),
    ],
)
def test_a_bad_quota_names_field_value_and_range(fields, message):
    with pytest.raises(ValueError, match=message):
        Quota(**fields)


def told(answer):
    return {entry["@type"].rpartition(".")[2]: entry for entry in answer["error"].get("details", [])}


@pytest.mark.parametrize(
    ("word", "refusal"),
    [
        ("region", (400, "FAILED_PRECONDITION", "User location is not supported for the API use.")),
        ("leaked", (403, "PERMISSION_DENIED", "Your API key was reported as leaked.")),
        ("billing", (403, "PERMISSION_DENIED", "This API method requires billing to be enabled.")),
        ("billing_400", (400, "FAILED_PRECONDITION", "Gemini API free tier is not available in your country.")),
        ("credits", (429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.")),
        ("limit_zero", (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota")),
        ("centuries", (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota")),
        ("gone", (404, "NOT_FOUND", "models/gemini-2.5-flash is not found for API version v1beta")),
    ],
)
@pytest.mark.parametrize("for_whom", ["*", "SIMULATED", FLASH])
def test_an_account_or_a_model_is_refused_for_ever_with_the_services_sentence(start, word, refusal, for_whom):
    """Each call and each job, and nothing is billed."""
    line = start(refusals={for_whom: word})
    status, name, sentence = refusal
    for seen, answer in (line.generate("a"), line.generate("a"), line.create("a")):
        assert (seen, answer["error"]["code"], answer["error"]["status"]) == (status, status, name)
        assert answer["error"]["message"].startswith(sentence)
    assert line.ledger() == []
    assert line.simulator.truth()["prompts"]["a"]["requests"] == 2


def test_other_keys_and_models_are_not_refused(start):
    line = start(keys=["OTHER"], refusals={"OTHER": "credits", "gemini-2.5-pro": "gone"})
    assert line.generate("a")[0] == 200
    assert line.generate("b", key="OTHER")[0] == 429
    assert line.generate("c", model="gemini-2.5-pro")[0] == 404


@pytest.mark.parametrize("word", ["billing", "billing_400", "credits", "limit_zero", "centuries", "gone"])
def test_what_is_paid_can_still_be_read(start, word):
    line = start(refusals={"*": (word, 5.0, math.inf)})
    name = line.ended("a")
    assert line.generate("b")[0] != 200
    assert "output" in line.job(name)["metadata"]


@pytest.mark.parametrize("word", ["region", "leaked"])
def test_some_refusals_hold_for_jobs_and_files_too(start, word):
    line = start(refusals={"*": (word, 5.0, math.inf)})
    name = line.ended("a")
    assert [line("GET", path)[0] for path in (f"/v1/{name}", "/v1/files", "/v1/models")] == [
        line.generate("b")[0],
    ] * 3


def test_a_refusal_may_be_lifted(start):
    line = start(refusals={"*": ("centuries", 0.0, 100.0)})
    assert line.generate("a")[0] == 429
    line.advance(100.0)
    assert line.generate("a")[0] == 200


def test_credits_are_gone_after_so_many_generations_of_a_key(start):
    """Online or in jobs."""
    line = start(prepaid=3, keys=["OTHER"])
    line.ended("a", "b")
    assert [line.generate(f"{n}")[0] for n in range(3)] == [200, 429, 429]
    assert line.create("c")[1]["error"]["message"].startswith("Your prepayment credits are depleted.")
    assert line.generate("d", key="OTHER")[0] == 200


def test_a_limit_of_zero_tells_a_wait_that_never_helps(start):
    """Zero is absent from the details; the message has it."""
    line = start(refusals={FLASH: "limit_zero"})
    answer = line.generate()[1]
    assert f"free_tier_requests, limit: 0, model: {FLASH}" in answer["error"]["message"]
    details = told(answer)
    assert all("quotaValue" not in violation for violation in details["QuotaFailure"]["violations"])
    assert details["QuotaFailure"]["violations"][1]["quotaId"].startswith("GenerateRequestsPerDay")
    assert details["RetryInfo"]["retryDelay"] == "25.465784708s"


def test_a_delay_of_centuries_is_the_greatest_int64(start):
    details = told(start(refusals={"*": "centuries"}).generate()[1])
    assert details["RetryInfo"]["retryDelay"] == "9223372036854775807s"


@pytest.mark.parametrize("verb", ["generateContent", "countTokens", "batchGenerateContent"])
def test_a_misspelt_model_is_not_found(start, verb):
    line = start()
    status, answer = line("POST", f"/v1/models/gemini-2.5-flush:{verb}", {})
    assert (status, answer["error"]["status"]) == (404, "NOT_FOUND")
    assert answer["error"]["message"].startswith("models/gemini-2.5-flush is not found for API version")


def test_each_key_has_a_quota_of_its_own(start):
    line = start(keys=["OTHER"], windows=[(1, 60.0)])
    assert [line.generate(f"{n}", key=key)[0] for n, key in enumerate(["SIMULATED", "OTHER", "OTHER"])] == [
        200,
        200,
        429,
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refusals": {"*": "mood"}}, "refusals must be one of region, .*, got 'mood'"),
        ({"refusals": {"nobody": "region"}}, r"refusals must be keyed by \*, SIMULATED, .*, got 'nobody'"),
        ({"refusals": {"*": ("region", 5.0, 5.0)}}, "refusals must be .* from_s < to_s, got"),
        ({"prepaid": -1}, "prepaid must be >= 0 or None, got -1"),
    ],
)
def test_refusals_are_checked(start, options, message):
    with pytest.raises(ValueError, match=message):
        start(**options)
