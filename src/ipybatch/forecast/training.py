"""Training: what `forecast` and `evaluate` do alike between a table and its partitions' processes.

    table --prepare--> partitions, settings --`Borrowing`, runner_of--> processes, in each of them `run_partition`

`evaluate` prepares the table as it was known at each origin, so that what it measures is what `forecast` would have
delivered there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import pandas as pd

from ipybatch.backends.dask import Dask
from ipybatch.backends.process.backend import Processes
from ipybatch.backends.process.protocol import Lost
from ipybatch.engine.data.policy import check_count
from ipybatch.engine.data.spec import Backend
from ipybatch.forecast import worker
from ipybatch.forecast.data.known import read_known
from ipybatch.forecast.data.partitions import Cut, Partition, partition
from ipybatch.forecast.data.stored_partitions import partition_stored
from ipybatch.forecast.data.summaries import SplitTable
from ipybatch.forecast.data.table import Table, settings_of
from ipybatch.forecast.models.global_model import SMALL, Prior
from ipybatch.forecast.models.matrix import series_of
from ipybatch.forecast.models.model_registry import preload
from ipybatch.forecast.models.prior import LEARNER, fit_trials, fit_whole, sample_of
from ipybatch.forecast.settings import Settings
from ipybatch.forecast.storage import Storage, probe


class Prepared(NamedTuple):
    """A table that is ready to be trained.

    Attributes:
        cut: Its partitions, and the notes on them.
        settings: The same for every partition.
    """

    cut: Cut
    settings: Settings


def prepare(
    table: Table,
    *,
    horizon: int,
    by: Any,
    max_rows: int,
    max_partitions: int,
    split_series: bool,
    sites: Collection[Any] | None,
    parts: Collection[Any] | None,
    models: Iterable[Any] | None,
    known: Any = None,
    **settings: Any,
) -> Prepared:
    """Return a table's partitions and the settings of their training; the arguments are those of `forecast`.

    Args:
        known: What is known ahead, as the user hands it over.
        settings: Fields of `Settings`: level, integer, select.

    Raises:
        InputError: An argument is invalid, a row that cannot be used belongs in no partition, or ``known`` is not
            what the forecast needs.
        MissingExtra: A package that reads ``known`` is not installed.
    """
    given = {"by": by, "max_rows": max_rows, "max_partitions": max_partitions, "sites": sites, "parts": parts}
    if isinstance(table, SplitTable):
        cut = partition_stored(table, **given, split_series=split_series)
    else:
        cut = partition(table, **given, split_series=split_series)
    made = settings_of(table, horizon, models=models, **settings)
    if known is None:
        return Prepared(cut, made)
    keys = pd.concat([part.keys() for part in cut.partitions])
    periods = series_of(table.frame.head(1), table.freq, start=made.start, end=made.end)
    ahead = read_known(known, table, keys, periods.dates, periods.ahead(horizon))
    notes = [*cut.notes, *ahead.notes]
    return Prepared(cut._replace(notes=notes), msgspec.structs.replace(made, known=ahead.frame))


class Borrowing:
    """What a table's partitions borrow from it: trained once, when the first of them asks, in processes of its own.

    All borrow what their trials need, which saw only what was known then; small ones also what forecasts. Where one of
    the two fails, partitions learn that from their own rows alone.

    Args:
        partitions: All of the table.
        settings: The same for every partition.
        backend: Where it is trained.
        tell: Called with a line of text where it failed.
    """

    def __init__(
        self, partitions: Sequence[Partition], settings: Settings, backend: Backend, tell: Callable[[str], None]
    ) -> None:
        self._partitions, self._settings, self._backend, self._tell = partitions, settings, backend, tell
        self._begun: dict[Callable[..., Any], asyncio.Task[Any]] = {}
        self._told: set[str] = set()
        self._drawn: tuple[Storage, str] | None = None

    async def settings_for(self, part: Partition) -> Settings:
        """Return the settings of one partition: with what it borrows, if others are there."""
        if len(self._partitions) < 2 or LEARNER not in self._settings.models:
            return self._settings
        if part.series >= SMALL:
            lent = await self._trained(fit_trials)
            prior = lent and Prior(lent.regressors)  # it finds its own model to begin with
        else:
            both = await asyncio.gather(self._trained(fit_trials), self._trained(fit_whole))
            known = [lent for lent in both if lent is not None]
            regressors = {periods: fitted for lent in known for periods, fitted in lent.regressors.items()}
            prior = Prior(regressors, known[0].default) if known else None
        return msgspec.structs.replace(self._settings, prior=prior)

    async def close(self) -> None:
        """End what is still being trained."""
        begun, self._begun = [*self._begun.values()], {}
        for task in begun:
            task.cancel()
        if begun:
            await asyncio.wait(begun)
        if self._drawn is not None:
            storage, name = self._drawn
            await asyncio.to_thread(storage.delete, [name])

    async def _trained(self, work: Callable[..., Any]) -> Prior | None:
        """Return what ``work`` learnt from the table's sample; None where it failed, or there was too little."""
        if work not in self._begun:
            self._begun[work] = asyncio.create_task(self._train(work))
        lent: Prior | None = await asyncio.shield(self._begun[work])  # cancelled with the last, not with the first
        return lent

    async def _train(self, work: Callable[..., Any]) -> Any:
        if _sample not in self._begun:
            self._begun[_sample] = asyncio.create_task(self._sample())
        try:
            call, arguments = await self._begun[_sample]
            return await self._run(call or work, (*([work] if call else ()), *arguments, self._settings))
        except Exception as error:  # whatever it is, no partition needs it
            text = f"partitions learn from their own rows alone: {error}"
            if text not in self._told:  # once, not for each of the two
                self._told.add(text)
                self._tell(text)
            return None

    async def _sample(self) -> tuple[Callable[..., Any] | None, tuple[Any, ...]]:
        """Return the sample, and by what a worker learns from it where it lies in a storage."""
        stored = [one.stored for one in self._partitions if one.stored is not None]
        if not stored:
            return None, (await asyncio.to_thread(_sample, self._partitions, self._settings),)
        storage, name = stored[0].storage, f"{secrets.token_hex(8)}.sample.arrow"
        self._drawn = storage, name
        counts = [one.series for one in self._partitions]
        await self._run(worker.draw, (stored, counts, self._settings.seed, storage, name))
        return worker.learn, (storage, name)

    async def _run(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        while True:
            with suppress(Lost):  # by what ran beside it: it runs again, with a supervisor to itself
                return await self._backend.run(work, arguments)


def _sample(partitions: Sequence[Partition], settings: Settings) -> pd.DataFrame:
    return sample_of((one.frame for one in partitions), [one.series for one in partitions], seed=settings.seed)


async def check_shared(storage: Storage, backend: Backend) -> None:
    """See whether workers see a session's storage, before anything is trained.

    Raises:
        InputError: It cannot be written, or a worker sees another folder or none.
        MissingExtra: A worker lacks a package that reads it.
    """
    with probe(storage) as name:
        await backend.run(worker.look, (storage, name))


def runner_of(
    backend: Backend | None,
    workers: int | None,
    *,
    memory_mb: float | None,
    timeout_s: float | None,
    models: Iterable[Any],
) -> Backend:
    """Return the backend that trains: the user's or processes, with the limits and modules that it has not itself.

    Raises:
        InputError: A limit is out of range.
    """
    workers = None if workers is None else check_count("workers", workers, low=1)
    runner = backend or Processes(workers)
    if isinstance(runner, Processes | Dask):
        return runner.within(memory_mb=memory_mb, timeout_s=timeout_s, preload=preload(models))
    return runner
