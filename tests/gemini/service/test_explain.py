"""Whose fault a refusal of the service is: the same status means another thing of a key, a model, a job and a file."""

import pytest

pytest.importorskip("google.genai")
from google import genai
from google.genai.errors import APIError

from ipybatch.engine.data.policy import Limits, Retry
from ipybatch.engine.rules.classify import classify
from ipybatch.errors import InputError, Permanent, Refused, Transient
from ipybatch.gemini.service.api import Missing, NotReady, _kind_of, explain
from ipybatch.gemini.service.client import connect
from ipybatch.simulators.service import as_json

OLD = "You do not have permission to access the File abc or it may not exist."
WAIT = "The File abc is not in an ACTIVE state and usage is not allowed."
REGION = "User location is not supported for the API use."
NOTHING = [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaValue": "0"}]}]
BARE = [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "PerDay-FreeTier"}]}]
FEW = [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaValue": "10"}]}]
BAD_KEY = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
CENTURIES = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "9223372036854775807s"}]


def error(code, status, message="no", details=()):
    return APIError(code, {"error": {"code": code, "status": status, "message": message, "details": list(details)}})


TABLE = {
    "no key": (error(403, "PERMISSION_DENIED"), "content", Refused, "account"),
    "a wrong key": (error(400, "INVALID_ARGUMENT", details=BAD_KEY), "content", Refused, "account"),
    "a wrong key, of a file": (
        error(400, "INVALID_ARGUMENT", details=BAD_KEY),
        "content with a file",
        Refused,
        "account",
    ),
    "region": (error(400, "FAILED_PRECONDITION", REGION), "content", Refused, "account"),
    "model": (error(404, "NOT_FOUND", "models/x is not found"), "content", Refused, "account"),
    "model of a job": (error(404, "NOT_FOUND", "models/x is not found"), "create", Refused, "account"),
    "a limit of 0": (error(429, "RESOURCE_EXHAUSTED", details=NOTHING), "content", Refused, "account"),
    "a limit of 0 in words": (error(429, "EXHAUSTED", "Quota exceeded, limit: 0", BARE), "content", Refused, "account"),
    "a limit of 05": (error(429, "EXHAUSTED", "Quota exceeded, limit: 05", BARE), "content", Transient, "rate"),
    "a limit": (error(429, "RESOURCE_EXHAUSTED", details=FEW), "content", Transient, "rate"),
    "an old file": (error(403, "PERMISSION_DENIED", OLD), "content with a file", Missing, "item"),
    "a file that is gone": (error(404, "NOT_FOUND", "files/a is not found."), "content with a file", Missing, "item"),
    "a model, of a file": (
        error(404, "NOT_FOUND", "models/a is not found."),
        "content with a file",
        Refused,
        "account",
    ),
    "billing, of a file": (error(403, "DENIED", "Enable billing."), "content with a file", Refused, "account"),
    "a region, of a file": (error(400, "FAILED_PRECONDITION", "Location."), "content with a file", Refused, "account"),
    "a file that is not ready": (error(400, "FAILED_PRECONDITION", WAIT), "content with a file", NotReady, "service"),
    "the input of a job is not ready": (error(400, "FAILED_PRECONDITION"), "create", Transient, "service"),
    "a job of another key": (error(403, "PERMISSION_DENIED"), "named", Missing, "item"),
    "a job that is gone": (error(404, "NOT_FOUND"), "named", Missing, "item"),
    "a bad prompt": (error(400, "INVALID_ARGUMENT"), "content", Permanent, "item"),
    "too long": (error(413, "INVALID_ARGUMENT"), "content", Permanent, "item"),
    "overloaded": (error(503, "UNAVAILABLE"), "content", Transient, "service"),
}


@pytest.mark.parametrize(("raised", "asked", "kind", "scope"), TABLE.values(), ids=TABLE)
def test_whose_fault_a_refusal_is(raised, asked, kind, scope):
    explained = explain(raised, asked)
    assert type(explained) is kind or (kind is Transient and isinstance(explained, Transient))
    assert classify(explained, Retry(), 0.0).scope == scope
    assert raised.message in str(explained)


def test_what_all_prompts_meet_is_no_fault_of_theirs():
    """The status stands with the error: twenty alike without one success end the session."""
    verdict = classify(explain(error(400, "INVALID_ARGUMENT")), Retry(), 0.0)
    assert (verdict.status, verdict.is_own) == (400, False)


def test_a_delay_of_centuries_is_a_number():
    assert explain(error(429, "RESOURCE_EXHAUSTED", details=CENTURIES)).retry_after_s == float(2**63 - 1)


@pytest.mark.parametrize(
    ("contents", "kind"),
    [
        ([{"parts": [{"text": "hello"}]}], "content"),
        ([{"parts": [{"text": "see"}, {"fileData": {"fileUri": "files/a"}}]}], "content with a file"),
        ("hello", "content"),
        (None, "content"),
        ([{"parts": None}, 7], "content"),
    ],
)
def test_a_request_tells_whether_it_names_a_file(contents, kind):
    assert _kind_of({"contents": contents}) == kind


@pytest.mark.parametrize(("code", "counts"), [(503, (3, 0)), (400, (0, 3))])
def test_an_error_with_status_200_is_that_error(desk, code, counts):
    """Once each where it passes; the prompt's own where it does not."""
    desk.open()
    told, simulator = [], desk.server.simulator

    def answer(request, now_s):
        if len(told) >= 3 and code == 503:
            return None
        told.append(code)
        return as_json({"error": {"code": code, "status": "ODD", "message": "sorry"}})

    simulator.refused = answer
    session = desk.run([f"prompt {n}" for n in range(3)], breaker=None, retry=Retry(attempts=4, initial_s=0.01))
    assert (session.counts.completed, session.counts.failed) == counts
    assert len(told) == 3


@pytest.mark.parametrize("name", ["region", "model", "a limit of 0"])
def test_what_is_the_accounts_ends_the_session_with_the_services_sentence(desk, name):
    raised, *_ = TABLE[name]
    desk.open()
    desk.server.simulator.refused = lambda request, now_s: as_json(raised.details, status=raised.code)
    prompts = [f"prompt {n}" for n in range(40)]
    session = desk.run(prompts)
    assert session.state == "failed"
    assert raised.message in session.reason
    assert set(session.errors()["scope"]) == {"account"}
    desk.server.simulator.refused = lambda request, now_s: None
    assert desk.run(prompts).counts.completed == 40


def test_a_key_goes_to_the_developer_api_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    assert not connect("a-k3y").vertexai


def test_a_client_of_vertex_is_refused_in_one_sentence():
    with pytest.raises(InputError, match="make it with vertexai=False"):
        connect(client=genai.Client(vertexai=True, project="p", location="us-central1", api_key=None))


FILE = {"fileData": {"fileUri": "https://files.example/v1beta/files/abc", "mimeType": "text/plain"}}


@pytest.mark.parametrize("beside", [[], [FILE]], ids=["text", "file"])
@pytest.mark.parametrize("word", ["region", "leaked", "billing", "billing_400", "limit_zero", "gone"])
def test_what_the_service_says_of_an_account_is_said_once(desk, word, beside):
    """As people have reported it: one request, the service's sentence, nothing recorded against the prompts."""
    desk.open(refusals={"*": word})
    prompts = [{"id": n, "contents": [*beside, f"prompt {n}"]} for n in range(40)]
    session = desk.run(prompts, limits=Limits(concurrency=1))
    assert (session.state, session.counts.failed, session.counts.skipped) == ("failed", 1, 39)
    assert set(session.errors()["scope"]) == {"account"}


def test_a_region_that_is_refused_is_said_at_the_upload(desk, clock):
    """No file is there yet that might not be ACTIVE: nothing to wait for."""
    desk.open(refusals={"*": "region"})
    session = desk.session(["a star"], lane="batch", clock=clock)
    began_s = clock.now_s()
    clock.run(session)
    assert "User location is not supported" in session.reason
    assert clock.now_s() - began_s < 1
