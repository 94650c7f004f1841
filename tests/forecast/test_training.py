"""What small partitions borrow: trained once, beside the large ones, and needed by none."""

import asyncio

import pandas as pd
import pytest

from ipybatch.backends.process.protocol import Lost
from ipybatch.errors import Permanent
from ipybatch.forecast import training
from ipybatch.forecast.data.partitions import partition
from ipybatch.forecast.data.table import read_table, settings_of
from ipybatch.forecast.models import prior
from ipybatch.forecast.models.global_model import Prior
from ipybatch.forecast.settings import Settings
from ipybatch.forecast.training import Borrowing
from tests.forecast.retail import matrix, table

ANSWERS = {training.fit_trials: Prior({40: b"trials"}, "imapa"), training.fit_whole: Prior({70: b"whole"})}


class Backend:
    """Answers to each work what it is told, or raises it; remembers what it ran."""

    def __init__(self, answers=ANSWERS):
        self.answers, self.ran = answers, []

    async def run(self, work, arguments):
        self.ran.append(work)
        await asyncio.sleep(0)
        answer = self.answers[work]
        if isinstance(answer, BaseException):
            raise answer
        return answer


def settings_for_all(backend, *, sites=3, told=None, **given):
    read = read_table(pd.concat([table(matrix(9, seed=number) + 1, f"s{number}") for number in range(sites)]), freq="D")
    parts = partition(read).partitions

    async def ask():
        borrowing = Borrowing(parts, settings_of(read, 7, **given), backend, ([] if told is None else told).append)
        found = await asyncio.gather(*(borrowing.settings_for(part) for part in parts))
        await borrowing.close()
        return found

    return asyncio.run(ask())


def test_small_partitions_borrow_what_is_trained_once():
    backend = Backend()
    lent = [found.prior for found in settings_for_all(backend)]
    assert [(one.regressors, one.default) for one in lent] == [({40: b"trials", 70: b"whole"}, "imapa")] * 3
    assert sorted(backend.ran, key=str) == [training.fit_trials, training.fit_whole]


def test_large_partitions_borrow_what_their_trials_need_and_find_their_default(monkeypatch):
    """A trial by what the table taught needs no fit of its own; the forecast is by the partition's own rows."""
    monkeypatch.setattr(training, "SMALL", 9)
    backend = Backend()
    lent = [found.prior for found in settings_for_all(backend)]
    assert [(one.regressors, one.default) for one in lent] == [({40: b"trials"}, None)] * 3
    assert backend.ran == [training.fit_trials]


@pytest.mark.parametrize("given", [{"sites": 1}, {"models": ["imapa"]}])
def test_nothing_is_borrowed_where_there_is_nobody_to_borrow_from_or_nothing_to_learn(given):
    backend = Backend()
    assert {found.prior for found in settings_for_all(backend, **given)} == {None}
    assert backend.ran == []


@pytest.mark.parametrize("failure", [Permanent("timeout: Exceeded 3s"), ValueError("no"), MemoryError()])
def test_what_cannot_be_trained_fails_no_partition_and_is_told_once(failure):
    told = []
    assert {found.prior for found in settings_for_all(Backend(dict.fromkeys(ANSWERS, failure)), told=told)} == {None}
    assert told == [f"partitions learn from their own rows alone: {failure}"]


def test_where_one_of_the_two_fails_the_other_is_borrowed():
    told = []
    backend = Backend({**ANSWERS, training.fit_trials: ValueError("no")})
    lent = [found.prior for found in settings_for_all(backend, told=told)]
    assert [(one.regressors, one.default) for one in lent] == [({70: b"whole"}, None)] * 3
    assert told == ["partitions learn from their own rows alone: no"]


def test_what_ended_with_a_supervisor_is_trained_again():
    """Else partitions would be forecast worse for what ran beside it."""

    class Loses(Backend):
        async def run(self, work, arguments):
            answer = await super().run(work, arguments)
            if len(self.ran) < 4:
                raise Lost("killed")
            return answer

    told = []
    assert {found.prior.default for found in settings_for_all(Loses(), told=told)} == {"imapa"}
    assert told == []


def test_partitions_of_many_sites_with_the_same_parts_are_sampled_by_their_series(monkeypatch):
    """What counts is how many series there are, not how many parts they are of."""
    monkeypatch.setattr(prior, "_MOST", 60)
    sites = pd.concat([table(matrix(20, seed=number) + 1, f"s{number}") for number in range(20)])
    parts = partition(read_table(sites.assign(region=sites["site"].str[-1] < "5"), freq="D"), by="region").partitions
    sampled = []

    class Looks(Backend):
        async def run(self, work, arguments):
            sampled.append(arguments[0])
            return await super().run(work, arguments)

    async def ask():
        borrowing = Borrowing(parts, Settings(horizon=7), Looks(), print)
        await asyncio.gather(*(borrowing.settings_for(part) for part in parts))
        await borrowing.close()

    asyncio.run(ask())
    assert [one.series for one in parts] == [200, 200]
    assert all(25 <= frame.groupby(["site", "part"]).ngroups <= 110 for frame in sampled)


def test_partitions_that_are_cancelled_while_they_wait_leave_the_others_what_is_trained():
    """And when the last of them has gone, what is still trained ends with the session."""
    parts = partition(read_table(pd.concat([table(matrix(9) + 1, f"s{number}") for number in range(3)]))).partitions
    ended = []

    class Waits(Backend):
        async def run(self, work, arguments):
            begun.set()
            try:
                await go.wait()
            except asyncio.CancelledError:
                ended.append(work)
                raise
            return await super().run(work, arguments)

    async def ask(*, is_over):
        borrowing = Borrowing(parts, Settings(horizon=7), Waits(), ended.append)
        first, *others = [asyncio.create_task(borrowing.settings_for(part)) for part in parts]
        await asyncio.wait_for(begun.wait(), 60)
        first.cancel()
        await asyncio.wait([first])
        if is_over:
            for other in others:
                other.cancel()
            await asyncio.wait(others)
        else:
            go.set()
            assert {found.prior.default for found in await asyncio.gather(*others)} == {"imapa"}
        await borrowing.close()

    for is_over, left in ((False, 0), (True, 2)):
        go, begun = asyncio.Event(), asyncio.Event()
        asyncio.run(ask(is_over=is_over))
        assert len(ended) == left
