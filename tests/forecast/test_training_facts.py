"""What a forecast tells of itself: processes, memory, the slowest partition, and its estimate beside the time."""

import pytest

from ipybatch.backends import Processes
from ipybatch.engine.data.events import Counts
from ipybatch.engine.data.fact import NONE
from ipybatch.engine.feed.snapshot import Group, Snapshot
from ipybatch.forecast import forecast
from ipybatch.forecast.data.partitions import Partition
from ipybatch.forecast.training_facts import TrainingFacts, left_of
from ipybatch.jupyter import messages
from tests.forecast.test_session import Inline, demand

PARTS = [
    Partition(at, f"site {at}", (f"site {at}",), 4, 4, rows, "x") for at, rows in enumerate((800, 400, 200), start=1)
]


class Measured(Processes):
    """A backend that has measured so much."""

    def __init__(self, most_mb, memory_mb=1000.0):
        super().__init__(2, memory_mb)
        self._most_mb = most_mb


def snapshot(running=(), pending=0, started_s=100.0):
    groups = {
        at: Group(number=at, name=f"site {at}", status="running", items=1, started_s=since) for at, since in running
    }
    counts = Counts(running=len(running), pending=pending, total=3)
    return Snapshot(state="running", counts=counts, groups=groups, started_s=started_s)


def read(facts, state, now_s, *, is_over=False):
    return {fact.title: fact for fact in facts.read(state, 2, now_s, is_over=is_over)}


def test_before_anything_has_ended_nothing_is_guessed():
    facts = read(TrainingFacts(PARTS, Measured(None)), snapshot([(1, 100.0), (2, 100.0)], pending=1), 103.0)
    assert list(facts) == ["Processes", "Largest process", "Slowest partition", "Time estimated"]
    assert (facts["Processes"].value, facts["Processes"].aside, facts["Processes"].share) == ("2", "of 2 busy", 1.0)
    assert facts["Processes"].foot == "1 partition waiting"
    assert [facts[title].value for title in ("Largest process", "Time estimated")] == [NONE, NONE]
    assert facts["Slowest partition"].value == "site 1"
    assert facts["Slowest partition"].foot == "1970-01-01T00:01:40.000Z so far"


def test_the_estimate_follows_from_what_has_ended():
    """200 rows took 2 s: of 800 rows that have run for 4 s, 4 s are left by their rows, and none as 2 s are typical.

    The first two have loaded their packages too: they tell nothing of the others.
    """
    facts = TrainingFacts(PARTS, Measured(640.0))
    facts.ended("site 2", 40.0, is_completed=True)
    assert facts.left_s(snapshot([(1, 100.0), (3, 140.0)]), 2, 140.0) is None
    facts.ended("site 3", 2.0, is_completed=True)
    state = snapshot([(1, 138.0)])
    told = read(facts, state, 142.0)
    assert facts.left_s(state, 2, 142.0) == (0.0, 4.0)
    assert facts.left_s(state, 2, 143.5) == (0.0, 2.5)
    assert (told["Time estimated"].value, told["Time estimated"].aside) == ("44 s", "in all")
    assert (told["Largest process"].value, told["Largest process"].aside) == ("640 MB", "of 1,000 MB")
    assert told["Largest process"].share == pytest.approx(0.64)
    facts.ended("site 1", 9.0, is_completed=True)
    over = read(facts, snapshot(), 149.25, is_over=True)
    assert list(over) == ["Largest process", "Slowest partition", "Time"]
    assert (over["Slowest partition"].value, over["Slowest partition"].foot) == ("site 2", "took 40.0 s")
    assert (over["Time"].value, over["Time"].foot) == ("49.2 s", "44 s estimated after 2")


def test_a_nearly_full_process_is_a_warning_and_one_without_a_limit_has_no_bar():
    assert read(TrainingFacts(PARTS, Measured(950.0)), snapshot(), 101.0)["Largest process"].tone == "warn"
    free = read(TrainingFacts(PARTS, Measured(950.0, None)), snapshot(), 101.0)["Largest process"]
    assert (free.share, free.aside, free.tone) == (None, "", "")


def test_memory_that_nobody_measures_is_not_told():
    assert "Largest process" not in read(TrainingFacts(PARTS, Inline()), snapshot(), 101.0)


def test_a_second_start_estimates_what_is_left_of_it():
    facts = TrainingFacts(PARTS, Inline())
    facts.ended("site 1", 50.0, is_completed=True)
    facts.begin({"site 1"})
    facts.ended("site 2", 4.0, is_completed=True)
    assert facts.left_s(snapshot([(3, 104.0)]), 2, 104.0) is None
    facts.ended("site 3", 2.0, is_completed=True)
    assert facts.left_s(snapshot(), 1, 106.0) == (0.0, 0.0)


def test_one_that_took_long_does_not_spoil_the_estimate():
    trained = {"a": 20.0, "b": 1.0, "c": 1.0}
    assert left_of("def", {}, trained, dict.fromkeys("abcdef", 100), 2) == pytest.approx((2.0, 2.0))


def test_the_panels_time_left_is_that_of_the_partitions(journal):
    """The same as the estimate beside it: an average over unequal partitions would contradict it."""
    seen = []

    class Looking(Inline):
        async def run(self, work, arguments):
            seen.append((messages.head(made).eta_low_s, made.workload.left_s()))
            return await super().run(work, arguments)

    made = forecast(demand(), horizon=5, models=["naive"], journal=journal, backend=Looking(), workers=1)
    made.run()
    assert [left_s for _, left_s in seen[:2]] == [None, None]
    assert all(eta_s == pytest.approx(left_s[0], abs=0.5) for eta_s, left_s in seen[2:])


def test_a_session_has_them_at_its_end(journal):
    made = forecast(demand(), horizon=5, models=["naive"], journal=journal, backend=Inline())
    assert made.run().counts.completed == 3
    assert [fact.title for fact in messages.head(made).facts] == ["Slowest partition", "Time"]
