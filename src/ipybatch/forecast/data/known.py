"""Known: what is known ahead, such as prices and holidays, checked against the table before anything is trained.

Names, dates and numbers are read as the table's are, so that site 7 of a database is site "7" of a file. What the
forecast needs must be there: every period of the horizon, of every series. Of the past some may lack; that is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.data.columns import OURS, UnknownColumns, find_columns
from ipybatch.forecast.data.dates import Dates, read_dates
from ipybatch.forecast.data.names import read_names
from ipybatch.forecast.data.numbers import Evidence, Numbers, read_numbers
from ipybatch.forecast.data.reading import read
from ipybatch.forecast.data.table import Table
from ipybatch.forecast.data.understanding import Undecided

_TOLD = 3
_PERIODS = {"D": "day", "W": "week", "M": "month"}


class Known(NamedTuple):
    """What is known ahead, as the models take it.

    Attributes:
        frame: site and part, if the values differ by them, as the table names them; date, the period's; then numbers.
            One row per (site, part, date).
        notes: What the user should know of it.
    """

    frame: pd.DataFrame
    notes: list[str]


def read_known(known: Any, table: Table, keys: pd.DataFrame, past: pd.DatetimeIndex, ahead: pd.DatetimeIndex) -> Known:
    """Return what is known ahead, if it is all that the forecast needs.

    Args:
        known: Whatever `reading.read` reads: a date, perhaps a site and a part, and columns of numbers.
        table: The demand.
        keys: site and part of each series that is forecast.
        past: The dates of the table's periods.
        ahead: The dates of the periods that are forecast.

    Raises:
        InputError: It cannot be read, has no date or no numbers, names other sites, has a row twice, or lacks a date
            ahead.
        MissingExtra: A package that reads it is not installed.
    """
    try:
        raw = read(known)
        named = _columns(raw.frame, table)
        dated = _dates(raw.frame[named["date"]], table, ahead)
        evidence = Evidence(sep=raw.sep)
        others = raw.frame.drop(columns=list(named.values()))
        numbers: dict[Any, Numbers] = {
            name: read_numbers(others[name], str(name), evidence=evidence) for name in others.columns
        }
    except Undecided as error:  # whose answers are arguments that read the demand
        where = f" in {error.column!r}" if error.column else ""
        either = " or ".join(answer.reading for answer in error.answers)
        msg = (
            f"known must have numbers and dates that read in one way, got {error.example!r}{where}, which may be"
            f" {either}: hand over a frame of numbers and dates"
        )
        raise InputError(msg) from None
    except InputError as error:  # as of a demand table, but for its name
        words = str(error).replace("pandas.DataFrame(demand", "pandas.DataFrame(known")
        raise InputError(
            words if words.startswith("known ") else f"known: {words}".replace("known: demand ", "known ")
        ) from None
    dates = dated.days.to_numpy()
    frame = pd.DataFrame({"date": dates})
    rows = raw.frame.index.to_numpy() + raw.first
    _refuse_cells(raw.frame[named["date"]], np.isnat(dates), rows, "a date that can be read")
    for ours in ("site", "part"):
        if ours in named:
            frame[ours] = _keys(raw.frame[named[ours]], rows, table, ours)
    by = [ours for ours in ("site", "part") if ours in named]
    values, notes = _values(others, {name: column.values for name, column in numbers.items()}, rows)
    notes += [
        f"known: {note}" for note in (*raw.notes, *dated.notes, *(n for name in values for n in numbers[name].notes))
    ]
    frame = pd.concat([frame[[*by, "date"]], values.set_axis(frame.index)], axis=1)
    is_used = frame[by].notna().all(axis=1).to_numpy()
    frame, rows = frame[is_used], rows[is_used]
    _refuse_repeats(frame, by, rows)
    frame = frame.assign(date=_periods(frame["date"], table))
    if frame.duplicated([*by, "date"]).any():
        notes.append(f"known has several rows in a {_PERIODS[table.freq]}: their mean is taken")
        frame = frame.groupby([*by, "date"], as_index=False, sort=False, observed=True).mean()
    whole = frame[frame[list(values.columns)].notna().all(axis=1)]
    series = keys[by].drop_duplicates() if by else pd.DataFrame(index=[0])
    _check_ahead(whole, by, series, ahead)
    notes += _told_past(whole, by, series, past)
    return Known(frame.reset_index(drop=True), notes)


def _dates(column: pd.Series[Any], table: Table, ahead: pd.DatetimeIndex) -> Dates:
    """Return the dates of a column; of several readings the one that has more of the dates ahead than any other."""
    try:
        return read_dates(column, str(column.name), freq=table.freq)
    except Undecided as error:
        formats = [answer.value for answer in error.answers if answer.argument == "date_format"]
        read = {form: read_dates(column, str(column.name), date_format=form) for form in formats}
        hits = {form: int(ahead.isin(_periods(made.days, table)).sum()) for form, made in read.items()}
        first, second = (*sorted(hits, key=lambda form: -hits[form]), "", "")[:2]
        if not second or hits[first] == hits[second]:
            raise
        note = f"dates were read as {first!r}, of which more lie ahead than by {second!r}"
        return replace(read[first], notes=(note,))


def _columns(frame: pd.DataFrame, table: Table) -> dict[str, Any]:
    """Return the columns of date, site and part, by our name, the table's, or a common one with the table's names."""
    try:
        likely: Mapping[str, Any] = find_columns(list(frame.columns))
    except UnknownColumns as error:
        likely = error.found
    plain = {str(name).strip().casefold(): name for name in reversed(frame.columns)}
    found: dict[str, Any] = {}
    for ours in OURS[:3]:
        named = (plain.get(ours), plain.get(str(table.columns[ours]).strip().casefold()))
        name = next((name for name in named if name is not None), None)
        if name is None and likely.get(ours) is not None and (ours == "date" or _has_names(frame, likely, table, ours)):
            name = likely[ours]
        if name is not None:
            found[ours] = name
    if "date" not in found or len(frame.columns) == len(found):
        shown = ", ".join(repr(str(name)) for name in frame.columns[:12]) or "none"
        msg = f"known must have a 'date' column and at least one of numbers, got {shown}: rename the one of dates"
        raise InputError(msg)
    if not len(frame):
        msg = "known must have rows, got none"
        raise InputError(msg)
    return found


def _has_names(frame: pd.DataFrame, likely: Mapping[str, Any], table: Table, ours: str) -> bool:
    return bool(set(map(str, read_names(frame[likely[ours]]).names)) & set(map(str, table.frame[ours].unique())))


def _keys(column: pd.Series[Any], rows: Any, table: Table, ours: str) -> pd.Series[Any]:
    """Return the table's name for each row, None for one that the table does not have."""
    keys = read_names(column)
    _refuse_cells(column, keys.codes < 0, rows, f"a {ours}")
    of_table = {str(name): name for name in table.frame[ours].unique().tolist()}
    names = np.array([*(of_table.get(str(name)) for name in keys.names), None], dtype=object)
    if not (names != None).any():  # noqa: E711  # cell by cell
        shown = ", ".join(map(repr, keys.names[:_TOLD].tolist()))
        some = ", ".join(map(repr, list(of_table.values())[:_TOLD]))
        msg = f"known must have the demand's {ours}s, such as {some}, got {shown}"
        raise InputError(msg)
    return pd.Series(names[keys.codes]).infer_objects()


def _refuse_cells(column: pd.Series[Any], is_wrong: Any, rows: Any, wanted: str) -> None:
    if is_wrong.any():
        at = int(np.flatnonzero(is_wrong)[0])
        value = column.iloc[at]
        shown = "nothing" if pd.isna(value) or not str(value).strip() else repr(str(value)[:40])
        more = f", and {int(is_wrong.sum()) - 1:,} more" if is_wrong.sum() > 1 else ""
        msg = f"known must have {wanted} in every row of {str(column.name)!r}, got {shown} in row {rows[at]:,}{more}"
        raise InputError(msg)


def _values(frame: pd.DataFrame, read: Mapping[Any, Any], rows: Any) -> tuple[pd.DataFrame, list[str]]:
    """Return the columns of numbers; those of words are left out, and told."""
    made: dict[Any, Any] = {}
    words = {}
    for name in frame.columns:
        column = frame[name]
        is_bool = pd.api.types.is_bool_dtype(column.dtype)
        numbers = column.to_numpy("float64", na_value=np.nan) if is_bool else read[name]
        is_empty = (column.isna() | (column.astype(str).str.strip() == "")).to_numpy(bool)
        if not np.isfinite(numbers).any():
            words[name] = next((str(value) for value in column[~is_empty]), "nothing")
            continue
        _refuse_cells(column, ~np.isfinite(numbers) & ~is_empty, rows, "a number")
        made[name] = numbers
    if not made:
        shown = ", ".join(f"{str(name)!r} ({value[:40]!r})" for name, value in list(words.items())[:_TOLD])
        msg = f"known must have at least one column of numbers beside its dates, got {shown or 'none'}"
        raise InputError(msg)
    told = [
        f"the column {str(name)!r} of known was left out: it has no numbers ({value[:40]!r})"
        for name, value in words.items()
    ]
    return pd.DataFrame(made), told


def _refuse_repeats(frame: pd.DataFrame, by: Sequence[str], rows: Any) -> None:
    again = frame.duplicated([*by, "date"]).to_numpy()
    if again.any():
        at = int(np.flatnonzero(again)[0])
        where = "".join(f" {ours} {frame[ours].iloc[at]}," for ours in by)
        msg = (
            f"known must have one row for{where} {frame['date'].iloc[at]:%Y-%m-%d}, got another in row {rows[at]:,}"
            f" ({int(again.sum()):,} such rows): drop one of them"
        )
        raise InputError(msg)


def _periods(dates: pd.Series[Any], table: Table) -> pd.Series[Any]:
    """Return the date of each day's period, as the table's periods have it: a week's last day, a month's first."""
    if table.freq == "W":
        weeks = (table.end - dates).dt.days // 7
        return table.end - pd.to_timedelta(7 * weeks, unit="D")  # type: ignore[no-any-return]  # of its stubs
    return dates.dt.to_period("M").dt.to_timestamp() if table.freq == "M" else dates


def _lacking(whole: pd.DataFrame, by: Sequence[str], series: pd.DataFrame, dates: pd.DatetimeIndex) -> pd.Series[Any]:
    """Return how many of some dates each series lacks, where it lacks any."""
    there = whole.loc[whole["date"].isin(dates)]
    if not by:
        lacking = len(dates) - len(there)
        return pd.Series([lacking] if lacking else [], dtype=np.int64)
    counts = there.groupby(list(by), observed=True)["date"].size().rename("there").reset_index()
    joined = series.astype(object).merge(counts.astype(dict.fromkeys(by, object)), how="left", on=list(by))
    lacks = len(dates) - joined["there"].fillna(0).to_numpy(int)
    is_short = lacks > 0
    return pd.Series(lacks[is_short], index=pd.MultiIndex.from_frame(joined.loc[is_short, list(by)]))


def _check_ahead(whole: pd.DataFrame, by: Sequence[str], series: pd.DataFrame, ahead: pd.DatetimeIndex) -> None:
    lacks = _lacking(whole, by, series, ahead)
    if not len(lacks):
        return
    key = lacks.index[0]
    own = whole
    for ours, name in zip(by, key if by else (), strict=True):
        own = own[own[ours] == name]
    missing = ahead[~ahead.isin(own["date"])]
    whose = " for " + " and ".join(f"{ours} {name}" for ours, name in zip(by, key, strict=True)) if by else ""
    until = " on" if missing[-1] == ahead[-1] and len(missing) == (ahead >= missing[0]).sum() else ""
    more = f", and some for {len(lacks) - 1:,} more" if len(lacks) > 1 else ""
    msg = (
        f"known must have all dates ahead, {ahead[0]:%Y-%m-%d} to {ahead[-1]:%Y-%m-%d}: known lacks {len(missing):,} of"
        f" {len(ahead):,} dates{whose}, from {missing[0]:%Y-%m-%d}{until}{more}: add them, or ask for a shorter horizon"
    )
    raise InputError(msg)


def _told_past(whole: pd.DataFrame, by: Sequence[str], series: pd.DataFrame, past: pd.DatetimeIndex) -> list[str]:
    lacks = _lacking(whole, by, series, past)
    if not len(lacks):
        return []
    if len(lacks) == len(series) and (lacks == len(past)).all():
        msg = (
            f"known must have dates of the past too, {past[0]:%Y-%m-%d} to {past[-1]:%Y-%m-%d}, got none of them:"
            " what it does to demand is learnt there"
        )
        raise InputError(msg)
    most = int(lacks.max())
    whose = f" for {len(lacks):,} of {len(series):,} {'series' if len(by) > 1 else f'{by[0]}s'}" if by else ""
    return [f"known lacks up to {most:,} of {len(past):,} past dates{whose}: less is learnt from it"]
