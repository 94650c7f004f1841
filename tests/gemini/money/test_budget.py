"""What may be billed counts: calls are on record before they are sent, and those without an answer cost their bound."""

import asyncio
import sqlite3
import time
from decimal import Decimal

import msgspec
import pytest

pytest.importorskip("google.genai")

from ipybatch import InputError, Retry
from ipybatch.engine.data.clock import SystemClock
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store.journal import open_journal
from ipybatch.errors import JournalError
from ipybatch.gemini import usage
from ipybatch.gemini.money.budget import Bound, Budget, Money
from ipybatch.gemini.money.usage import SENT, UNANSWERED, Call, CallLog, record_calls, spent_usd, uncollected_usd
from ipybatch.gemini.prompts import to_prompts
from ipybatch.gemini.service.api import Api
from ipybatch.gemini.service.reply import UNTOLD, Tokens
from ipybatch.gemini.service.request_config import RequestConfig
from tests.gemini.conftest import MODEL, names

CAPPED = {"max_output_tokens": 100}
CAPPED_USD = 100 * 2.5e-6  # of the answer, at most; the prompt has at most 256 tokens
ONCE = Retry(attempts=1)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)


def rows_of(journal):
    """Every call on record: status, tokens in and out, USD, bound, requests in flight."""
    with open_journal(journal).reader() as database:
        columns = "status, tokens_in, tokens_out, usd, bound_usd, at_once"
        return database.execute(f"SELECT {columns} FROM usage ORDER BY id").fetchall()


@pytest.mark.parametrize("lane", ["online", "flex"])
def test_a_call_is_on_record_before_it_is_sent(desk, monkeypatch, lane):
    seen, generate = [], Api.generate

    async def looked(api, model, request):
        seen.append(rows_of(desk.journal))
        return await generate(api, model, request)

    monkeypatch.setattr(Api, "generate", looked)
    desk.run(names(1), lane=lane, config=CAPPED)
    (((status, asked, answered, usd, bound_usd, at_once),),) = seen
    assert (status, asked, answered, usd, at_once) == (SENT, None, None, None, 1)
    share = 1.0 if lane == "online" else 0.5
    assert CAPPED_USD * share < bound_usd < (CAPPED_USD + 256 * 0.3e-6) * share
    ((status, asked, *_, usd, kept, at_once),) = rows_of(desk.journal)
    assert (status, asked, kept, at_once) == ("ok", 3, bound_usd, 1)
    assert 0 < usd < bound_usd


# Fault of the service: the status on record, and whether it costs what was reserved.
ENDS = {
    "500": ("500", False),
    "503": ("503", False),
    "504": ("504", False),
    "drop": (UNANSWERED, True),
    "html": (UNANSWERED, True),
    "truncated": (UNANSWERED, True),
}


@pytest.mark.parametrize("fault", ENDS)
def test_a_call_without_an_answer_costs_its_bound_and_one_that_is_refused_nothing(desk, fault):
    status, is_billed = ENDS[fault]
    desk.open(**{f"rate_{fault}": 1.0})
    session = desk.run(names(1), config=CAPPED, retry=ONCE, breaker=None, budget_usd=1)
    ((found, asked, answered, usd, bound_usd, _),) = rows_of(desk.journal)
    assert (found, usd) == (status, bound_usd if is_billed else None)
    assert (asked, answered) == ((None, None) if is_billed else (0, 0))
    assert session.snapshot.spent_usd == 0  # the panel shows what answers told
    assert session.usage()["unanswered"].tolist() == [int(is_billed)]
    assert session.usage()["usd_unconfirmed"].tolist() == [pytest.approx(bound_usd if is_billed else 0.0)]


def test_a_call_that_is_cut_off_by_its_time_costs_its_bound(desk):
    """The service bills it all the same."""
    desk.open(latency_s=30.0)
    session = desk.run(names(1), config=CAPPED, retry=ONCE, breaker=None, timeout_s=0.2, budget_usd=1)
    ((status, asked, _, usd, bound_usd, _),) = rows_of(desk.journal)
    assert (status, asked, usd) == (UNANSWERED, None, bound_usd)
    assert session.usage()["usd_unconfirmed"].tolist() == [bound_usd]


def test_a_service_that_is_not_there_costs_nothing(desk):
    session = desk.session(
        names(1), config=CAPPED, retry=ONCE, breaker=None, budget_usd=1, base_url="http://127.0.0.1:9"
    )
    session.run()
    assert [(status, usd) for status, *_, usd, _, _ in rows_of(desk.journal)] == [("notsent", None)]
    assert session.statement()["sent"].tolist() == [0]
    assert session.snapshot.spent_usd == 0


def test_an_answer_without_usage_costs_its_bound_and_has_no_tokens(desk):
    """None is not 0: in the row, in the usage and in the budget."""
    session = desk.run(["[[no_usage]] a", "b"], config=CAPPED, concurrency=1, budget_usd=1)
    untold, told = session.results().to_dict("records")
    assert (untold["status"], told["status"]) == ("completed", "completed")
    assert [untold[f"tokens_{name}"] for name in ("in", "out", "thoughts")] == [None] * 3
    (status, asked, answered, usd, bound_usd, _), _ = rows_of(desk.journal)
    assert (status, asked, answered, usd) == ("ok", None, None, bound_usd)
    assert (untold["usd"], untold["usd_is_bound"]) == (bound_usd, True)
    assert told["usd_is_bound"] is None
    assert session.snapshot.spent_usd == pytest.approx(told["usd"])
    assert session.usage()["usd"].sum() == pytest.approx(bound_usd + told["usd"])
    (row,) = session.usage().to_dict("records")
    assert (row["untold"], row["tokens_in"], row["usd_unconfirmed"]) == (1, told["tokens_in"], bound_usd)


def test_usage_without_any_tokens_is_none(desk):
    row = desk.run(["[[no_usage]] a"], config=CAPPED).usage().iloc[0]
    assert row[["tokens_in", "tokens_out", "tokens_thoughts"]].isna().all()


def sent(journal, **differences):
    """Leave a call as a process leaves it that is killed."""
    usual = {"session": "stars", "lane": "online", "model": MODEL, "operation": "text", "project": "", "status": SENT}
    opened = open_journal(journal)
    record_calls(opened, Call(at_s=time.time() + 60, tokens=UNTOLD, bound_usd=Decimal("0.25"), **usual | differences))
    opened.write(lambda database: None)
    return opened


def test_what_a_killed_process_had_sent_counts_at_its_bound(desk):
    desk.run(names(1), config=CAPPED, budget_usd=1)
    sent(desk.journal)
    assert usage(session="stars", journal=desk.journal)["usd_unconfirmed"].tolist() == [0.25]
    session = desk.run(names(3), config=CAPPED, budget_usd=0.2501)
    assert "0.0001 is spent, 0.2500 may be, on calls without an answer" in session.reason
    session = desk.run(names(3), config=CAPPED, budget_usd=1)
    assert session.snapshot.spent_usd == pytest.approx(session.usage()["usd"].sum() - 0.25)
    assert [status for status, *_ in rows_of(desk.journal)].count(UNANSWERED) == 1


def test_the_calls_of_another_session_are_not_touched(desk):
    opened = sent(desk.journal, session="planets")
    desk.run(names(1), config=CAPPED)
    assert spent_usd(opened, "planets", 0.0) == Decimal("0.25")
    assert [status for status, *_ in rows_of(desk.journal)] == [SENT, "ok"]


def job_row(opened, **differences):
    named = {"display_name": "stars-1", "session": "stars", "number": 1, "model": MODEL, "remote": "batches/1"}
    told = {"state": "running", "keys": b"[]", "created_s": 10.0, "updated_s": 10.0, "requests": 2, "collected": 0}
    row = {**named, **told, "bound_usd": 0.5, **differences}
    statement = f"INSERT INTO job ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in row)})"
    opened.write(lambda database: database.execute(statement, row))


def test_a_job_that_is_not_collected_counts_at_its_bound_less_what_is_on_record(journal):
    opened = open_journal(journal)
    job_row(opened)
    job_row(opened, display_name="stars-2", number=2, collected=1)
    job_row(opened, display_name="stars-3", number=3, remote="", state="intent")
    job_row(opened, display_name="stars-4", number=4, remote="", state="unknown", bound_usd=0.125)
    job_row(opened, display_name="stars-5", number=5, bound_usd=None)
    assert uncollected_usd(opened, "stars", 0.0) == {"stars-1": Decimal("0.5"), "stars-4": Decimal("0.125")}
    answer = {"at_s": 20.0, "session": "stars", "lane": "batch", "model": MODEL, "operation": "text", "project": ""}
    for _ in range(2):  # it is fetched twice
        told = {"usd": Decimal("0.125"), "bound_usd": Decimal("0.25")}
        record_calls(opened, Call(**answer, **told, status="ok", job="stars-1", item="a"))
    opened.write(lambda database: None)
    assert usage(journal=journal)["requests"].tolist() == [1]
    assert uncollected_usd(opened, "stars", 0.0)["stars-1"] == Decimal("0.25")
    assert spent_usd(opened, "stars", 0.0) == Decimal("0.5")


def test_a_model_without_a_price_among_several_is_asked_for(desk):
    with pytest.raises(InputError, match=r"budget_usd needs a price for my-own, .*give it as prices="):
        desk.session(names(1), models=[MODEL, "my-own"], budget_usd=1)
    with pytest.raises(InputError, match=r"budget_usd needs a price for my-own"):
        desk.session(names(1), fallback="my-own", budget_usd=1)
    prices = {"my-own": {"in": 1, "out": 1}}
    assert desk.session(names(1), models=[MODEL, "my-own"], budget_usd=1, prices=prices)


def test_without_a_longest_answer_all_that_is_left_goes_to_the_first_call(desk):
    """Then twice the longest so far; and the session says so, once."""
    desk.open(latency_s=0.05)
    session = desk.run(names(30), output_tokens=60, budget_usd=0.01)
    assert session.counts.completed == 30
    assert rows_of(desk.journal)[0][-1] == 1
    assert max(at_once for *_, at_once in rows_of(desk.journal)) > 3
    notes = [note for note in session.snapshot.notes if "max_output_tokens" in note]
    assert len(notes) == 1
    bound = {bound_usd for *_, bound_usd, _ in rows_of(desk.journal)[1:]}
    assert max(bound) < 200 * 2.5e-6


def test_with_room_for_the_longest_answer_nothing_is_said(desk):
    session = desk.run(names(5), budget_usd=5)
    assert not [note for note in session.snapshot.notes if "max_output_tokens" in note]
    assert {round(bound_usd, 3) for *_, bound_usd, _ in rows_of(desk.journal)} == {0.164}  # 65,536 tokens


# What is sent: fields of the prompt, settings of all, and the most input tokens: from, to.
TOKENS = {"in": 1_000_000, "out": 0}
SIZES = {
    "letters": ({"prompt": "x" * 1000}, {}, 1000, 1256),
    "Chinese": ({"prompt": "星" * 1000}, {}, 3000, 3256),
    "system": ({"prompt": "a"}, {"system": "x" * 1000}, 1000, 1256),
    "system of its own": ({"prompt": "a", "system": "x" * 1000}, {}, 1000, 1256),
    "schema": ({"prompt": "a"}, {"schema": {"type": "object", "description": "x" * 1000}}, 1000, 1384),
    "tools": ({"prompt": "a"}, {"config": {"tools": [{"function_declarations": [{"name": "x" * 999}]}]}}, 1000, 1256),
    "image": ({"prompt": "a", "image": PNG}, {}, 6192, 6448),
    "image by address": (
        {"contents": [{"file_data": {"file_uri": "https://a/files/b", "mime_type": "image/png"}}]},
        {},
        6192,
        6448,
    ),
    "file": (
        {"contents": [{"file_data": {"file_uri": "https://a/files/b", "mime_type": "application/pdf"}}]},
        {},
        1_048_576,
        1_048_576,
    ),
    "cached content": ({"prompt": "a"}, {"config": {"cached_content": "b"}}, 1_048_576, 1_048_576),
    "search": ({"prompt": "a"}, {"config": {"tools": [{"google_search": {}}]}}, 1_048_576, 1_048_576),
}


@pytest.mark.parametrize("what", SIZES)
def test_the_bound_of_the_input_counts_all_that_is_sent(what):
    fields, common, low, high = SIZES[what]
    (prompt,) = to_prompts([{"id": 1, **fields}])
    bound = Money(Budget(1), {MODEL: TOKENS}).bound(prompt, MODEL, "online", RequestConfig(**common))
    assert low <= bound.usd <= high


def test_what_all_prompts_have_in_common_has_no_more_tokens_than_one_of_them_had():
    """Learnt from one answer: cached content too."""
    first, second = to_prompts(["a", "b" * 500])
    money = Money(Budget(1), {MODEL: TOKENS})
    for config in (RequestConfig(system="x" * 9000), RequestConfig(config={"cached_content": "c"}, lane="flex")):
        assert money.bound(second, MODEL, config.lane, config).usd > 4500
    money.learn(first, MODEL, Tokens(in_=2000, out=1))
    for config in (RequestConfig(system="x" * 9000), RequestConfig(config={"cached_content": "c"}, lane="flex")):
        assert 2500 <= money.bound(second, MODEL, "online", config).usd <= 2500 + 128


# Settings, and the most that an answer may cost at 1 USD a token of text and 10 of an image.
ANSWERS = {
    "max_output_tokens": ({"config": {"max_output_tokens": 100}}, 100),
    "nothing": ({}, 65_536),
    "image": ({"modalities": ("IMAGE",), "config": {"max_output_tokens": 5000}}, 50_000),
    "image beyond it": ({"modalities": ("IMAGE",), "config": {"max_output_tokens": 100}}, 20_000),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_the_bound_of_the_answer_is_at_its_dearest_rate(what):
    common, usd = ANSWERS[what]
    prices = {MODEL: {"in": 0, "out": 1_000_000, "image": 10_000_000}}
    money = Money(Budget(1), prices)
    assert money.bound(*to_prompts(["a"]), MODEL, "online", RequestConfig(**common)).usd == usd


def test_a_long_prompt_is_bounded_at_the_price_of_its_length():
    (prompt,) = to_prompts(["x" * 250_000])
    bound = Money(Budget(1)).bound(prompt, "gemini-2.5-pro", "online", RequestConfig(config=CAPPED))
    assert bound.usd >= (250_000 * Decimal("2.5") + 100 * 15) / 1_000_000


def test_sound_is_bounded_at_its_own_rate():
    part = {"inline_data": {"mime_type": "audio/wav", "data": "AAAA" * 1000}}
    (prompt,) = to_prompts([{"id": 1, "contents": [part, "Write it down"]}])
    bound = Money(Budget(1)).bound(prompt, MODEL, "online", RequestConfig(config=CAPPED))
    assert 4000 * Decimal("1e-6") <= bound.usd <= 4400 * Decimal("1e-6") + 100 * Decimal("2.5e-6")


def test_a_chunk_is_reserved_as_one_sum():
    """And what an earlier process committed is held, though it does not fit."""

    async def story():
        budget = Budget(10)
        budget.hold(Decimal(6))
        chunk = Bound.of([Bound(Decimal(8), Decimal(1)), Bound(Decimal(9), Decimal(2))])
        held = await budget.reserve(chunk)
        assert held == 3
        budget.settle(held, Decimal(2))
        budget.settle(Decimal(6), Decimal(7))
        assert budget.spent_usd == 9

    asyncio.run(story())


def test_the_usage_tells_projects_apart(desk):
    session = desk.run([{"prompt": "a", "project": "menu"}, {"prompt": "b", "project": "map"}])
    assert session.usage(by="project")["project"].tolist() == ["map", "menu"]
    frame = usage(by="project", journal=desk.journal)
    assert frame[["project", "requests"]].values.tolist() == [["map", 1], ["menu", 1]]
    assert usage(project="menu", journal=desk.journal)["requests"].tolist() == [1]
    assert usage(by=["session", "project"], journal=desk.journal)["session"].tolist() == ["stars", "stars"]
    with pytest.raises(InputError, match="by must be 'project', 'session' or both, got 'lane'"):
        usage(by="lane", journal=desk.journal)


def test_the_usage_tells_how_many_ran_at_once_and_how_long_a_call_took(desk):
    desk.open(latency_s=0.05)
    row = desk.run(names(12), concurrency=3).usage().iloc[0]
    assert 1 < row["at_once"] <= 3
    assert row["seconds"] == pytest.approx(row["ms"] / 1000)
    assert row["seconds"] >= 0.05


CALL = Call(
    at_s=1.0, session="stars", lane="online", model=MODEL, operation="text", project="", status=SENT, tokens=UNTOLD
)


@pytest.fixture
def commits(monkeypatch):
    made = []
    monkeypatch.setattr(journals, "on_commit", made.append)
    return lambda: made.count("after")


def test_calls_that_begin_together_share_a_commit(journal, commits):
    opened = open_journal(journal)

    async def story():
        log, before = CallLog(opened, SystemClock()), commits()
        return await asyncio.gather(*(log.begin(CALL) for _ in range(20))), commits() - before

    numbers, made = asyncio.run(story())
    assert len(set(numbers)) == 20
    assert made == 1


def test_calls_that_begin_and_end_share_the_commit_of_what_is_submitted_meanwhile(journal, commits):
    opened = open_journal(journal)

    async def story():
        log = CallLog(opened, SystemClock())
        first = await log.begin(CALL)
        second, before = asyncio.ensure_future(log.begin(CALL)), commits()
        log.end(first, msgspec.structs.replace(CALL, status="ok", tokens=Tokens(1, 2)))
        await asyncio.sleep(0)
        opened.submit(lambda database: None, lambda result, error: None)
        await second
        log.close()
        return commits() - before

    assert asyncio.run(story()) == 1
    with opened.reader() as database:
        assert [row[0] for row in database.execute("SELECT status FROM usage ORDER BY id")] == ["ok", SENT]


def test_what_fails_beside_a_call_takes_nothing_along(journal):
    opened, told = open_journal(journal), []

    async def story():
        log = CallLog(opened, SystemClock())
        begun = asyncio.ensure_future(log.begin(CALL))
        await asyncio.sleep(0)
        opened.submit(lambda database: 1 / 0, lambda result, error: told.append(error))
        number = await begun
        log.close()
        return number

    assert asyncio.run(story()) > 0
    opened.write(lambda database: None)
    assert isinstance(told[0], JournalError)


@pytest.mark.parametrize("turns", range(5))
def test_a_call_that_is_cancelled_before_it_is_sent_leaves_no_row(journal, turns):
    """Whether its row is on disk already or not; its neighbour is sent."""
    opened = open_journal(journal)

    async def story():
        log = CallLog(opened, SystemClock())
        first, second = (asyncio.ensure_future(log.begin(CALL)) for _ in range(2))
        for _ in range(turns):
            await asyncio.sleep(0)
        was_sent = first.done()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        return await second, was_sent

    number, was_sent = asyncio.run(story())
    opened.write(lambda database: None)
    with opened.reader() as database:
        rows = [row[0] for row in database.execute("SELECT id FROM usage")]
    assert number in rows
    assert len(rows) == 1 + was_sent


def test_a_call_that_is_not_on_record_is_not_sent(journal):
    opened = open_journal(journal)
    opened.write(lambda database: database.execute("DROP TABLE usage"))

    async def story():
        with pytest.raises(JournalError):
            await CallLog(opened, SystemClock()).begin(CALL)

    asyncio.run(story())


def test_a_call_waits_for_another_program_that_writes(journal, monkeypatch):
    """Nothing is sent meanwhile."""
    monkeypatch.setattr(journals, "BUSY_S", 0.01)
    opened = open_journal(journal)

    async def story():
        other = sqlite3.connect(journal, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        begun = asyncio.ensure_future(CallLog(opened, SystemClock()).begin(CALL))
        done, _ = await asyncio.wait([begun], timeout=0.1)
        assert not done
        other.execute("COMMIT")
        other.close()
        return await begun

    assert asyncio.run(story()) > 0


def test_an_end_that_the_journal_refuses_goes_with_what_comes_next(journal, monkeypatch):
    """As on a disk that was full for a moment: what a call has cost is known nowhere else."""
    opened = open_journal(journal)

    def full(place):
        raise sqlite3.OperationalError("database or disk is full")

    async def story():
        log = CallLog(opened, SystemClock())
        numbers = [await log.begin(CALL) for _ in range(2)]
        for number in numbers:
            log.end(number, msgspec.structs.replace(CALL, status="ok", tokens=Tokens(1, 2)))
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(journals, "on_commit", full)
            opened.flush()
        opened.submit(lambda database: None, lambda result, error: None)
        log.close()

    asyncio.run(story())
    opened.write(lambda database: None)
    with opened.reader() as database:
        assert [row[0] for row in database.execute("SELECT status FROM usage")] == ["ok", "ok"]


def test_calls_that_end_together_are_on_record_before_whatever_follows(journal):
    """In one commit; whoever submits it, and whether or not the loop turns."""
    opened = open_journal(journal)
    seen = []

    async def story(turns):
        log = CallLog(opened, SystemClock())
        numbers = [await log.begin(CALL) for _ in range(3)]
        for number in numbers:
            log.end(number, msgspec.structs.replace(CALL, status="ok", tokens=Tokens(1, 2)))
        for _ in range(turns):
            await asyncio.sleep(0)
        ended = "SELECT count(*) FROM usage WHERE status = 'ok'"
        opened.submit(lambda database: seen.append(database.execute(ended).fetchone()[0]), lambda result, error: None)
        log.close()

    asyncio.run(story(0))
    asyncio.run(story(2))
    opened.write(lambda database: None)
    assert seen == [3, 6]
    assert opened.before == []
