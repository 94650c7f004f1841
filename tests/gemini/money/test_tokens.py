"""One estimate of tokens: what is quoted, estimated, paced and checked for size is the same number.

And one bound, which is no less: what a budget reserves, and what it must have before a session is made.
"""

import re

import pytest

pytest.importorskip("google.genai")

from ipybatch import InputError
from ipybatch.gemini import compare, generate
from ipybatch.gemini.money.budget import Budget
from ipybatch.gemini.money.prices import price_of
from ipybatch.gemini.money.tokens import INPUT_IMAGE_TOKENS
from ipybatch.gemini.service.pacer import GeminiPacer
from ipybatch.gemini.service.reply import Tokens
from ipybatch.simulators import serve
from tests.gemini.conftest import KEY, MODEL, names

USD_A_TOKEN = {MODEL: {"in": 1_000_000, "out": 0}}
SYSTEM = "Answer as briefly as you can. " * 50
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
SENT_SCHEMA = '{"type":"object","properties":{"name":{"type":"string"}},"required":["name"]}'
PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)
TURNS = [{"role": "user", "parts": ["Hello " * 20]}, {"role": "model", "parts": ["Welcome " * 10]}, "Name a star"]

# Name of the ingredient: the prompt's fields, the call's arguments, the tokens that they add to "Name a star".
INGREDIENTS = {
    "text": ({"prompt": "Name a star" + " far away" * 20}, {}, 180 // 4),
    "image": ({"image": PNG}, {}, INPUT_IMAGE_TOKENS),
    "system": ({}, {"system": SYSTEM}, len(SYSTEM) // 4),
    "system of its own": ({"system": SYSTEM}, {}, len(SYSTEM) // 4),
    "system in place of another": ({"system": SYSTEM}, {"system": "Be brief"}, len(SYSTEM) // 4),
    "schema": ({}, {"schema": SCHEMA}, -(-len(SENT_SCHEMA) // 4)),
    "earlier turns": ({"prompt": None, "contents": TURNS}, {}, 120 // 4 + 80 // 4),
}


def reserved(desk, prompt, monkeypatch, **arguments):
    """What a budget sets aside, USD; in USD a token."""
    seen, reserve = [], Budget.reserve

    async def noted(budget, bound, *anew):
        seen.append(bound.usd)
        return await reserve(budget, bound, *anew)

    monkeypatch.setattr(Budget, "reserve", noted)
    desk.run([prompt], prices=USD_A_TOKEN, budget_usd=1e9, **arguments)
    return seen[0]


def reserved_by_batch(desk, prompt, monkeypatch, **arguments):
    desk.open(batch_delay_s=0.01)
    return 2 * reserved(desk, prompt, monkeypatch, lane="batch", poll_s=0.05, **arguments)


def least_budget(desk, prompt, monkeypatch, **arguments):
    """What a budget must have before a session is made."""
    with pytest.raises(InputError, match="budget_usd must be >= ") as raised:
        desk.session([prompt], prices=USD_A_TOKEN, budget_usd=0.1, **arguments)
    return float(re.search(r">= ([\d.]+)", str(raised.value))[1])


def quoted(desk, prompt, monkeypatch, **arguments):
    return compare([prompt], prices=USD_A_TOKEN, **arguments).offers["online"].usd


def estimated(desk, prompt, monkeypatch, **arguments):
    return desk.session([prompt], prices=USD_A_TOKEN, **arguments).estimate().usd


def paced(desk, prompt, monkeypatch, **arguments):
    """What a request costs in a window of tokens."""
    seen, start = [], GeminiPacer.start

    def noted(pacer, now_s, cost):
        seen.append(cost)
        start(pacer, now_s, cost)

    monkeypatch.setattr(GeminiPacer, "start", noted)
    desk.run([prompt], **arguments)
    return seen[0]["tokens"]


def sized(desk, prompt, monkeypatch, **arguments):
    """What is said of a prompt that is too long."""
    monkeypatch.setattr("ipybatch.gemini.arguments.MOST_INPUT_TOKENS", 0)
    with pytest.raises(InputError, match="got about ") as raised:
        desk.session([prompt], **arguments)
    return int(re.search(r"got about ([\d,]+)", str(raised.value))[1].replace(",", ""))


def prompt_of(fields):
    return {name: value for name, value in {"id": 1, "prompt": "Name a star", **fields}.items() if value is not None}


@pytest.mark.parametrize("path", [quoted, estimated, paced, sized])
@pytest.mark.parametrize("ingredient", INGREDIENTS)
def test_every_ingredient_counts_on_every_path(desk, monkeypatch, path, ingredient):
    """Each adds its own tokens, and as many everywhere."""
    fields, arguments, tokens = INGREDIENTS[ingredient]
    assert path(desk, prompt_of(fields), monkeypatch, **arguments) == 3 + tokens


@pytest.mark.parametrize("ingredient", INGREDIENTS)
def test_every_ingredient_is_in_the_bound(desk, monkeypatch, ingredient):
    """A byte is at least a token, and an image may have 24 tiles; the same is reserved in every lane."""
    fields, arguments, tokens = INGREDIENTS[ingredient]
    without, prompt = prompt_of({}), prompt_of(fields)
    added = 24 * tokens if ingredient == "image" else 4 * (tokens - 1)
    bound = reserved(desk, prompt, monkeypatch, **arguments)
    assert bound >= least_budget(desk, without, monkeypatch) + added - len(without["prompt"]) - 64
    assert bound == reserved_by_batch(desk, prompt, monkeypatch, name="by batch", **arguments)
    assert bound == least_budget(desk, prompt, monkeypatch, **arguments)


def test_a_long_system_instruction_is_within_the_budget(desk):
    """40,000 characters with each of 100 prompts: 5 USD a call, 20 before it is known how many tokens they have."""
    prices = {MODEL: {"in": 500, "out": 1}}
    session = desk.run(names(100), system="x" * 40_000, prices=prices, budget_usd=32)
    assert session.state == "failed"
    assert "budget_usd is 32" in session.reason
    assert session.counts.completed == desk.sent == 6
    assert 30 <= session.usage()["usd"].sum() <= 32
    assert desk.truth["billed"]["online"]["prompt"] * 500 / 1e6 <= 32


def test_the_service_counts_the_system_instruction_too():
    with serve("gemini", key=KEY) as url:
        told = compare(names(3), system=SYSTEM, api_key=KEY, base_url=url)
    assert told.tokens_said == "measured on 3 of 3 prompts"
    assert told.tokens.in_ == 3 + len(SYSTEM) // 4


def test_a_system_instruction_is_paced_by_its_tokens(desk, clock):
    """A minute has room for two of these calls: six take two minutes, and none is refused."""
    from ipybatch.gemini import Model

    tpm = 2 * (3 + len(SYSTEM) // 4) + 10
    started_s = clock.now_s()
    session = desk.session(names(6), model=Model(MODEL, tpm=tpm), system=SYSTEM, clock=clock)
    clock.run(session)
    assert session.counts.completed == 6
    assert 120 <= clock.now_s() - started_s <= 130


@pytest.mark.parametrize("images", [1, 3])
def test_an_image_of_an_answer_is_quoted_as_it_is_reserved(images):
    """At 1,290 tokens each, which no image of a prompt has."""
    told = compare(["Draw a star"], model="gemini-2.5-flash-image", images=images, output_tokens=100)
    assert told.tokens == Tokens(in_=3, out=1290 * images, image=1290 * images)


def test_an_image_is_expected_at_the_price_of_an_image(tmp_path):
    """It costs twelve times what as much text does."""
    session = generate(
        ["Draw a star"],
        model="gemini-2.5-flash-image",
        modalities=["IMAGE"],
        images_to=False,
        api_key=KEY,
        journal=tmp_path / "j.db",
    )
    image = price_of("gemini-2.5-flash-image", Tokens(in_=3, out=1290, image=1290), "online")
    assert session.estimate().usd == pytest.approx(float(image.usd))
    assert session.estimate().usd > 0.03


def test_many_short_prompts_are_not_priced_as_one_long_one(tmp_path):
    """A long prompt may be of a dearer tier."""
    prompts = [f"{number} " + "star " * 20_000 for number in range(20)]
    session = generate(prompts, model="gemini-2.5-pro", output_tokens=100, api_key=KEY, journal=tmp_path / "j.db")
    each = price_of("gemini-2.5-pro", Tokens(in_=25_000, out=100), "online")
    assert session.estimate().usd == pytest.approx(20 * float(each.usd), rel=0.01)


def test_a_cached_content_adds_nothing_that_is_known(tmp_path):
    """Its tokens do not follow from its name."""
    arguments = {"api_key": KEY, "journal": tmp_path / "j.db"}
    plain = generate(["Name a star"], **arguments).estimate().usd
    assert generate(["Name a star"], config={"cached_content": "abc"}, **arguments).estimate().usd == plain
