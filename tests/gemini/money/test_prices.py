from __future__ import annotations

import copy
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest
from genai_prices import Usage, calc_price, data_snapshot
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import InputError
from ipybatch.gemini.money.prices import LANES, find_price, find_rates, price_of, rates_of
from ipybatch.gemini.service.reply import Tokens

AT = datetime(2026, 11, 22, tzinfo=UTC)
ROWS = {"online": None, "batch": {"processing": "batch"}, "flex": {"service_tier": "flex"}}
MILLION = Tokens(in_=1_000_000, out=1_000_000)
OWN = {"mine": {"in": 0.3, "out": "2.5", "cached": 0.03, "image": 30, "batch": 0.4}}


def has_row(model, lane):
    return any(
        row.when == ROWS[lane] and (row.constraint is None or row.constraint.active(AT))
        for row in model.price_variants or ()
    )


def gemini_models():
    google = next(provider for provider in get_snapshot().providers if provider.id == "google")
    return [model for model in google.models if model.id.startswith("gemini")]


MODELS = gemini_models()

tokens = st.builds(
    lambda fresh, cached, text, image, thoughts: Tokens(
        in_=fresh + cached, cached=cached, out=text + image, image=image, thoughts=thoughts
    ),
    fresh=st.integers(0, 400_000),
    cached=st.integers(0, 300_000),
    text=st.integers(0, 70_000),
    image=st.sampled_from([0, 1290, 5160]),
    thoughts=st.integers(0, 30_000),
)


@given(model=st.sampled_from(MODELS), spent=tokens, lane=st.sampled_from(LANES))
def test_a_price_is_that_of_genai_prices_where_it_has_one_and_half_of_online_where_not(model, spent, lane):
    """Its own calculator is the judge, for every Gemini model, tiers, caches, images and thoughts included."""
    usage = Usage(
        input_tokens=spent.in_,
        cache_read_tokens=spent.cached,
        output_tokens=spent.out + spent.thoughts,
        output_image_tokens=spent.image,
    )
    known = lane == "online" or has_row(model, lane)
    context = ROWS[lane] if known else None
    theirs = calc_price(
        usage, model.id, provider_id="google", genai_request_timestamp=AT, price_context=context
    ).total_price
    ours = price_of(model.id, spent, lane, at=AT)
    assert ours.usd == (theirs if known else theirs / 2)
    assert ours.assumed is not known


def test_a_new_edition_of_the_prices_holds_at_once(monkeypatch):
    """What is kept of one edition is not taken for the next: genai-prices can fetch prices while it runs."""
    before = price_of("gemini-2.5-flash", MILLION, "online").usd
    edition = copy.deepcopy(get_snapshot())
    for provider in edition.providers:
        for model in provider.models:
            if provider.id == "google" and model.id == "gemini-2.5-flash":
                model.prices = ModelPrice(input_mtok=Decimal(7), output_mtok=Decimal(8))
    monkeypatch.setattr(data_snapshot, "_custom_snapshot", edition)
    assert price_of("gemini-2.5-flash", MILLION, "online").usd == 15
    monkeypatch.undo()
    assert price_of("gemini-2.5-flash", MILLION, "online").usd == before


def test_models_without_a_row_are_not_given_the_full_price():
    """What this module is for: there are such models, in both lanes, and batch is never above online."""
    for lane in ("batch", "flex"):
        without = [model.id for model in MODELS if not has_row(model, lane)]
        assert len(without) > 10
        for model in without:
            found = price_of(model, MILLION, lane, at=AT)
            assert found.assumed
            assert found.usd == price_of(model, MILLION, "online", at=AT).usd / 2


def test_a_known_batch_price_is_not_assumed():
    """gemini-2.5-flash has a batch row since 2026-10-14: 0.15 and 1.25."""
    found = price_of("gemini-2.5-flash", MILLION, "batch", at=AT)
    assert (found.usd, found.assumed, found.dated.isoformat()) == (Decimal("1.40"), False, "2026-11-22")
    assert found.source.startswith("genai-prices ")


def test_before_its_row_begins_a_batch_price_is_assumed():
    assert price_of("gemini-2.5-flash", MILLION, "batch", at=datetime(2026, 9, 1, tzinfo=UTC)).assumed


def test_a_price_follows_its_date():
    """gemini-4-argon doubles on 2026-12-01."""
    before = price_of("gemini-4-argon", MILLION, "online", at=AT)
    after = price_of("gemini-4-argon", MILLION, "online", at=datetime(2026, 12, 1, tzinfo=UTC))
    assert after.usd == 2 * before.usd


def test_a_long_prompt_has_the_price_of_its_length():
    """gemini-2.5-pro asks 1.25 up to 200,000 tokens, and 2.50 for each of 200,001."""
    paid = [price_of("gemini-2.5-pro", Tokens(in_=each), "online", at=AT).usd for each in (200_000, 200_001)]
    assert paid == [Decimal("0.25"), Decimal("0.5000025")]


def test_image_tokens_have_their_price():
    """1290 tokens at $30 a million: $0.0387, not $0.0032."""
    image = Tokens(out=1290, image=1290)
    assert price_of("gemini-2.5-flash-image", image, "online", at=AT).usd == Decimal("0.0387")


def test_thoughts_are_billed_as_output():
    paid = [price_of("gemini-2.5-flash", Tokens(10, *each), "online", at=AT).usd for each in ((500, 0), (0, 500))]
    assert paid[0] == paid[1]


def test_no_date_is_now():
    assert price_of("gemini-2.5-flash", MILLION, "online").dated == datetime.now(UTC).date()


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "models/gemini-2.5-flash"])
def test_a_model_may_be_named_as_the_service_does(model):
    assert price_of(model, MILLION, "online", at=AT).usd == Decimal("2.8")


def test_an_unknown_model_has_no_price_and_says_how_to_give_one():
    """`find_price` for those who go on without; `price_of` for those who cannot."""
    assert find_price("gemini-99", MILLION, "online") is None
    with pytest.raises(InputError, match=r'got \'gemini-99\': correct the name, or .* prices=\{"gemini-99": \{"in": '):
        price_of("gemini-99", MILLION, "online")


def test_the_users_prices_come_first():
    """They hold for a model that is known, too, and need no package."""
    found = price_of("gemini-2.5-flash", MILLION, "online", prices={"models/gemini-2.5-flash": {"in": 1, "out": 2}})
    assert (found.usd, found.source, found.assumed) == (Decimal(3), "your prices", False)


def test_the_users_prices_are_taken_apart():
    spent = Tokens(in_=1_000_000, cached=500_000, out=200_000, image=100_000, thoughts=300_000)
    online = Decimal("0.15") + Decimal("0.015") + 3 + Decimal("0.25") + Decimal("0.75")
    paid = {lane: price_of("mine", spent, lane, prices=OWN) for lane in LANES}
    assert paid["online"].usd == online
    assert (paid["batch"].usd, paid["batch"].assumed) == (online * Decimal("0.4"), False)
    assert (paid["flex"].usd, paid["flex"].assumed) == (online / 2, True)


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        ([], "prices must be a dict such as"),
        ({"mine": 3}, "prices must be a dict such as"),
        ({"mine": {"in": 1}}, "it has no 'out'"),
        ({"mine": {"in": 1, "out": 1, "batsh": 1}}, "may have 'cached', .*'search', 'batch', 'flex': it has 'batsh'"),
        ({"mine": {"in": -1, "out": 1}}, r"prices\['mine'\]\['in'\] must be USD per million tokens, >= 0, got -1"),
        ({"mine": {"in": "x", "out": 1}}, "USD per million tokens, >= 0, got 'x'"),
        ({"mine": {"in": True, "out": 1}}, "got True"),
        ({"mine": {"in": float("inf"), "out": 1}}, "got inf"),
        ({"mine": {"in": 1, "out": 1, "batch": 1.5}}, "a share of the online price, > 0 and <= 1, got 1.5"),
        ({"mine": {"in": 1, "out": 1, "flex": 0}}, "> 0 and <= 1, got 0"),
    ],
)
def test_malformed_prices_are_refused(prices, words):
    """By model and field, even where another model is asked for."""
    with pytest.raises(InputError, match=words):
        price_of("gemini-2.5-flash", MILLION, "online", prices=prices)


def test_an_unknown_lane_is_refused():
    with pytest.raises(InputError, match="lane must be one of 'online', 'flex', 'batch', got 'auto'"):
        price_of("gemini-2.5-flash", MILLION, "auto")


def test_counts_that_contradict_themselves_cost_no_less_than_nothing():
    """More cached than asked, more image than answer: each at most the whole."""
    odd = Tokens(in_=10, cached=50, out=10, image=50)
    assert price_of("mine", odd, "online", prices=OWN).usd == Decimal("0.0003003")


def test_sound_images_and_searches_have_rates_of_their_own():
    prices = {"mine": {"in": 1, "out": 2, "cached": 0.1, "audio": 5, "image_in": 3, "search": 35}}
    spent = Tokens(in_=1000, cached=300, audio=200, image_in=100, cached_audio=0, out=10, searches=3)
    millionths = 400 * 1 + 300 * Decimal("0.1") + 200 * 5 + 100 * 3 + 10 * 2
    assert price_of("mine", spent, "online", prices=prices).usd == Decimal(millionths) / 1_000_000 + Decimal("0.035")
    assert price_of("mine", spent, "batch", prices=prices).usd == Decimal(millionths) / 2_000_000 + Decimal("0.035")


@pytest.mark.parametrize(("model", "usd"), [("gemini-2.5-flash", "0.035"), ("gemini-3-flash-preview", "0.042")])
def test_from_gemini_3_on_each_query_is_billed(model, usd):
    assert price_of(model, Tokens(searches=3), "online", at=AT).usd == Decimal(usd)


def test_sound_is_dearer_than_text():
    heard = [price_of("gemini-2.5-flash", Tokens(in_=1000, audio=each), "online", at=AT).usd for each in (0, 1000)]
    assert heard == [Decimal("0.0003"), Decimal("0.001")]


def test_tokens_that_are_not_known_have_no_price():
    assert find_price("gemini-2.5-flash", Tokens(in_=1, out=None), "online") is None
    with pytest.raises(InputError, match="tokens must be numbers, got Tokens"):
        price_of("gemini-2.5-flash", Tokens(in_=None), "online")


@given(model=st.sampled_from(MODELS), spent=tokens, lane=st.sampled_from(LANES), has_audio=st.booleans())
def test_no_call_costs_more_than_the_most(model, spent, lane, has_audio):
    """Whatever of it is cached, an image or sound."""
    spent = msgspec.structs.replace(spent, audio=spent.in_ // 3 if has_audio else 0)
    rates = rates_of(find_rates(model.id, lane, at=AT, own={}), spent.in_)
    most = rates.most(spent.in_, spent.answered, has_audio=has_audio, has_images=bool(spent.image), searches=0)
    assert rates.cost(spent) <= most
