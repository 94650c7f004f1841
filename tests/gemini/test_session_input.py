"""Bad input is refused before anything is sent, by field, value, allowed range and what to do."""

import pytest

pytest.importorskip("google.genai")
import pandas as pd

from ipybatch import InputError, Limits
from ipybatch.gemini import generate
from tests.gemini.conftest import MODEL, names

BAD = {
    "lane": ({"lane": "fast"}, r"lane must be one of 'online', 'flex', 'batch', 'auto', got 'fast'"),
    "model": ({"model": ""}, r"model must be a name such as 'gemini-2.5-flash', got ''"),
    "no models": ({"models": []}, r"models must be a list of names or Model\(...\), got \[\]"),
    "models as text": ({"models": MODEL}, r"models must be a list"),
    "both": ({"model": MODEL, "models": [MODEL]}, r"give model= or models=, not both"),
    "name": ({"name": " "}, r"name must be a text of 1 to 200 characters, got ' '"),
    "system": ({"system": ""}, r"system must be a text that is not empty"),
    "config": ({"config": {"temprature": 1}}, r"config must not hold 'temprature'.*did you mean 'temperature'"),
    "temperature": ({"config": {"temperature": 5}}, r"config\['temperature'\] must be >= 0 and <= 2, got 5"),
    "schema": ({"schema": 3}, r"schema must be a pydantic class or a dict, got 3"),
    "modalities": ({"modalities": ["SOUND"]}, r"modalities must be some of 'TEXT' and 'IMAGE', got"),
    "one modality": ({"modalities": "SOUND"}, r"modalities must be some of 'TEXT' and 'IMAGE', got 'SOUND'"),
    "another model": ({"fallback": ""}, r"fallback must be a name such as 'gemini-2.5-flash', got ''"),
    "operation": ({"operation": 3}, r"operation must be a text of at most 200 characters, got 3"),
    "project": ({"project": None}, r"project must be a text of at most 200 characters, got None"),
    "folder": ({"images_to": ""}, r"folder must be a path or an address such as 's3://bucket/pictures', got ''"),
    "unwritable": ({"images_to": "/proc/nowhere"}, r"folder must be one that can be written, got '/proc/nowhere'"),
    "concurrency": ({"concurrency": 0}, r"concurrency must be a whole number >= 1, got 0"),
    "half at once": ({"concurrency": 2.5}, r"concurrency must be a whole number >= 1, got 2.5"),
    "sequential": ({"sequential": True, "lane": "batch"}, r'sequential=True is for lane "online" or "flex", got'),
    "output tokens": ({"output_tokens": 0}, r"output_tokens must be > 0, got 0"),
    "flex tries": ({"lane": "flex", "flex_tries": 0}, r"flex_tries must be a whole number >= 1, got 0"),
    "fallback": ({"flex_fallback": "none"}, r"flex_fallback must be one of 'online', 'batch', None, got 'none'"),
    "job size": ({"max_requests_per_job": 0}, r"max_requests_per_job must be a whole number >= 1, got 0"),
    "active jobs": ({"max_active_jobs": 0}, r"max_active_jobs must be a whole number >= 1, got 0"),
    "poll": ({"poll_s": 0}, r"poll_s must be > 0, got 0"),
    "wait": ({"wait_s": -1}, r"wait_s must be > 0, got -1"),
    "deadline": ({"lane": "auto", "deadline_s": -1}, r"deadline_s must be > 0, got -1"),
    "deadline online": ({"deadline_s": 60}, r'deadline_s needs lane="auto".*got lane=\'online\''),
    "no budget": ({"budget_usd": 0}, r"budget_usd must be > 0, got 0"),
    "budget": ({"budget_usd": float("nan")}, r"budget_usd must be > 0, got nan"),
    "small budget": ({"budget_usd": 1e-9}, r"budget_usd must be >= 0\.\d+, which one call may take, got 1E-9"),
    "no price": ({"model": "my-own", "budget_usd": 1}, r"budget_usd needs a price for my-own.*give it as prices="),
    "prices": ({"prices": 3}, r"prices must be a dict such as"),
    "account": ({"account": "kitchen"}, r"account must be a CreditAccount or None, got 'kitchen'"),
    "timeout": ({"timeout_s": "3"}, r"timeout_s must be > 0, got '3'"),
    "timeout of a batch": ({"lane": "batch", "timeout_s": 3}, r"timeout_s is for one request"),
    "limits": ({"limits": 3}, r"limits must be Limits\(...\) or None, got 3"),
    "retry": ({"retry": 3}, r"retry must be Retry\(...\) or None, got 3"),
    "breaker": ({"breaker": 3}, r"breaker must be Breaker\(...\) or None, got 3"),
    "on_failure": ({"on_failure": "panic"}, r"on_failure must be one of 'continue', 'stop', 'rollback', got 'panic'"),
    "address": ({"base_url": "gateway"}, r"base_url must be an address such as .*, got 'gateway'"),
    "client": ({"client": 3}, r"client must be a google.genai.Client, got 3"),
    "key": ({"api_key": 3}, r"api_key must be a Gemini API key"),
}
PROMPTS = {
    "twice": (["a", "b", "a"], r"items 0 and 2 share the key \"a\""),
    "empty": (["a", " "], r"prompts\[1\] must be a text that is not empty, got ' '"),
    "number": ([3], r"prompts\[0\] must be a text or a dict, got 3"),
    "one text": ("a", r"prompts must be a list of prompts or a frame, got 'a': pass it in a list"),
    "misspelt": ([{"promt": "a"}], r"prompts\[0\] has the unknown field 'promt'"),
    "image": ([{"prompt": "a", "image": "no.png"}], r"prompts\[0\]\['image'\] must be an image, got 'no.png'"),
    "too long": (["a", "x" * 5_000_000], r"prompt 1 must have <= 1,048,576 tokens, got about 1,250,000: cut it"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_argument_is_refused_before_anything_is_sent(desk, bad):
    arguments, message = BAD[bad]
    desk.open()
    with pytest.raises(InputError, match=message):
        desk.session(names(2), **arguments)
    assert desk.stats["requests"] == 0


@pytest.mark.parametrize("bad", PROMPTS)
def test_a_bad_prompt_is_refused_before_anything_is_sent(desk, bad):
    """Also when those before it are good."""
    prompts, message = PROMPTS[bad]
    desk.open()
    with pytest.raises(InputError, match=message):
        desk.session(prompts)
    assert desk.stats["requests"] == 0


def test_a_template_without_its_column_is_refused(desk):
    with pytest.raises(InputError, match="town"):
        desk.session(pd.DataFrame({"city": ["Oslo"]}), template="Describe {town}")


def test_what_is_recorded_stays_when_a_call_is_refused(desk):
    desk.run(names(3))
    for arguments, _ in BAD.values():
        with pytest.raises(InputError):
            desk.session(names(3), **arguments)
    assert desk.run(names(3)).counts.completed == 3
    assert desk.sent == 3


@pytest.fixture
def no_key(monkeypatch):
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("key", [None, "", "  "])
def test_without_a_key_it_says_where_one_goes(journal, no_key, key):
    with pytest.raises(InputError, match="GEMINI_API_KEY"):
        generate(names(1), journal=journal, api_key=key)


@pytest.mark.parametrize("variable", ["GEMINI_API_KEY", "GOOGLE_API_KEY"])
def test_the_environment_may_hold_the_key(desk, no_key, monkeypatch, variable):
    desk.open(key="K3Y-of-the-environment")
    monkeypatch.setenv(variable, "K3Y-of-the-environment\n")
    assert desk.run(names(1), api_key=None).counts.completed == 1


def test_a_key_that_no_header_carries_is_refused_and_not_told(journal, no_key):
    with pytest.raises(InputError, match="api_key must be one line of ASCII letters") as raised:
        generate(names(1), journal=journal, api_key="K3Y\nof two lines")
    assert "K3Y" not in str(raised.value)


def test_no_prompts_are_a_finished_session(desk):
    session = desk.run([])
    assert (session.state, session.counts.total, desk.stats["requests"]) == ("completed", 0, 0)


def test_limits_and_a_concurrency_of_its_own_go_together(desk):
    assert desk.run(names(4), limits=Limits(concurrency=2), concurrency=3).counts.completed == 4
