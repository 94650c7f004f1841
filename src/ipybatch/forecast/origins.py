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
from ipybatch.forecast.data.partitions import Partition, as_names
from ipybatch.forecast.data.repairs import as_on
from ipybatch.forecast.data.table import Table
from ipybatch.forecast.models.matrix import periods_of
from ipybatch.forecast.scoring import Later
from ipybatch.forecast.settings import Settings
from ipybatch.forecast.training import Prepared

_KEYS = ["site", "part"]
_TOLD = 5


class AtOrigin(Partition, frozen=True, dict=True):
    """A partition of the table as it was known at an origin.

    Attributes:
        origin: The last day known.
    """

    origin: str = ""

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
    """Return a table as it was known at the end of a day: what was returned later was still sold."""
    frame = table.frame
    if table.returned is not None:
        frame = frame.assign(quantity=as_on(frame["quantity"].to_numpy(), table.returned, day))
    frame = frame[frame["date"] <= day].reset_index(drop=True)
    return replace(table, frame=frame, rows=len(frame), end=day, returned=None)


def names_there(ours: str, table: Table, wanted: Any) -> Any:
    """Return those of the names asked for that are there already.

    Args:
        ours: "site" or "part".
        table: The demand as it was known at an origin.
        wanted: What the user asks for; None for all.

    Raises:
        InputError: None is.
    """
    if wanted is None:
        return None
    asked = as_names(wanted)
    there = set(map(str, table.frame[ours].unique()))
    found = [name for name in asked if name in there]
    if not found:
        shown = ", ".join(asked[:_TOLD]) + (", ..." if len(asked) > _TOLD else "")
        msg = (
            f"{ours}s must have demand by each origin, got {shown}, of which none had any by {table.end:%Y-%m-%d}:"
            f" ask for fewer origins or a shorter horizon, or for more {ours}s"
        )
        raise InputError(msg)
    return found


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
        item.__dict__.update(one.__dict__, partition=one, later=later, settings=prepared.settings)
        made.append(item)
    return made


def numbered(items: Iterable[AtOrigin]) -> list[AtOrigin]:
    """Return partitions of all origins with numbers of their own, the largest first: they take longest."""
    made = []
    for number, one in enumerate(sorted(items, key=lambda one: -one.rows), start=1):
        made.append(msgspec.structs.replace(one, number=number))
        made[-1].__dict__.update(one.__dict__)
    return made
