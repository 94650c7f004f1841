"""Quotes: lanes side by side, their durations, and what the figures rest on."""

from __future__ import annotations

import html
import math
import re
import sys
from datetime import UTC, date, datetime
from decimal import Decimal

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from ipybatch import InputError
from ipybatch.engine.data.policy import Limits
from ipybatch.engine.rules.estimate import estimate
from ipybatch.engine.store.journal import open_journal
from ipybatch.errors import MissingExtra
from ipybatch.gemini.money.quote import (
    RequestPace,
    batch_s,
    compare,
    flex_s,
    notes_of,
    online_s,
    parallel_from,
    sequential_s,
)
from ipybatch.gemini.money.usage import Call, record_calls
from ipybatch.gemini.service.reply import Tokens
from ipybatch.simulators import serve
from tests.gemini.conftest import names

AT = datetime(2026, 11, 22, tzinfo=UTC)
TEXTS = [f"Write one line about star number {number:04}." for number in range(500)]
OWN = {"mine": {"in": 1, "out": 10, "batch": 0.5, "flex": 0.5}}
KEY = "AIzaSyD-a-key-of-these-tests"


@pytest.fixture
def quote():
    return compare(TEXTS, at=AT)


@pytest.fixture
def shell():
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def test_the_three_lanes_stand_side_by_side(quote):
    """500 x (10 tokens in at 0.30, 400 out at 2.50), and half of it."""
    online = 500 * (10 * Decimal("0.30") + 400 * Decimal("2.50")) / 1_000_000
    assert {lane: offer.usd for lane, offer in quote.offers.items()} == {
        "online": online,
        "flex": online / 2,
        "batch": online / 2,
    }
    assert [offer.assumed for offer in quote.offers.values()] == [False, True, False]
    assert (quote.n, quote.model, quote.dated) == (500, "gemini-2.5-flash", date(2026, 11, 22))
    assert quote.source.startswith("genai-prices")


def test_the_frame_has_one_row_per_lane(quote):
    frame = quote.to_frame()
    assert list(frame.columns) == ["lane", "usd", "assumed", "credits", "low_s", "high_s", "recommended"]
    assert list(frame["lane"]) == ["online", "flex", "batch"]
    assert frame["usd"].dtype == float
    assert list(frame["recommended"]) == [False, False, True]
    assert list(frame["low_s"]) == [125.0, 3000.0, 300.0]


@pytest.mark.parametrize(
    ("n", "needs", "lane", "words"),
    [
        (3, {}, "batch", "3 prompts that can wait cost 50 % less by batch"),
        (1, {}, "online", "one prompt is not worth the wait of a batch"),
        (2, {}, "online", "two prompts are not worth the wait of a batch"),
        (500, {"urgent": True}, "online", "it is urgent, and a batch may take a day"),
        (500, {"interactive": True}, "online", "somebody waits for each answer"),
        (500, {"preview": True}, "online", "a preview is looked at before the rest is made"),
        (0, {}, "online", "there is nothing to do"),
        (9, {"prices": {"gemini-2.5-flash": {"in": 1, "out": 1, "batch": 1}}}, "online", "a batch is no cheaper"),
        (
            9,
            {"model": "gemini-3.5-flash"},
            "batch",
            "9 prompts that can wait cost 50 % less by batch (assumed)",
        ),
    ],
)
def test_it_recommends_a_lane_and_says_why(n, needs, lane, words):
    told = compare(TEXTS[:n], at=AT, **needs)
    assert (told.recommended, told.why) == (lane, words)


def test_free_prompts_are_worth_a_batch_for_their_credits():
    """What costs no USD may cost credits."""
    free = {"free": {"in": 0, "out": 0}}
    told = compare(TEXTS[:5], model="free", prices=free, operation="product")
    assert (told.recommended, told.why) == ("batch", "5 prompts that can wait cost 12.5 credits less by batch")


def test_credits_are_exact_and_half_by_batch():
    """7 products of 3 poses: 105, and 52.5."""
    told = compare(TEXTS[:7], operation="product", units=3, at=AT)
    assert [offer.credits for offer in told.offers.values()] == [105, 105, Decimal("52.5")]
    assert told.batch_size == (5, 10)
    assert "105 credits" in repr(told)
    assert "52.5 credits" in repr(told)


def test_operations_without_credits_have_none(quote):
    assert {offer.credits for offer in quote.offers.values()} == {None}
    assert "redits" not in quote._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "images"),
    [({}, 0), ({"images": 2}, 2), ({"operation": "food", "units": 3}, 3), ({"operation": "food", "images": 0}, 0)],
)
def test_images_of_an_answer_are_tokens(arguments, images):
    """1,290 each; as many as units where the operation makes them."""
    told = compare(TEXTS[:3], at=AT, **arguments)
    assert (told.tokens.out, told.tokens.image) == (max(400, 1290 * images), 1290 * images)


def test_an_image_model_asks_the_image_price():
    told = compare(["a red kite"], model="gemini-2.5-flash-image", output_tokens=0, input_tokens=0, images=1, at=AT)
    assert told.offers["online"].usd == Decimal("0.0387")


def test_images_in_a_prompt_are_estimated(tmp_path):
    """258 tokens each beside the text."""
    (tmp_path / "a.png").write_bytes(bytes.fromhex("89504e470d0a1a0a0000000d49484452") + bytes(40))
    told = compare([{"id": 1, "prompt": "what is it?", "image": str(tmp_path / "a.png")}], at=AT)
    assert told.tokens.in_ == 3 + 258
    assert told.tokens_said == "estimated at 4 characters a token, 258 an image"


@pytest.mark.parametrize(
    "prompts",
    [
        TEXTS[:3],
        [{"id": number, "prompt": text} for number, text in enumerate(TEXTS[:3])],
        [{"contents": text} for text in TEXTS[:3]],
        pd.DataFrame({"prompt": TEXTS[:3]}),
        (text for text in TEXTS[:3]),
    ],
)
def test_prompts_may_be_texts_dicts_or_a_frame(prompts):
    told = compare(prompts, at=AT)
    assert (told.n, told.tokens.in_) == (3, 10)


def test_a_template_is_filled():
    told = compare(pd.DataFrame({"star": ["Vega", "Rigel"]}), template="About {star}, in one line", at=AT)
    assert (told.n, told.tokens.in_) == (2, 6)


def test_some_prompts_may_stand_for_many():
    """10,000 like these ten, or like none that is there when their size is given."""
    for told in (compare(TEXTS[:10], n=10_000, at=AT), compare(n=10_000, input_tokens=10, at=AT)):
        assert told.n == 10_000
        assert told.offers["online"].usd == compare(TEXTS[:10], at=AT).offers["online"].usd * 1000
    assert told.tokens_said == "as given"


def test_tokens_are_measured_where_there_is_a_service():
    """On a sample spread over the prompts; nothing else is sent, and nothing is billed."""
    server = serve("gemini", key=KEY)
    with server as url:
        told = compare(["word " * 40] * 20 + ["word"] * 480, api_key=KEY, base_url=url, sample=5, at=AT)
    stats = server.stats()
    assert told.tokens_said == "measured on 5 of 500 prompts"
    assert told.tokens.in_ == math.ceil((50 + 4 * 1) / 5)
    assert stats["requests"] == 5
    assert {lane["generations"] for lane in stats["truth"]["billed"].values()} == {0}


def test_counting_that_fails_is_told_and_estimated():
    """A wrong key costs nothing but the accuracy, and is not shown."""
    wrong = "AIzaSyD-a-wrong-key-of-these-tests"
    with serve("gemini", key=KEY) as url:
        told = compare(TEXTS, api_key=wrong, base_url=url, at=AT)
    assert told.tokens.in_ == 10
    assert told.tokens_said.startswith("estimated at 4 characters a token, because counting failed: API key not valid.")
    assert wrong not in f"{told!r}{told._repr_html_()}{told.tokens_said}"


def test_what_the_figures_rest_on_is_shown(quote):
    """Tokens, prices and their date, what is assumed, the pace, and from where on the parallel mode pays."""
    notes = "\n".join(notes_of(quote))
    for words in (
        "tokens: 10 a prompt, estimated at 4 characters a token; 400 an answer",
        "of 2026-11-22; assumed for flex: half of online",
        "online: 10 at a time, 5 s an answer\n",
        "five at a time would take 4 m 10 s to 17 m 30 s; more at a time is quicker from 6 prompts on",
        "24 hours at most",
        "batches of 10 to 20 items are best for text",
    ):
        assert words in notes
    shown = html.unescape(re.sub("<[^>]*>", "", quote._repr_html_()))
    assert all(note in shown for note in notes.splitlines())


def test_it_reads_the_same_every_time(quote):
    """Nbval compares it."""
    assert (
        repr(quote)
        == repr(compare(TEXTS, at=AT))
        == (
            "500 prompts to gemini-2.5-flash: use batch, because 500 prompts that can wait cost 50 % less by batch\n"
            "  online: $0.5015, 2 m 05 s to 8 m 50 s\n"
            "  flex: $0.2508 (assumed), 50 m 00 s to 12 h 30 m\n"
            "  batch: $0.2508, 5 m 00 s to 24 h 00 m"
        )
    )
    assert quote._repr_html_() == compare(TEXTS, at=AT)._repr_html_()


def test_words_from_outside_are_only_words():
    """An operation is shown as it was written, and never as HTML."""
    told = compare(TEXTS[:3], operation="<script>alert(1)</script>", at=AT)._repr_html_()
    assert "<script" not in told
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in told


def test_a_cell_shows_the_table_and_the_chart(quote, shell):
    with capture_output() as captured:
        quote._ipython_display_()
    table, chart = captured.outputs
    assert table.data == {"text/html": quote._repr_html_(), "text/plain": repr(quote)}
    costs, times = chart.data["application/vnd.plotly.v1+json"]["data"]
    assert costs["y"] == ["batch", "flex", "online"]
    assert costs["x"] == [0.25075, 0.25075, 0.5015]
    assert times["base"] == [300.0, 3000.0, 125.0]


def test_without_plotly_the_table_stands_alone(quote, shell, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    with capture_output() as captured:
        quote._ipython_display_()
    assert len(captured.outputs) == 1
    with pytest.raises(MissingExtra, match=re.escape('pip install "ipybatch[jupyter]"')):
        quote.chart()


def test_nothing_to_do_costs_nothing():
    told = compare([], at=AT)
    assert {(offer.usd, offer.low_s, offer.high_s) for offer in told.offers.values()} == {(0, 0, 0)}
    assert told.chart() is not None
    assert repr(told).startswith("0 prompts to gemini-2.5-flash: use online, because there is nothing to do")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"output_tokens": -1}, "output_tokens must be a whole number >= 0, got -1"),
        ({"output_tokens": None}, "output_tokens must be a whole number >= 0, got None"),
        ({"input_tokens": -1}, "input_tokens must be a whole number >= 0, got -1"),
        ({"images": 0.5}, "images must be a whole number >= 0, got 0.5"),
        ({"units": 0}, "units must be a whole number >= 1, got 0"),
        ({"n": -1}, "n must be a whole number >= 0, got -1"),
        ({"sample": 0}, "sample must be a whole number >= 1, got 0"),
        ({"latency_s": 0}, "latency_s must be > 0 and <= 86400, got 0"),
        ({"rpm": 0}, "rpm must be >= 1, got 0"),
        ({"concurrency": 0}, "concurrency must be a whole number >= 1, got 0"),
        ({"model": "gemini-99"}, "model must be one with a known price, got 'gemini-99'"),
        ({"model": "<b>"}, "model must be a name such as"),
        ({"prompts": "one text"}, "prompts must be a list"),
        ({"prompts": [""]}, r"prompts\[0\] must be a text that is not empty"),
        ({"prompts": [], "n": 5}, "input_tokens must be given for 5 prompts of which none is passed"),
        ({"prices": {"mine": {}}}, "it has no 'in'"),
    ],
)
def test_bad_input_is_refused(arguments, words):
    """By field, with its range."""
    with pytest.raises(InputError, match=words):
        compare(**{"prompts": TEXTS[:3], **arguments})


def test_the_users_prices_need_no_known_model():
    told = compare(TEXTS[:3], model="mine", prices=OWN, at=AT)
    assert [offer.assumed for offer in told.offers.values()] == [False, False, False]
    assert told.source == "your prices"


paces = st.builds(
    RequestPace,
    latency_s=st.sampled_from([0.2, 5.0, 50.0]),
    rpm=st.sampled_from([None, 2, 60, 1000]),
    concurrency=st.sampled_from([None, 1, 3, 5, 6, 10, 40]),
)


@given(pace=paces, requests=st.integers(0, 300))
def test_online_is_what_the_engine_would_take(pace, requests):
    """The formula and a dry run of the scheduler agree, within one answer for each 10 requests that are retried."""
    assume(pace.rpm is None or pace.at_once * pace.gap_s >= 2 * pace.latency_s)  # else the two limits mix
    told = estimate(Limits(concurrency=pace.at_once, spacing_s=pace.gap_s), requests, pace.latency_s, None)
    low_s, high_s = online_s(pace, requests)
    assert low_s == pytest.approx(told.low_s)
    assert high_s == pytest.approx(told.high_s, abs=2 * (2 * pace.latency_s + pace.gap_s))


@given(pace=paces, groups=st.integers(0, 40), rest=st.integers(0, 4))
def test_sequential_is_what_the_engine_would_take(pace, groups, rest):
    """Batches of five, one after the other."""
    requests = 5 * groups + rest
    limits = Limits(concurrency=5, spacing_s=pace.gap_s, batch_size=5)
    told = estimate(limits, requests, pace.latency_s / 2, None)
    assert sequential_s(pace, requests)[0] == pytest.approx(told.seconds)


@given(pace=paces, requests=st.integers(0, 500), more=st.integers(0, 50))
def test_ranges_are_ranges_and_grow(pace, requests, more):
    """Low is at most high, and more requests never take less."""
    for lane in (online_s, sequential_s, flex_s):
        low_s, high_s = lane(pace, requests)
        assert 0 <= low_s <= high_s
        assert lane(pace, requests + more) >= (low_s, high_s)


@pytest.mark.parametrize(
    ("pace", "first"),
    [
        (RequestPace(5.0), 6),  # 10 at once answer 6 in one go
        (RequestPace(5.0, concurrency=3), None),
        (RequestPace(5.0, concurrency=5), None),
        (RequestPace(5.0, rpm=60), 6),  # the sixth need not wait for the first five
        (RequestPace(5.0, rpm=6, concurrency=10), None),  # a start each 10 s: the rate alone decides
    ],
)
def test_from_how_many_prompts_on_the_parallel_mode_pays(pace, first):
    """Against five at a time, by the formulas."""
    assert parallel_from(pace) == first


@pytest.mark.parametrize(("rpm", "latency_s", "at_once"), [(2, 50, 3), (10, 50, 5), (30, 50, 10), (30, 5, 3)])
def test_the_concurrency_is_the_lanes_own(rpm, latency_s, at_once):
    assert RequestPace(latency_s, rpm).at_once == at_once


def test_batch_takes_minutes_to_a_day():
    assert batch_s(1) == batch_s(10_000) == (300.0, 86_400.0)
    assert batch_s(0) == (0.0, 0.0)


def recorded(journal, *calls, **differences):
    """Put calls on record, by input, answer and thoughts."""
    usual = {"session": "stars", "lane": "online", "model": "gemini-2.5-flash", "operation": "text", "project": ""}
    opened = open_journal(journal)
    for in_, out, thoughts in calls:
        tokens = Tokens(in_=in_, out=out, thoughts=thoughts)
        record_calls(opened, Call(**{"at_s": 1.0, "status": "ok", **usual, **differences}, tokens=tokens))
    opened.write(lambda database: None)


def test_a_quote_from_ones_own_calls_counts_thoughts(journal):
    """Mean and 95th percentile of what the service told; refused calls and other models are not among them."""
    recorded(journal, *[(10, 100, 300)] * 18, (10, 100, 300), (30, 1000, 5000))
    recorded(journal, (9, 9, 9), model="gemini-2.5-pro")
    recorded(journal, (9, 9, 9), operation="food")
    recorded(journal, (0, 0, 0), status="429")
    recorded(journal, (None, None, None), status="unanswered")
    told = compare(n=1000, tokens_from="stars", journal=journal, at=AT)
    assert told.tokens == Tokens(in_=11, out=145, thoughts=535)
    assert (told.tokens_p95.in_, told.tokens_p95.answered) == (10, 400)
    assert told.offers["online"].usd == 1000 * (11 * Decimal("0.30") + 680 * Decimal("2.50")) / 1_000_000
    assert told.offers["online"].usd_p95 == 1000 * (10 * Decimal("0.30") + 400 * Decimal("2.50")) / 1_000_000
    assert told.to_frame()["usd_p95"].tolist()[0] == pytest.approx(1.003)
    mean = "tokens: 11 a prompt, the mean of calls on record (20 calls in session 'stars'); 145 an answer"
    assert notes_of(told)[0] == f"{mean} and 535 of thoughts"
    said = (
        "95 % of these calls had at most 10 tokens in and 400 out, thoughts included; if all had as many: online $1.00"
    )
    assert said in repr(told)
    assert any(note.startswith(said) for note in notes_of(told))


def test_a_quote_may_be_from_the_calls_of_all_sessions(journal):
    recorded(journal, (10, 100, 0))
    recorded(journal, (30, 100, 0), session="planets")
    assert compare(TEXTS, tokens_from=True, journal=journal).tokens == Tokens(in_=20, out=100)
    assert compare(TEXTS, tokens_from="planets", journal=journal, input_tokens=5).tokens == Tokens(in_=5, out=100)


@pytest.mark.parametrize(
    ("tokens_from", "words"),
    [
        (
            "stars",
            "tokens_from needs calls on record, and session 'stars' has none to gemini-2.5-flash for operation 'text'",
        ),
        (True, "and any session has none .*: run a few prompts first, or leave it out for an estimate"),
        (3, "tokens_from must be a session's name, or True for all sessions, got 3"),
    ],
)
def test_without_calls_on_record_there_is_no_quote_from_them(journal, tokens_from, words):
    with pytest.raises(InputError, match=words):
        compare(TEXTS, tokens_from=tokens_from, journal=journal)


def test_a_quote_from_a_session_is_what_the_service_billed(desk):
    """For the same prompts again."""
    desk.open(thought_tokens=200)
    session = desk.run(names(20))
    told = compare(names(20), tokens_from="stars", journal=desk.journal)
    assert float(told.offers["online"].usd) == pytest.approx(session.usage()["usd"].sum(), rel=0.01)
    assert told.tokens.thoughts == 200
