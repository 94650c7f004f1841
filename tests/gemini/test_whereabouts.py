from ipybatch.engine.data.outcome import Outcome
from ipybatch.gemini.jobs import Job
from ipybatch.gemini.whereabouts import Whereabouts


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
    at, done = Whereabouts(), job(1, "a", "b")
    handed_out(at, done, a="one", b="two")
    at.recorded(recorded("one"))
    assert at.settled() == []
    at.recorded(recorded("two"))
    assert at.settled() == [(done, True)]
    assert (at.settled(), at.kept, at.of("a")) == ([], {}, None)


def test_an_answer_that_nobody_asked_for_yet_stays():
    at, done = Whereabouts(), job(1, "a", "b")
    handed_out(at, done, a="one")
    at.recorded(recorded("one"))
    assert at.settled() == [(done, False)]
    assert (at.of("b"), at.kept) == (1, {1: done})


def test_an_answer_that_was_not_recorded_may_be_asked_for_again():
    """It was paid for: a cancel between the answer and its record must not send the item once more."""
    at, done = Whereabouts(), job(1, "a")
    handed_out(at, done, a="one")
    at.recorded(recorded("one", status="cancelled"))
    assert (at.settled(), at.of("a")) == ([], 1)


def test_an_item_that_was_sent_again_is_no_longer_in_the_first_job():
    """After a crash both are there; only the later one may answer, or it would be sent a third time."""
    at = Whereabouts()
    at.keep(job(1, "a", "b"))
    at.take(job(2, "b"))
    at.release(1, "b")
    assert (at.of("a"), at.of("b")) == (1, 2)


def test_a_job_that_brought_nothing_lets_its_items_go():
    at = Whereabouts()
    at.keep(job(1, "a", "b"))
    at.take(job(2, "b"))
    at.drop(job(1, "a", "b"))
    assert (at.of("a"), at.of("b"), at.kept) == (None, 2, {})


def test_a_job_whose_items_all_failed_is_collected_at_once():
    at, done = Whereabouts(), job(1, "a")
    at.keep(done)
    at.release(1, "a")
    at.handed_out(done)
    assert at.settled() == [(done, True)]
