import pytest

pytest.importorskip("google.genai")

from ipybatch.engine.data.events import GroupEnded, GroupStarted
from ipybatch.engine.data.outcome import Outcome
from ipybatch.engine.run.permits import Attempt
from ipybatch.gemini.prompt_groups import GROUP, PromptGroups

from .conftest import names


class Row:
    """Groups over some items, the events they tell, and the group that each item joined."""

    def __init__(self, items, clock, before=0):
        self.told, self.joined = [], {}
        self.groups = PromptGroups(items, before, self.told.append, clock)

    def start(self, key):
        attempt = Attempt(f'"{key}"', 1, None, None, lambda group: self.joined.__setitem__(key, group))
        self.groups.join(attempt)

    def end(self, *keys, status="completed"):
        self.groups.recorded(
            [Outcome(key=key, status=status, result=None, error="", attempts=1, seconds=0.1) for key in keys]
        )

    @property
    def started(self):
        return [(event.group, event.items) for event in self.told if isinstance(event, GroupStarted)]

    @property
    def ended(self):
        return [(event.group, event.status) for event in self.told if isinstance(event, GroupEnded)]


def test_fifty_to_a_group_in_the_order_of_their_starts(clock):
    row = Row(120, clock)
    for key in range(120):
        row.start(f"p{key}")
    assert row.started == [(1, 50), (2, 50), (3, 20)]
    assert [list(row.joined.values()).count(number) for number in (1, 2, 3)] == [50, 50, 20]


def test_an_item_that_is_tried_again_stays_in_its_group(clock):
    row = Row(GROUP + 1, clock)
    for key in [*range(GROUP), 0, 1, GROUP]:
        row.start(f"p{key}")
    assert row.started == [(1, GROUP), (2, 1)]
    assert row.joined["p0"] == 1


def test_a_group_ends_with_its_last_item(clock):
    row = Row(2, clock)
    row.start("a")
    row.start("b")
    row.end("a")
    assert row.ended == []
    row.end("b", "somebody elses")
    assert row.ended == [(1, "completed")]


@pytest.mark.parametrize("items", [2, GROUP])
def test_a_group_has_failed_when_all_of_it_has(clock, items):
    """Also one of fewer than fifty."""
    keys = [f"p{number}" for number in range(items)]
    row = Row(items, clock)
    for key in keys:
        row.start(key)
    row.end(*keys, status="failed")
    assert row.ended == [(1, "failed")]


def test_a_group_with_one_answer_has_not_failed(clock):
    row = Row(2, clock)
    row.start("a")
    row.start("b")
    row.end("a", status="failed")
    row.end("b")
    assert row.ended == [(1, "completed")]


def test_numbers_go_on_where_the_start_before_ended(clock):
    row = Row(3, clock, before=2)
    row.start("a")
    assert row.started == [(3, 3)]


def test_a_session_that_goes_on_counts_on(desk):
    """What was left runs in a group of its own, of the size of what was left."""
    session = desk.run(names(70), output_tokens=60, budget_usd=0.004)
    left = session.counts.skipped
    assert 0 < left < 70
    more = desk.run(names(70), output_tokens=60, budget_usd=1)
    assert more.counts.completed == 70
    assert sum(group.items for group in more.snapshot.groups.values()) == left
