"""The drawing of the timeline."""

import re

from hypothesis import given
from hypothesis import strategies as st

from ipybatch.engine.data import events
from ipybatch.engine.data.events import Mark
from ipybatch.engine.feed.snapshot import Group
from ipybatch.jupyter import timeline

marks = st.lists(st.tuples(st.floats(0.0, 5000.0), st.integers(0, 500), st.integers(0, 50)), max_size=30)
groups = st.lists(st.tuples(st.floats(0.0, 5000.0), st.floats(0.0, 5000.0), st.booleans()), max_size=40)


@given(steps=marks, spans=groups, allowed_per_s=st.none() | st.floats(0.0001, 1e6))
def test_the_drawing_stays_in_its_frame(steps, spans, allowed_per_s):
    """Whatever the times are: all numbers are finite, and nothing is drawn beside the frame."""
    made, at_s, started, failed = [], 1.7e9, 0, 0
    for seconds, attempts, bad in steps:
        at_s, started, failed = at_s + seconds, started + attempts, failed + bad
        made.append(Mark(at_s, started, started, failed))
    bars = [
        Group(number=n, name="", status="completed" if done else "running", items=1, started_s=1.7e9 + begun_s)
        for n, (begun_s, _, done) in enumerate(spans)
    ]
    for bar, (begun_s, seconds, done) in zip(bars, spans, strict=True):
        bar.ended_s = 1.7e9 + begun_s + seconds if done else 0.0
    moves = [events.BreakerMoved(1.7e9 + 5.0, "open", 3, 1, 9.0)]
    drawing = timeline.svg(made, bars, moves, allowed_per_s)
    assert bool(drawing) == (len(made) >= 2)
    height = float(re.search(r'viewBox="0 0 900 (\d+)"', drawing)[1]) if drawing else 0.0
    for x, y, width in re.findall(r'<rect class="\w+" x="([^"]*)" y="([^"]*)" width="([^"]*)"', drawing):
        assert 0 <= float(x) <= float(x) + float(width) <= 901
        assert 0 <= float(y) < height
    for path in re.findall(r' d="([^"]*)"', drawing):
        assert all(0 <= float(number) <= 900 for number in re.findall(r"[^MLHVZ ]+", path))


def test_a_hundred_thousand_groups_are_a_small_drawing():
    """Bars that share a pixel are drawn once."""
    many = [
        Group(number=n, name="", status="completed", items=1, started_s=1e9 + n, ended_s=1e9 + n + 40)
        for n in range(100_000)
    ]
    drawing = timeline.svg([Mark(1e9, 0, 0, 0), Mark(1e9 + 100_040, 100_000, 100_000, 0)], many, [], None)
    assert len(drawing) < 3_000_000
