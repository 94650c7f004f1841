"""Answers of no use: what is sent again, how often, and what its row says of it."""

import pytest

pytest.importorskip("google.genai")

from pydantic import BaseModel

from ipybatch import InputError, Retry
from ipybatch.engine.store.journal import open_journal
from ipybatch.gemini.batch.jobs import JobStore
from ipybatch.gemini.tries import read_again
from ipybatch.simulators.gemini.quotas import as_error
from tests.gemini.conftest import MODEL, names
from tests.gemini.nights import SOON, groups, night, reached
from tests.gemini.nights import night_service as gemini

PRO, LITE = "gemini-2.5-pro", "gemini-2.5-flash-lite"


class Star(BaseModel):
    name: str


def paid(desk):
    """The cost of every call, summed."""
    with open_journal(desk.journal).reader() as database:
        return database.execute("SELECT sum(usd) FROM usage").fetchone()[0]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (None, {}),
        ((), {}),
        ("empty", {"empty": 1}),
        ({"cut", "empty"}, {"empty": 1, "cut": 1}),
        (["invalid"], {"invalid": 1}),
        ({"cut": 2, "invalid": 1}, {"cut": 2, "invalid": 1}),
    ],
)
def test_words_mean_once_each(given, read):
    assert read_again(given) == read


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"blocked"}, "got 'blocked'; for what was blocked pass fallback=, another model"),
        ({"late"}, "again must be some of 'empty', 'cut', 'invalid', got 'late'"),
        ({"cut": 0}, r"again\['cut'\] must be a whole number >= 1 and <= 100, got 0"),
        ({"cut": True}, r"again\['cut'\] must be a whole number"),
        (7, "again must be some of"),
    ],
)
def test_others_are_refused_before_anything_is_sent(desk, given, said):
    with pytest.raises(InputError, match=said):
        desk.session(names(1), again=given)


@pytest.mark.parametrize("lane", ["online", "flex", "auto"])
@pytest.mark.parametrize(
    ("mark", "again", "arguments", "tries", "is_whole"),
    [
        ("empty:1", {"empty"}, {}, 2, True),
        ("no_parts:1", {"empty"}, {}, 2, True),
        ("malformed_call:1", "empty", {}, 2, True),
        ("cut:2", {"cut": 2}, {}, 3, True),
        ("cut:3", {"cut": 2}, {}, 3, False),
        ("trailing:1", {"invalid"}, {"schema": Star}, 2, True),
        ("bad_json", {"invalid": 3}, {"schema": Star}, 4, False),
        ("max_tokens:1", {"empty", "invalid"}, {}, 1, False),
        ("safety:1", {"empty", "cut", "invalid"}, {}, 1, False),
        ("empty:1", None, {}, 1, False),
    ],
)
def test_what_was_asked_for_is_sent_again_so_often(desk, lane, mark, again, arguments, tries, is_whole):  # noqa: PLR0917
    """Each try is billed and recorded; the row has the last one, and all that was paid."""
    prompt = f"[[{mark}]] a star"
    session = desk.run([prompt, *names(1)], lane=lane, again=again, **arguments)
    row = session.results().iloc[0]
    assert desk.asked[prompt] == tries
    assert (row["status"], row["attempts"]) == ("completed" if is_whole else "failed", 1)
    assert (row["tries"] if again else 1) == tries
    assert session.usage()["requests"].sum() == tries + 1
    assert session.results()["usd"].sum() == pytest.approx(paid(desk))
    assert desk.run([prompt, *names(1)], lane=lane, again=again, **arguments).counts.completed == 1 + is_whole
    assert desk.asked[prompt] == tries


def test_other_trouble_costs_no_try(desk):
    """Nor does it forget the ones before: the row of what fails in the end has what was paid."""
    desk.open(rate_503=0.5, seed=3)
    prompts = [f"[[empty]] {name}" for name in names(8)]
    patient = Retry(attempts=20, initial_s=0.01, max_s=0.05)
    session = desk.run(prompts, again={"empty": 2}, retry=patient, breaker=None)
    assert session.results()["attempts"].max() > 1
    assert session.results()["tries"].tolist() == [3] * 8
    assert [seen["accepted"] for seen in desk.truth["prompts"].values()] == [3] * 8
    assert session.results()["usd"].sum() == pytest.approx(paid(desk))


def test_what_fails_otherwise_in_the_end_still_has_what_was_paid(desk):
    """The tries stay for the next call."""
    desk.open(latency_s=0.0)
    answer = desk.server.simulator.refused
    asked = []

    def busy(request, now_s):
        asked.append(request)
        return answer(request, now_s) if len(asked) == 1 else as_error(503, "busy")

    desk.server.simulator.refused = busy
    session = desk.run(["[[empty:1]] a"], again={"empty"}, retry=Retry(attempts=1), breaker=None)
    row = session.results().iloc[0]
    assert (row["status"], row["tries"]) == ("failed", 1)
    assert row["usd"] == pytest.approx(paid(desk))
    desk.server.simulator.refused = answer
    row = desk.run(["[[empty:1]] a"], again={"empty"}).results().iloc[0]
    assert (row["status"], row["tries"]) == ("completed", 2)


def test_a_restart_counts_on(desk):
    """Withheld by the budget after one try: the next call has one left, and its row has both."""
    prompt, priced = "[[empty]] a star", {"prices": {"gemini-2.5-flash": {"in": 1000.0, "out": 0.1}}}
    session = desk.run([prompt], again={"empty"}, budget_usd=0.13, **priced)
    row = session.results().iloc[0]
    assert (session.state, row["status"], row["tries"]) == ("failed", "skipped", 1)
    assert row["usd"] == pytest.approx(paid(desk))
    again = desk.run([prompt], again={"empty"}, **priced)
    row = again.results().iloc[0]
    assert (row["status"], row["tries"], desk.asked[prompt]) == ("failed", 2, 2)
    assert row["usd"] == pytest.approx(paid(desk))
    assert row["finish_reason"] == "STOP"


def test_after_its_outcome_an_item_begins_anew(desk):
    prompt = "[[empty:3]] a star"
    assert desk.run([prompt], again={"empty"}).counts.failed == 1
    session = desk.session([prompt], again={"empty"})
    session.retry_failed()
    session.run()
    row = session.results().iloc[0]
    assert (row["status"], row["tries"], desk.asked[prompt]) == ("completed", 2, 4)
    with open_journal(desk.journal).reader() as database:
        assert database.execute("SELECT count(*) FROM again").fetchone() == (0,)


def test_a_cancel_sends_nothing_again(desk, wait_for):
    """What was in flight is billed and comes back; the rest of its tries stay for the next call."""
    desk.open(latency_s=0.3)
    prompt = "[[empty:1]] a star"
    session = desk.session([prompt], again={"empty"})
    session.start()
    while not desk.sent:
        pass
    session.cancel()
    wait_for(session)
    assert desk.asked[prompt] == 1
    row = session.results().iloc[0]
    assert (row["status"], row["tries"]) == ("skipped", 1)
    session.resume()
    wait_for(session)
    row = session.results().iloc[0]
    assert (row["status"], row["tries"], desk.asked[prompt]) == ("completed", 2, 2)


def test_in_a_batch_only_what_was_of_no_use_is_sent_again(journal, clock):
    with gemini(batch_delay_s=SOON) as service:
        prompts = ["[[empty:1]] a", "[[cut:2]] b", "c"]
        session = night(service, journal, prompts, clock=clock, again={"empty": 1, "cut": 2})
        clock.run(session)
        assert session.results()["status"].tolist() == ["completed"] * 3
        assert session.results()["tries"].tolist() == [2, 3, 1]
        assert [group.items for group in session.snapshot.groups.values()] == [3, 2, 1]
        assert groups(session) == [("completed", "succeeded")] * 3
        assert service.truth()["billed"]["batch"]["generations"] == 6
        assert session.results()["usd"].sum() == pytest.approx(session.usage()["usd"].sum())


def test_a_resume_finds_the_job_of_each_try(journal, clock):
    """The second job is left running; the next call picks it up, sends nothing, and ends both."""
    with gemini(batch_delay_s=SOON) as service:
        prompts, options = ["[[empty:1]] a"], {"clock": clock, "again": {"empty"}, "poll_s": 1.0}
        session = night(service, journal, prompts, wait_s=30, **options)

        async def slow_down():
            await reached(lambda: service.jobs == 1)
            service._server.simulator._jobs._running_s = 0.4

        clock.run(session, slow_down())
        row = session.results().iloc[0]
        assert (row["status"], row["tries"], service.jobs) == ("skipped", 1, 2)
        session = night(service, journal, prompts, wait_s=1e6, **options)
        clock.run(session)
        row = session.results().iloc[0]
        assert (row["status"], row["tries"], service.jobs) == ("completed", 2, 2)
        assert groups(session) == [("completed", "succeeded")] * 2
        jobs = JobStore(open_journal(journal)).of_session("night")
        assert [job.collected for job in jobs] == [True, True]


@pytest.mark.parametrize("lane", ["online", "flex"])
def test_what_was_blocked_is_sent_to_another_model_once(desk, lane):
    """Prompts and answers alike; what is empty is not blocked, and what that model blocks too stays so."""
    prompts = ["[[blocked:1]] a", "[[safety:1]] b", "[[blocked]] c", "[[empty]] d", "e"]
    session = desk.run(prompts, lane=lane, fallback=PRO)
    frame = session.results()
    assert frame["status"].tolist() == ["completed", "completed", "failed", "failed", "completed"]
    assert frame["model"].tolist() == [PRO, PRO, PRO, MODEL, MODEL]
    assert frame["tries"].tolist() == [2, 2, 2, 1, 1]
    assert [desk.asked[prompt] for prompt in prompts] == [2, 2, 2, 1, 1]
    assert session.usage().groupby("model")["requests"].sum().to_dict() == {MODEL: 5, PRO: 3}
    assert frame["usd"].sum() == pytest.approx(paid(desk))


def test_what_is_blocked_in_a_batch_is_answered_at_once(journal, clock):
    with gemini(batch_delay_s=SOON) as service:
        session = night(service, journal, ["[[safety:1]] a", "b"], clock=clock, fallback=PRO)
        clock.run(session)
        assert session.results()["model"].tolist() == [PRO, MODEL]
        assert session.usage().set_index("lane")["model"].to_dict() == {"batch": MODEL, "online": PRO}
        assert service.jobs == 1


def test_a_job_ends_though_its_blocked_answer_was_read_before_a_restart(journal, clock):
    """The other model's day is over, and the next call asks it at last."""
    with gemini(batch_delay_s=SOON, models={MODEL: {}, LITE: {}, PRO: {"rpd": 1}}) as service:
        clock.run(night(service, journal, ["a"], clock=clock, model=PRO, lane="online", name="other"))
        session = night(service, journal, ["[[safety:1]] b"], clock=clock, fallback=PRO)
        clock.run(session)
        assert session.results()["status"].tolist() == ["skipped"]
        jobs = JobStore(open_journal(journal))
        session = night(service, journal, ["[[safety:1]] b"], clock=clock, fallback=LITE)
        clock.run(session)
        assert session.results()[["status", "tries", "model"]].values.tolist() == [["completed", 2, LITE]]
        assert [job.collected for job in jobs.of_session("night")] == [True]


def test_both_count_on_their_own(desk):
    """An empty answer of the other model is sent to it again."""
    session = desk.run(["[[safety:1]] [[empty:2]] a"], fallback=PRO, again={"empty"})
    row = session.results().iloc[0]
    assert (row["status"], row["tries"], row["model"]) == ("completed", 3, PRO)
    assert session.usage().set_index("model")["requests"].to_dict() == {MODEL: 1, PRO: 2}


def test_a_fallback_whose_day_is_used_up_holds_its_prompt_and_no_other(desk, clock):
    """What was blocked is kept and not paid again: the next call goes on with the other model."""
    prompts = [*names(5), "[[safety:1]] a", "[[safety:1]] b", *names(9)[5:]]
    desk.open(models={MODEL: {}, PRO: {"rpd": 1}})
    options = {"fallback": PRO, "clock": clock, "concurrency": 1, "retry": Retry(attempts=2)}
    session = desk.session(prompts, **options)
    clock.run(session)
    frame = session.results().set_index("key")
    assert session.counts.completed == 10
    assert frame.loc["[[safety:1]] b", ["status", "tries"]].tolist() == ["skipped", 1]
    assert f"the quota of {PRO} for today is used up" in frame.loc["[[safety:1]] b", "error"]
    desk.open()
    frame = clock.run(again := desk.session(prompts, **options)) and again.results().set_index("key")
    assert frame.loc["[[safety:1]] b", ["tries", "model"]].tolist() == [2, PRO]
    assert desk.sent == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"fallback": MODEL}, "fallback must be another model than those that are asked first"),
        ({"models": ["a", "b"], "fallback": "models/b"}, "fallback must be another model"),
        ({"fallback": "a b"}, "fallback must be a name"),
        ({"fallback": "nobody-knows", "budget_usd": 1.0}, "budget_usd needs a price for nobody-knows"),
        ({"fallback": "gemini-2.5-flash-image"}, "gemini-2.5-flash-image answers with images"),
    ],
)
def test_a_fallback_that_makes_no_sense_is_refused(desk, arguments, said):
    with pytest.raises(InputError, match=said):
        desk.session(names(1), **arguments)
