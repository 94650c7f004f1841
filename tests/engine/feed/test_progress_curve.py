from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ipybatch.engine.data.events import MARKS, Mark
from ipybatch.engine.feed.snapshot import Pace

steps = st.lists(
    st.tuples(st.floats(0.0, 1e4), st.integers(0, 50), st.integers(0, 50), st.integers(0, 9)), min_size=1, max_size=900
)


def grown(steps, at_s=1000.0):
    """Marks of counts that only grow."""
    started = ended = failed = 0
    marks = []
    for seconds, starts, ends, fails in steps:
        at_s, started, ended, failed = at_s + seconds, started + starts, ended + ends, failed + fails
        marks.append(Mark(at_s, started, ended, failed))
    return marks


def pace_of(marks):
    pace = Pace()
    for mark in marks:
        pace.add(mark)
        assert len(pace.marks) <= MARKS + 1
    return pace


def check(marks):
    """Times and counts never go back."""
    for before, after in pairwise(marks):
        assert before.at_s <= after.at_s
        assert (before.started, before.ended, before.failed) <= (after.started, after.ended, after.failed)


@given(steps=steps)
def test_a_few_hundred_marks_tell_it_however_long_it_takes(steps):
    """From first to last, growing, at most one mark more than there may be."""
    marks = grown(steps)
    pace = pace_of(marks)
    check(pace.marks)
    assert pace.marks[0] == marks[0]
    assert pace.marks[-1] == marks[-1]
    assert set(pace.marks) <= set(marks)


@given(steps=steps)
def test_marks_are_a_step_apart(steps):
    """Two of them share a step at most, so that what is drawn is a rate and no noise."""
    pace = pace_of(grown(steps))
    for first, _, third in zip(pace.marks, pace.marks[1:], pace.marks[2:], strict=False):
        assert third.at_s >= first.at_s + pace.step_s or third is pace.marks[-1]


@given(earlier=steps, own=steps)
def test_the_past_is_put_before(earlier, own):
    """The counts of this process go on where those of earlier ones ended, and nothing is lost."""
    before = pace_of(grown(earlier)).marks
    pace = pace_of(grown(own, at_s=before[-1].at_s + 5.0))
    latest = pace.marks[-1]
    base = pace.put_before(before)
    assert base == before[-1]
    assert pace.is_whole
    check(pace.marks)
    assert len(pace.marks) <= MARKS + 1
    assert pace.marks[0] == before[0]
    assert pace.marks[-1] == Mark(
        latest.at_s, base.started + latest.started, base.ended + latest.ended, base.failed + latest.failed
    )


def test_without_a_past_nothing_is_added():
    """A session that never ran before counts from nothing."""
    pace = pace_of([Mark(5.0, 1, 0, 0), Mark(7.0, 3, 2, 1)])
    assert pace.put_before([]) == Mark(0.0, 0, 0, 0)
    assert pace.marks == [Mark(5.0, 1, 0, 0), Mark(7.0, 3, 2, 1)]


def test_who_kept_a_copy_learns_that_marks_went():
    """Thinning and the past change marks that were sent already: both are counted."""
    pace = pace_of([Mark(float(second), second, second, 0) for second in range(MARKS)])
    assert (pace.thinned, pace.step_s) == (0, 1.0)
    pace.add(Mark(float(MARKS), 0, 0, 0))
    assert (pace.thinned, pace.step_s) == (1, 2.0)
    pace.put_before([])
    assert pace.thinned == 2
