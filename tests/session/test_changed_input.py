"""An input or a setting changed: what is on record answers another question, and nothing shows it as an answer."""

import asyncio

import pytest

import ipybatch
from ipybatch import BatchSession, InputError, Limits
from ipybatch.engine.data.outcome import decode


def work_of(version):
    async def work(item):
        await asyncio.sleep(1)
        return {"version": version}

    return work


def counted(session):
    """Return the statuses by the counts, by `results`, and by what `save` writes; and which answers are shown."""
    counts = {
        word: getattr(session.counts, word) for word in ("completed", "failed", "cancelled", "pending", "skipped")
    }
    frame = session.results()
    path = session.save(session.journal.with_name("out.jsonl"))
    lines = [decode(line) for line in path.read_bytes().splitlines()]
    versions = [line["version"] for line in lines if "version" in line]
    assert versions == (frame["version"].dropna().tolist() if "version" in frame else [])
    for statuses in (frame["status"].tolist(), [line["status"] for line in lines]):
        assert {word: statuses.count(word) for word in counts} == counts
    return counts, versions


@pytest.fixture(params=["input", "settings"])
def make(request, plan):
    def make(version, *, as_generator=False):
        items = [{"id": number, "version": version if request.param == "input" else 0} for number in range(10)]
        settings = {"version": version} if request.param == "settings" else None
        items = iter(items) if as_generator else items
        return plan(work_of(version), items, settings=settings, limits=Limits(1, batch_size=3))

    return make


async def cancel(session, after_s):
    await asyncio.sleep(after_s)
    session._run.stop("cancelled", "", "cancelled")


def test_no_old_answer_is_shown_before_the_new_start_or_after_a_cancel(make, clock, journal):
    """Rows, file and counts agree at every point; the old answers count again when the old question is asked."""
    clock.run(make(1))
    new = make(2)
    counts, versions = counted(new)
    assert (counts["pending"], versions) == (10, [])
    assert [new.items_of(group)[0] for group in range(1, 5)] == [0, 0, 0, 0]
    clock.run(new, cancel(new, 4.5))
    counts, versions = counted(new)
    assert (counts["completed"], counts["cancelled"], versions) == (4, 6, [2] * 4)
    assert ipybatch.history(journal)["completed"].tolist() == [4]
    reopened = BatchSession.open("wishlist", journal=journal)
    assert counted(reopened) == (counts, versions)
    assert sum(reopened.items_of(group)[0] for group in range(1, 9)) == 5  # one was cancelled in the midst


@pytest.mark.parametrize("is_reopened", [False, True])
def test_no_old_answer_of_a_generator_s_item_is_shown_once_it_was_drawn(make, clock, journal, is_reopened, request):
    """Of what has not been drawn only other settings are known to have changed; what is known stays so."""
    clock.run(make(1, as_generator=True))
    new = make(2, as_generator=True)
    clock.run(new, cancel(new, 4.5))
    undrawn = 0 if "settings" in request.node.name else 10 - new._items._drawing.drawn
    for _ in range(2):
        session = BatchSession.open("wishlist", journal=journal) if is_reopened else new
        rows = session.results()
        completed = rows[rows["status"] == "completed"]["version"].tolist()
        assert completed == [2] * 4 + [1] * undrawn
        assert session.counts.completed == len(completed)
        new = make(2, as_generator=True)
        clock.run(new, cancel(new, 0))
    clock.run(new)
    assert new.results()["version"].tolist() == [2] * 10
    assert new.counts.completed == 10


def test_old_answers_of_a_generator_count_again_when_the_old_question_is_asked(make, clock, journal):
    clock.run(make(1, as_generator=True))
    new = make(2, as_generator=True)
    clock.run(new, cancel(new, 0.5))
    old = make(1, as_generator=True)
    clock.run(old)
    assert old.results()["version"].tolist() == [1] * 10
    assert (old.counts.completed, old.counts.total) == (10, 10)
    assert ipybatch.history(journal)["completed"].tolist() == [10]


@pytest.mark.parametrize("is_first_generator", [False, True])
def test_a_list_and_a_generator_know_alike_what_is_outdated(make, clock, journal, is_first_generator):
    clock.run(make(1, as_generator=True))
    new = make(2, as_generator=is_first_generator)
    clock.run(new, cancel(new, 4.5))
    known = new.counts.completed
    again = make(2, as_generator=not is_first_generator)
    clock.run(again, cancel(again, 0))
    rows = again.results()
    assert rows[rows["status"] == "completed"]["version"].tolist()[:4] == [2] * 4
    assert again.counts.completed == (rows["status"] == "completed").sum() <= known


def failing(number):
    yield from range(number)
    msg = "page 6 is missing"
    raise ValueError(msg)


def test_a_generator_that_raised_is_not_completed_by_a_later_start(plan, clock):
    """The session fails with that reason, and fails again till it is made anew with its items."""
    session = plan(work_of(1), failing(5))
    assert clock.run(session).state == "failed"
    assert session.reason == "the items could not be drawn: ValueError: page 6 is missing"
    for _ in range(2):
        clock.run(session)
        assert session.state == "failed"
        assert "ValueError: page 6 is missing, at an earlier start" in session.reason
        assert "which gives them once: make the session anew with a new one" in session.reason
        assert session.counts.total is None
    assert clock.run(plan(work_of(1), failing(5))).state == "failed"
    assert clock.run(plan(work_of(1), iter(range(6)))).counts.completed == 6


@pytest.mark.parametrize("spent", ["raised", "ended"])
def test_a_generator_that_is_exhausted_does_not_hide_what_is_recorded(plan, clock, journal, spent):
    """The cell that made the session ran again, not the one that made its items."""
    items = failing(5) if spent == "raised" else iter(range(5))
    clock.run(plan(work_of(1), items))
    if spent == "raised":
        with pytest.raises(InputError, match="a generator that is exhausted: make it anew"):
            plan(work_of(1), items)
    session = plan(work_of(1), map(str, items))
    for _ in range(2):
        clock.run(session)
        assert session.state == "failed"
        assert "a generator that is exhausted: make it anew" in session.reason
        assert session.counts.completed == len(session.results()) == 5
    assert ipybatch.history(journal)["completed"].tolist() == [5]


def test_a_generator_that_gives_nothing_is_completed_where_nothing_is_recorded(plan, clock):
    session = plan(work_of(1), iter(()))
    assert (clock.run(session).state, session.counts.total) == ("completed", 0)
