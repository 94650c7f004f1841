"""The ledger, as a test that compares a client's statement reads it."""

import asyncio
import json

import httpx2
import pytest

from ipybatch.simulators import Faults, GeminiSimulator, SimTransport
from ipybatch.simulators.gemini.ledger import LANES
from tests.simulators.gemini.conftest import FLASH, request_of

SUMS = {
    "prompt": "tokens_in",
    "out": "tokens_out",
    "thoughts": "tokens_thoughts",
    "cached": "tokens_cached",
    "generations": "billed",
}


def test_a_call_is_one_row_that_says_what_its_answer_says(start):
    line = start(thought_tokens=7, cached_share=0.5)
    usage = line.generate("x" * 40)[1]["usageMetadata"]
    (row,) = line.ledger()
    assert row.pop("at_s") >= 0
    assert row == {
        "key": "SIMULATED",
        "model": FLASH,
        "lane": "online",
        "job": None,
        "item": None,
        "prompt": "x" * 40,
        "finish_reason": "STOP",
        "billed": True,
        "tokens_in": usage["promptTokenCount"],
        "tokens_out": usage["candidatesTokenCount"],
        "tokens_thoughts": usage["thoughtsTokenCount"],
        "tokens_cached": usage["cachedContentTokenCount"],
        "tokens_audio": 0,
        "tokens_drawn": 0,
        "tokens_image": 0,
        "queries": 0,
        "usd": pytest.approx((5 * 0.3 + 5 * 0.03 + (usage["candidatesTokenCount"] + 7) * 2.5) / 1e6),
        "told": True,
        "delivered": True,
    }


def test_each_item_of_a_job_is_one_row(start):
    """An item that fails is not billed, one that was never fetched not delivered."""
    line = start(keys=["OTHER"])
    name = line.ended("a", "[[invalid]]", "[[no_usage]]", key="OTHER")
    line("GET", "/v1/batches?pageSize=5", key="OTHER")
    rows = line.ledger()
    assert {(row["key"], row["job"], row["lane"]) for row in rows} == {("OTHER", name, "batch")}
    assert [(row["item"], row["finish_reason"]) for row in rows] == [("k0", "STOP"), ("k1", "ERROR"), ("k2", "STOP")]
    assert [(row["billed"], row["told"]) for row in rows] == [(True, True), (False, False), (True, False)]
    assert [row["tokens_in"] > 0 for row in rows] == [True, False, True]
    assert not any(row["delivered"] for row in rows)
    line.job(name, key="OTHER")
    assert all(row["delivered"] for row in line.ledger())


def test_rows_come_when_a_job_has_ended(start):
    line = start(batch_delay_s=10.0)
    line.create("a")
    assert line.ledger() == []
    line.advance(10.0)
    line("GET", "/v1/models")
    assert len(line.ledger()) == 1


def test_the_rows_add_up_to_the_sums(start):
    line = start(thought_tokens=3, cached_share=0.3, item_failure_rate=0.3, rate_drop_after=0.3)
    line.ended(*(f"b{n}" for n in range(20)), "[[blocked]]")
    for number in range(10):
        tier = {"serviceTier": "flex"} if number % 2 else {}
        try:
            line.generate(f"p{number}", **tier)
        except httpx2.TransportError:
            continue
    rows, truth = line.ledger(), line.simulator.truth()
    for lane in LANES:
        sums = {name: sum(row[column] for row in rows if row["lane"] == lane) for name, column in SUMS.items()}
        assert sums == truth["billed"][lane]
    assert truth["billed_twice"] == []


@pytest.mark.parametrize("kind", ["drop_after", "truncated"])
def test_an_answer_that_breaks_off_is_billed_and_not_delivered(start, kind):
    line = start(**{f"rate_{kind}": 1.0})
    with pytest.raises((httpx2.TransportError, json.JSONDecodeError)):
        line.generate()
    assert [(row["billed"], row["delivered"]) for row in line.ledger()] == [(True, False)]


def test_an_answer_to_a_client_that_has_gone_is_not_delivered(start):
    """It waited 50 ms for an answer that takes 300: billed all the same."""
    line = start(latency_s=0.3)
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(
            f"{line.server.url}/v1/models/{FLASH}:generateContent",
            headers={"x-goog-api-key": "SIMULATED"},
            json=request_of("gone"),
            trust_env=False,
            timeout=httpx2.Timeout(5.0, read=0.05),
        )
    line.generate("stays")
    assert {row["prompt"]: row["delivered"] for row in line.ledger()} == {"gone": False, "stays": True}


def test_an_answer_in_process_is_delivered_unless_its_caller_gives_up(clock):
    service = GeminiSimulator(faults=Faults(latency_s=2.0))

    async def call(prompt, patience_s):
        transport = SimTransport(service, sleep=clock.sleep, now=clock.now)
        headers = {"x-goog-api-key": "SIMULATED"}
        async with httpx2.AsyncClient(transport=transport, headers=headers, timeout=patience_s) as client:
            await client.post(f"http://here/v1/models/{FLASH}:generateContent", json=request_of(prompt))

    async def work():
        return await asyncio.gather(call("stays", 5.0), call("gone", 1.0), return_exceptions=True)

    clock.run(work())
    assert {row["prompt"]: row["delivered"] for row in service.ledger()} == {"stays": True, "gone": False}


def test_a_prompt_paid_online_and_in_a_job_is_billed_twice(start):
    line = start(job_faults=["expire+partial", None], partial_share=0.5)
    line.ended("a", "b")
    line.generate("b")
    assert line.simulator.truth()["billed_twice"] == []
    line.ended("a", name="again")
    line("GET", "/v1/models")
    assert line.simulator.truth()["billed_twice"] == ["a"]
    assert [row["prompt"] for row in line.ledger() if row["billed"]] == ["a", "b", "a"]


def test_rows_are_the_same_whatever_the_order_of_the_calls():
    """Faults and tokens follow the prompt."""

    def rows(prompts):
        service = GeminiSimulator(answer_faults={"cut": 0.3, "no_usage": 0.3}, thought_tokens=5)
        transport = httpx2.AsyncClient(transport=SimTransport(service), headers={"x-goog-api-key": "SIMULATED"})

        async def work():
            async with transport as client:
                url = f"http://here/v1/models/{FLASH}:generateContent"
                await asyncio.gather(*(client.post(url, json=request_of(prompt)) for prompt in prompts))

        asyncio.run(work())
        return {row.pop("prompt"): row for row in service.ledger() if row.pop("at_s") >= 0}

    prompts = [f"p{number}" for number in range(30)]
    assert rows(prompts) == rows(prompts[::-1])


# Model, tier, and the bill for 1,000 tokens in and 100 out of text, at the prices of November 2026.
BILLS = {
    "online": ("gemini-2.5-flash", {}, 1000 * 0.3 + 100 * 2.5),
    "flex, assumed": ("gemini-2.5-flash", {"serviceTier": "flex"}, (1000 * 0.3 + 100 * 2.5) / 2),
    "a search": ("gemini-2.5-flash", {"tools": [{"googleSearch": {}}]}, 1000 * 0.3 + 100 * 2.5 + 35_000),
    "a search by flex": ("gemini-2.5-flash", {"tools": [{"googleSearch": {}}], "serviceTier": "flex"}, 275 + 35_000),
}


@pytest.mark.parametrize("what", BILLS)
def test_the_bill_follows_from_public_prices(start, what):
    model, more, millionths = BILLS[what]
    line = start(output_tokens=1000)
    line.generate("x" * 4000, model=model, generationConfig={"maxOutputTokens": 100}, **more)
    assert line.ledger()[0]["usd"] == pytest.approx(millionths / 1e6)


def test_sound_has_its_own_price_and_gemini_3_bills_each_query(start):
    line = start(models=[FLASH, "gemini-3-flash-preview"])
    audio = {"inlineData": {"mimeType": "audio/wav", "data": "AAAA" * 2000}}
    line("POST", f"/v1/models/{FLASH}:generateContent", {"contents": [{"parts": [audio]}]})
    line.generate("a", model="gemini-3-flash-preview", tools=[{"googleSearch": {}}])
    heard, searched = line.ledger()
    assert heard["usd"] == pytest.approx((1000 * 1.0 + heard["tokens_out"] * 2.5) / 1e6)
    assert searched["usd"] == pytest.approx((0.5 + searched["tokens_out"] * 3) / 1e6 + 0.014 * searched["queries"])


def test_a_model_without_a_public_price_has_no_bill(start):
    line = start(models=["my-own"])
    line.generate("a", model="my-own")
    assert line.ledger()[0]["usd"] is None
