"""The Gemini templates, run against the simulator: what is refused before anything is spent, and what comes of it."""

import base64
from decimal import Decimal
from pathlib import Path

import pytest

pytest.importorskip("google.genai")
from ipybatch.engine.data.masking import mask
from ipybatch.gemini import CreditAccount
from ipybatch.server.templates import TEMPLATES, WrongField
from ipybatch.simulators import serve

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 40
IMAGE = base64.b64encode(PNG).decode()


@pytest.fixture(scope="module")
def gemini():
    server = serve("gemini", latency_s=0.001, batch_delay_s=0.02)
    yield server
    server.close()


KINDS = [("character", 12), ("food", 12), ("product", 15), ("text-to-image", 12), ("text", None)]


@pytest.mark.parametrize(("kind", "credits_"), KINDS)
def test_a_kind_is_checked_run_and_counted(desk, gemini, kind, credits_):
    requests = ["A red fox", {"prompt": "A blue fox", "imageBase64": IMAGE}, {"prompt": "A fox", "id": "mine"}]
    given = {"base_url": gemini.url, "lane": "online"}
    checked = desk.check(kind, requests, **given)
    assert (checked.requests, checked.operation, checked.units) == (3, kind, 3)
    assert checked.credits == (None if credits_ is None else Decimal(credits_))
    session = desk.session(kind, requests, **given)
    assert session.run().counts.completed == 3
    assert list(session.results()["key"]) == [1, 2, "mine"]
    assert TEMPLATES[kind].used(session) == (credits_ or 0)
    assert TEMPLATES[kind].used(session, since_s=9e9) == 0, "an earlier session of the name is not paid again"
    if kind != "text":
        files = [Path(file) for file in session.results()["file"]]
        (folder,) = {file.parent for file in files}
        assert [file.name for file in files] == ["1.png", "2.png", "mine.png"]
        assert folder.parent.parent == desk.journal.parent
        assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent)] == [0o700, 0o700]


def test_a_batch_is_the_default_and_takes_half_the_credits(desk, gemini):
    given = {"base_url": gemini.url, "poll_s": 0.02}
    checked = desk.check("product", ["A lamp", "A chair"], **given)
    assert checked.credits == 5
    session = desk.session("product", ["A lamp", "A chair"], **given)
    assert session.spec.policy.wait_s > 48 * 3600, "it waits for as long as the service does"
    session.run()
    assert TEMPLATES["product"].used(session) == 5


def test_samples_are_paid_each(desk, gemini):
    given = {"base_url": gemini.url, "lane": "online", "samples": 2}
    assert desk.check("food", ["Soup"], **given).credits == 8
    session = desk.session("food", ["Soup"], **given)
    session.run()
    assert TEMPLATES["food"].used(session) == 8


def test_sessions_of_a_key_share_its_windows(desk, gemini, monkeypatch):
    first = desk.session("text", ["A"], base_url=gemini.url, name="one")
    second = desk.session("food", ["B"], base_url=gemini.url, name="two")
    monkeypatch.setenv("GEMINI_API_KEY", "another key")
    other = desk.session("text", ["A"], base_url=gemini.url, name="three")
    assert first.policy.resource == second.policy.resource != other.policy.resource


WRONG = [
    ([], {}, "requests"),
    (["a"] * 21, {}, "requests"),
    ([5], {}, "requests[0]"),
    (["a", {"prompt": ""}], {}, "requests[1].prompt"),
    (["a", {"prompt": "b", "image": "/etc/passwd"}], {}, "requests[1].image"),
    ([{"prompt": "b", "imageBase64": "/etc/passwd"}], {}, "requests[0].imageBase64"),
    ([{"prompt": "b", "imageBase64": "http://127.0.0.1/a.png"}], {}, "requests[0].imageBase64"),
    ([{"prompt": "b", "imageBase64": base64.b64encode(b"no image").decode()}], {}, "requests[0].imageBase64"),
    ([{"prompt": "b", "imageBase64": "A" * 20_100_000}], {}, "requests[0].imageBase64"),
    ([{"prompt": "a", "id": 1}, {"prompt": "b", "id": 1}], {}, "requests[1].id"),
    ([{"prompt": "a", "id": {}}], {}, "requests[0].id"),
    (["a"], {"lane": "slow"}, "params.lane"),
    (["a"], {"lanes": "batch"}, "params.lanes"),
    (["a"], {"images_to": "/tmp"}, "params.images_to"),
    (["a"], {"budget_usd": -1}, "params.budget_usd"),
    (["a"], {"budget_usd": "5"}, "params.budget_usd"),
    (["a"], {"temperature": "hot"}, "params.temperature"),
    (["a"], {"samples": 0}, "params.samples"),
    (["a"], {"model": "no such name!"}, "params.model"),
    (["a"], {"temperature": 1, "config": {"temperature": 1}}, "params.temperature"),
    (["a"], {"base_url": "https://elsewhere.example"}, "params.base_url"),
    (["a"], {"base_url": "http://127.0.0.1@elsewhere.example/"}, "params.base_url"),
    (["a"], {"base_url": "http://127.0.0.1\\@elsewhere.example/"}, "params.base_url"),
    (["a"], {"base_url": "http://localhost.elsewhere.example"}, "params.base_url"),
    (["a"], {"base_url": "file:///etc/passwd"}, "params.base_url"),
    (["a"], {"base_url": None}, "GEMINI_API_KEY"),
]


@pytest.mark.parametrize(("requests", "params", "field"), WRONG)
def test_what_is_wrong_is_named_and_nothing_is_sent(desk, gemini, requests, params, field):
    before = gemini.stats()
    error = desk.refused("text", requests, **{"base_url": gemini.url, **params})
    assert isinstance(error, WrongField)
    assert error.field == field
    assert field.rpartition(".")[2] in str(error)
    assert gemini.stats() == before
    assert not desk.journal.with_name("images").exists()


def test_the_limit_of_requests_is_named(desk, gemini):
    error = desk.refused("text", ["a"] * 10_000, base_url=gemini.url)
    assert "20" in str(error)
    assert (error.value, error.allowed["maxItems"]) == (10_000, 20)


def test_a_key_in_a_request_is_refused_and_masked(desk, gemini):
    error = desk.refused("text", ["a"], base_url=gemini.url, api_key="an own k3y")
    assert error.field == "params.api_key"
    assert "an own k3y" not in str(error)
    assert "an own k3y" not in mask("they sent an own k3y")


def test_an_address_that_the_environment_names_is_taken(desk, gemini, monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "k3y of the environment")
    for variable in ("GEMINI_BASE_URL", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.setenv(variable, "https://gateway.example/")
        assert desk.check("text", ["a"], base_url="https://gateway.example").requests == 1
        assert isinstance(desk.refused("text", ["a"], base_url="https://gateway.example.org"), WrongField)
        monkeypatch.delenv(variable)
    monkeypatch.setenv("GEMINI_BASE_URL", gemini.url)
    assert desk.session("text", ["a"]).spec.connection.base_url == gemini.url


def test_paid_answers_of_a_name_are_not_replaced(desk, gemini):
    given = {"base_url": gemini.url, "lane": "online", "name": "stars"}
    desk.session("text", ["a"], **given).run()
    desk.check("text", ["a"], **given)
    assert "paid" in str(desk.refused("text", ["b"], **given))


@pytest.mark.parametrize(
    ("params", "field", "told"),
    [
        ({"temperature": 3}, "params.temperature", "temperature must be >= 0 and <= 2, got 3.0"),
        ({"max_output_tokens": 0}, "params.max_output_tokens", "max_output_tokens must be a whole number >= 1, got 0"),
        ({"config": {"temperature": 3}}, "params.config", "config['temperature'] must be >= 0 and <= 2, got 3"),
    ],
)
def test_a_wrong_parameter_is_named_as_it_was_given(desk, gemini, params, field, told):
    error = desk.refused("text", ["a"], base_url=gemini.url, **params)
    assert (error.field, str(error).startswith(told)) == (field, True), error


def test_models_without_a_price_are_named_as_they_were_given(desk, gemini):
    with pytest.raises(WrongField, match="models must be one with a known price") as refused:
        desk.quote("text", ["a"], base_url=gemini.url, models=["none"])
    assert refused.value.field == "params.models"


def test_a_quote_has_a_row_for_each_lane_and_reserves_nothing(desk, gemini):
    CreditAccount().grant(10)
    quote = desk.quote("character", ["a"] * 3, base_url=gemini.url)
    assert [(row["lane"], row["credits"]) for row in quote.quote] == [("online", 12), ("flex", 12), ("batch", 6)]
    assert (quote.credits.cost, quote.credits.balance, quote.credits.available) == (6, 10, 10)
    assert quote.seconds == (300, 86_400)
    assert quote.usd > 0
    assert any("5 to 10" in note for note in quote.notes), "the recommended size is told"
    assert desk.quote("text", ["a"] * 3, base_url=gemini.url).credits is None
