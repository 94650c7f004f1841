"""Counts, rows and history agree after every start, whoever had the session meanwhile, and nothing is asked twice."""

import asyncio
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ipybatch
from ipybatch import BatchSession, InputError, Limits, Retry, Transient
from ipybatch.engine.data.plan import NOTHING_AGAIN, Again
from ipybatch.testing import VirtualClock

WORDS = ("completed", "failed", "timeout")
KEYS = range(10)


class Service:
    """Answers an item's version; some items fail, and a start is stopped after some."""

    def __init__(self, journal, kind):
        self.clock, self.journal, self.kind = VirtualClock(), journal, kind
        self.versions = dict.fromkeys(KEYS, 0)
        self.bad, self.answered, self.twice = frozenset(), {}, []
        self.stop, self.session = None, None

    def make(self, order):
        items = [{"id": key, "version": self.versions[key]} for key in order]
        session = BatchSession(
            "s",
            self.work,
            items if self.kind == "list" else iter(items),
            journal=self.journal,
            clock=self.clock,
            limits=Limits(2),
            retry=Retry(attempts=1),
            breaker=None,
        )
        session.on_outcomes(self.told)
        return session

    def told(self, outcomes):
        for outcome in outcomes:
            if outcome.status == "completed":
                self.answered[outcome.key] = outcome.result["version"]
            else:  # its row takes the place of an answer to another input
                self.answered.pop(outcome.key, None)

    async def work(self, item):
        key, version = item["id"], item["version"]
        if self.answered.get(key) == version:
            self.twice.append(key)
        await asyncio.sleep(1 + key / 100)
        self.left -= 1
        if not self.left and self.stop is not None:
            asyncio.get_running_loop().call_soon(self.session._run.stop, *self.stop)
        if key in self.bad:
            raise Transient if key % 2 else ValueError
        return {"version": version}

    def run(self, session, how, after, bad):
        self.session, self.left, self.bad = session, after, bad
        self.stop = {"cancel": ("cancelled", "", "cancelled"), "fail": ("failed", "enough", "skipped")}.get(how)
        again = Again(frozenset({"failed", "timeout", "cancelled"})) if how == "retry_failed" else NOTHING_AGAIN

        async def drive():
            session._open_run(again)
            await session._drive()

        self.clock.run_coroutine(drive())


STARTS = st.lists(
    st.tuples(
        st.sampled_from(["new", "same", "same", "other"]),
        st.sampled_from(["complete", "cancel", "fail", "retry_failed"]),
        st.integers(1, 6),  # stopped after so many
        st.frozensets(st.sampled_from(KEYS), max_size=4),  # which fail
        st.sampled_from(["", "", "", "changed", "reversed", "fewer", "forgotten"]),  # before it
    ),
    min_size=2,
    max_size=6,
)


def check(session, journal):
    counts = {word: getattr(session.counts, word) for word in WORDS}
    for whose in (session, BatchSession.open("s", journal=journal)):
        statuses = Counter(whose.results()["status"])
        assert {word: statuses[word] for word in WORDS} == counts
    row = ipybatch.history(journal).iloc[-1]
    assert {word: int(row[word]) for word in WORDS} == counts
    assert session.counts.pending == session.counts.running == 0
    if session.state == "completed":
        assert session.counts.total == session.counts.ended


@pytest.mark.parametrize("kind", ["list", "generator"])
@settings(max_examples=settings().max_examples // 3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(starts=STARTS)
def test_counts_are_those_of_the_rows_whoever_had_the_session(kind, tmp_path_factory, patience, starts):
    """A list or a generator; the same object, a new one, or one of before; inputs, order and number may change."""
    journal = tmp_path_factory.mktemp("counts") / "journal.db"
    service = Service(journal, kind)
    sessions = [service.make(KEYS)]
    for who, how, after, bad, before in starts:
        order = list(KEYS)
        if before == "changed":
            service.versions = {key: version + key % 2 for key, version in service.versions.items()}
        elif before == "reversed":
            order.reverse()
        elif before == "fewer":
            order = order[2:7]
        elif before == "forgotten":
            service.make(order).forget()
            service.answered.clear()
        if who == "new":
            sessions.append(service.make(order))
        elif who == "other":
            sessions.insert(0, sessions.pop())
        session = sessions[-1]
        try:
            service.run(session, how, after, bad)
        except InputError:  # items of the generator that cannot be had again
            assert kind == "generator"
            sessions.append(service.make(order))
            continue
        check(session, journal)
        assert service.twice == []
