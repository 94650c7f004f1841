"""What small partitions borrow: trained once, beside the large ones, and needed by none."""

import asyncio

import pandas as pd
import pytest

from ipybatch.backends.process.protocol import Lost
from ipybatch.errors import Permanent
from ipybatch.forecast import training
from ipybatch.forecast.data.partitions import partition
from ipybatch.forecast.data.table import read_table, settings_of
from ipybatch.forecast.models.global_model import Prior
from ipybatch.forecast.training import Borrowing
from tests.forecast.retail import matrix, table

LENT = Prior({}, "imapa")


class Backend:
    """Answers what it is told, or raises it; remembers what it ran."""

    def __init__(self, answer=LENT):
        self.answer, self.ran = answer, []

    async def run(self, work, arguments):
        self.ran.append(work)
        await asyncio.sleep(0)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


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
    assert [found.prior for found in settings_for_all(backend)] == [LENT] * 3
    assert backend.ran == [training.fit_prior]


@pytest.mark.parametrize("given", [{"sites": 1}, {"models": ["imapa"]}])
def test_nothing_is_borrowed_where_there_is_nobody_to_borrow_from_or_nothing_to_learn(given):
    backend = Backend()
    assert {found.prior for found in settings_for_all(backend, **given)} == {None}
    assert backend.ran == []


def test_large_partitions_borrow_nothing(monkeypatch):
    monkeypatch.setattr(training, "SMALL", 9)
    backend = Backend()
    assert {found.prior for found in settings_for_all(backend)} == {None}
    assert backend.ran == []


@pytest.mark.parametrize("failure", [Permanent("timeout: Exceeded 3s"), ValueError("no"), MemoryError()])
def test_what_cannot_be_trained_fails_no_partition_and_is_told(failure):
    told = []
    assert {found.prior for found in settings_for_all(Backend(failure), told=told)} == {None}
    assert told == [f"small partitions learn from their own rows alone: {failure}"]


def test_what_ended_with_a_supervisor_is_trained_again():
    """Else partitions would be forecast worse for what ran beside it."""

    class Loses(Backend):
        async def run(self, work, arguments):
            answer = await super().run(work, arguments)
            if len(self.ran) < 3:
                raise Lost("killed")
            return answer

    told = []
    assert {found.prior for found in settings_for_all(Loses(), told=told)} == {LENT}
    assert told == []
