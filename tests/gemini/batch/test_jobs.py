"""Jobs in the journal, their items, and their rows in the panel's table."""

import asyncio

import msgspec
import pytest

from ipybatch.engine.data.clock import SystemClock
from ipybatch.engine.data.masking import register
from ipybatch.engine.data.outcome import Outcome
from ipybatch.engine.store.journal import open_journal
from ipybatch.errors import Fenced, InputError
from ipybatch.gemini.batch.jobs import Job, JobGroups, JobIndex, JobStore, digest_of, display_name


@pytest.fixture
def store(journal):
    return JobStore(open_journal(journal))


def job_of(number=0, session="night", **fields):
    name = display_name(session, number, "abcdef01")
    return Job(display_name=name, session=session, number=number, model="gemini-2.5-flash", keys=('"a"', "1"), **fields)


def run(coroutine):
    return asyncio.run(coroutine)


def test_an_intent_is_read_back_as_it_was_written(store):
    job = run(store.intend(job_of(3)))
    assert store.named(job.display_name) == job
    assert job.created_s > 0
    assert (job.state, job.requests, job.digest) == ("intent", 2, "abcdef01")


def test_display_names_are_slugs_and_unique():
    names = {display_name("Été / Night run!", 7, "abcdef01") for _ in range(200)}
    assert len(names) == 200
    assert all(name.startswith("t-night-run-7-abcdef01-") for name in names)


def test_display_names_hide_secrets():
    register("SECRET-of-display-names")
    assert "secret" not in display_name("SECRET-of-display-names", 1, "abcdef01")


def test_the_digest_tells_what_is_sent():
    assert digest_of("m", [b"ab", b"c"]) != digest_of("m", [b"a", b"bc"])
    assert digest_of("m", [b"a"]) != digest_of("n", [b"a"])


def test_an_intent_is_sent_by_one_of_two_who_hold_it(store):
    """A kernel that wakes up with an intent that another one has sent, or withdrawn, sends nothing."""
    job = run(store.intend(job_of()))
    assert run(store.send(job)).state == "unknown"
    with pytest.raises(Fenced, match="was taken over by another process"):
        run(store.send(job))
    other = run(store.intend(job_of(1)))
    run(store.withdraw(other))
    with pytest.raises(Fenced):
        run(store.send(other))


def test_a_job_is_unknown_from_the_moment_it_may_have_left(store):
    """Whoever restarts after a kill knows that it may have been accepted."""
    job = run(store.send(run(store.intend(job_of()))))
    kept = store.named(job.display_name)
    assert kept.state == "unknown"
    assert kept.sent
    assert not run(store.intend(job_of(1))).sent


def test_once_refuses_a_number_that_was_sent(store):
    run(store.send(run(store.intend(job_of(1), once=True))))
    with pytest.raises(
        InputError, match=r"job 1 of 'night' was submitted already: wait for it, or choose another name="
    ):
        run(store.intend(job_of(1), once=True))
    run(store.intend(job_of(2), once=True))


def test_once_takes_the_place_of_what_was_never_sent(store):
    """An intent of a process that died, or a refusal, does not stand in the way; and the dead one cannot come back."""
    dead = run(store.intend(job_of(1), once=True))
    refused = run(store.intend(job_of(2), once=True))
    run(store.put(msgspec.structs.replace(refused, state="failed", reason="not accepted: 400")))
    for number in (1, 2):
        run(store.intend(job_of(number), once=True))
    assert len(store.of_session("night")) == 2
    with pytest.raises(Fenced):
        run(store.send(dead))


def test_the_end_is_noted_once(store):
    job = run(store.intend(job_of()))
    assert job.ended_s is None
    ended = run(store.put(msgspec.structs.replace(job, state="succeeded", remote="batches/1")))
    assert ended.ended_s == ended.updated_s
    assert run(store.collect(ended)).ended_s == ended.ended_s


def test_a_sessions_jobs_are_its_own_and_a_collected_one_says_so(store):
    for number, state in enumerate(["pending", "succeeded", "failed", "expired", "unknown"]):
        run(store.put(msgspec.structs.replace(run(store.intend(job_of(number))), state=state)))
    run(store.intend(job_of(9, session="other")))
    jobs = store.of_session("night")
    assert [job.state for job in jobs] == ["pending", "succeeded", "failed", "expired", "unknown"]
    run(store.collect(jobs[1]))
    assert [job.number for job in store.of_session("night") if job.collected] == [1]


def test_a_job_is_found_by_either_name(store):
    job = run(store.put(msgspec.structs.replace(run(store.intend(job_of())), remote="batches/7", state="pending")))
    assert store.named("batches/7") == store.named(job.display_name) == job
    assert store.named("") is None


def test_secrets_in_reasons_are_masked(store):
    register("SECRET-of-reasons")
    job = run(store.put(msgspec.structs.replace(run(store.intend(job_of())), reason="key SECRET-of-reasons refused")))
    assert store.named(job.display_name).reason == "key *** refused"


def test_an_intent_waits_for_the_disk(store, monkeypatch):
    """A power cut after the request left finds the intent in the journal."""
    import os

    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    job = run(store.intend(job_of()))
    assert len(synced) == 1
    job = run(store.send(job))
    assert len(synced) == 2
    run(store.put(job))
    assert len(synced) == 2


def job(number, *keys):
    return Job(display_name=f"night-{number}", session="night", number=number, model="m", keys=keys, state="succeeded")


def recorded(*items, status="completed"):
    return [Outcome(key=item, status=status, result=None, error="", attempts=1, seconds=0.0) for item in items]


def handed_out(at, done, **answered):
    """Hand out a job's answers: its key there, and the item it belongs to."""
    at.keep(done)
    for key, item in answered.items():
        at.owe(done.number, key, f'"{item}"')
    at.handed_out(done)


def test_a_job_is_collected_when_all_of_its_answers_are_on_disk():
    at, done = JobIndex(), job(1, "a", "b")
    handed_out(at, done, a="one", b="two")
    at.recorded(recorded("one"))
    assert at.settled() == []
    at.recorded(recorded("two"))
    assert at.settled() == [(done, True)]
    assert (at.settled(), at.kept, at.of("a")) == ([], {}, None)


def test_an_answer_that_nobody_asked_for_yet_stays():
    at, done = JobIndex(), job(1, "a", "b")
    handed_out(at, done, a="one")
    at.recorded(recorded("one"))
    assert at.settled() == [(done, False)]
    assert (at.of("b"), at.kept) == (1, {1: done})


def test_an_answer_that_was_not_recorded_may_be_asked_for_again():
    """It was paid for: a cancel between the answer and its record must not send the item once more."""
    at, done = JobIndex(), job(1, "a")
    handed_out(at, done, a="one")
    at.recorded(recorded("one", status="cancelled"))
    assert (at.settled(), at.of("a")) == ([], 1)


def test_an_item_that_was_sent_again_is_no_longer_in_the_first_job():
    """After a crash both are there; only the later one may answer, or it would be sent a third time."""
    at = JobIndex()
    at.keep(job(1, "a", "b"))
    at.add(job(2, "b"))
    at.release(1, "b")
    assert (at.of("a"), at.of("b")) == (1, 2)


def test_a_job_that_brought_nothing_lets_its_items_go():
    at = JobIndex()
    at.keep(job(1, "a", "b"))
    at.add(job(2, "b"))
    at.drop(job(1, "a", "b"))
    assert (at.of("a"), at.of("b"), at.kept) == (None, 2, {})


def test_a_job_whose_items_all_failed_is_collected_at_once():
    at, done = JobIndex(), job(1, "a")
    at.keep(done)
    at.release(1, "a")
    at.handed_out(done)
    assert at.settled() == [(done, True)]


def show(**fields):
    told = []
    made = Job(display_name="night-1", session="night", number=1, model="gemini-2.5-flash", keys=("1",), **fields)
    JobGroups(told.append, SystemClock()).show(made)
    return told[-1]


def test_a_job_tells_how_many_of_its_items_go_into_another_one():
    """They are not among its row's items any more, which would look as if it were not done."""
    assert show(state="succeeded", counts={"requests": 20, "failed": 3}).error == "3 failed, to be sent again"
    assert not show(state="succeeded", counts={"requests": 20}).error


def test_a_running_job_tells_how_far_it_is():
    running = show(state="running", remote="batches/1", counts={"requests": 20, "pending": 15})
    assert running.extra == {"Remote": "1", "State": "running 5/20", "Expires in": ""}
