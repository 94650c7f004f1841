"""Origins: a table as it was known on days of its past, and its partitions there.

|<------------- known at the origin ------------->|<- horizon ->|
start                                            day           end
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import msgspec
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.data.partitions import Partition
from ipybatch.forecast.data.table import Table
from ipybatch.forecast.models.matrix import periods_of
from ipybatch.forecast.scoring import Later
from ipybatch.forecast.settings import Settings
from ipybatch.forecast.training import Prepared

_KEYS = ["site", "part"]


class AtOrigin(Partition, frozen=True, dict=True):
    """A partition of the table as it was known at an origin.

    Attributes:
        origin: The last day known.
    """

    origin: str = ""

    @property
    def frame(self) -> pd.DataFrame:
        """Its rows until the origin."""
        whole: Partition = self.__dict__["partition"]
        return whole.frame

    @property
    def partition(self) -> str:
        """The partition's own name, which it has at other origins too."""
        whole: Partition = self.__dict__["partition"]
        return whole.name

    @property
    def later(self) -> Later:
        """What came after the origin."""
        later: Later = self.__dict__["later"]
        return later

    @property
    def settings(self) -> Settings:
        """Of the forecast at the origin."""
        settings: Settings = self.__dict__["settings"]
        return settings


def origins_of(table: Table, horizon: int, count: int) -> list[tuple[pd.Timestamp, pd.Timestamp]]:
    """Return the last day known at each origin, and the last day that is forecast there.

    Raises:
        InputError: The table has too few periods.
    """
    periods = periods_of(table.start, table.end, table.freq)
    length = len(periods)
    cuts = [length - horizon * number for number in range(count, -1, -1)]
    if cuts[0] < 2:
        msg = (
            f"horizon times origins must be at most {length - 2} of the table's {length} periods,"
            f" got {horizon} x {count}: ask for fewer"
        )
        raise InputError(msg)
    days = [periods[cut - 1] + pd.offsets.MonthEnd(0) if table.freq == "M" else periods[cut - 1] for cut in cuts]
    return list(pairwise(days))


def until(table: Table, day: pd.Timestamp) -> Table:
    """Return a table as it was known at the end of a day."""
    frame = table.frame[table.frame["date"] <= day].reset_index(drop=True)
    return replace(table, frame=frame, rows=len(frame), end=day)


def names_there(names: pd.Series[Any], wanted: Any) -> Any:
    """Return those of the names asked for that are there already; all where none is, so that they are refused."""
    if wanted is None:
        return None
    asked = [str(name) for name in ([wanted] if isinstance(wanted, str | int) else wanted)]
    there = set(map(str, names.unique()))
    return [name for name in asked if name in there] or asked


def at_origin(prepared: Prepared, table: Table, day: pd.Timestamp, end: pd.Timestamp) -> list[AtOrigin]:
    """Return a table's partitions at an origin.

    Args:
        prepared: The table as it was known there.
        table: The whole table.
        day: The last day known.
        end: The last day that is forecast.
    """
    rows = table.frame.loc[(table.frame["date"] > day) & (table.frame["date"] <= end), [*_KEYS, "date", "quantity"]]
    partitions = prepared.cut.partitions
    keys = pd.concat([one.frame[_KEYS].drop_duplicates() for one in partitions], ignore_index=True)
    spread = keys[keys.duplicated(keep=False)].drop_duplicates()
    made = []
    for one in partitions:
        origin = f"{day:%Y-%m-%d}"
        fields = {field: getattr(one, field) for field in one.__struct_fields__}
        item = AtOrigin(**{**fields, "name": f"{one.name}, {origin}", "origin": origin})
        later = Later(rows[rows["site"].isin(one.sites)], f"{end:%Y-%m-%d}", spread if len(spread) else None)
        item.__dict__.update(partition=one, later=later, settings=prepared.settings)
        made.append(item)
    return made


def numbered(items: Iterable[AtOrigin]) -> list[AtOrigin]:
    """Return partitions of all origins with numbers of their own, the largest first: they take longest."""
    made = []
    for number, one in enumerate(sorted(items, key=lambda one: -one.rows), start=1):
        made.append(msgspec.structs.replace(one, number=number))
        made[-1].__dict__.update(one.__dict__)
    return made
