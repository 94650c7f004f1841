"""Dates of a column as people write them, read as days.

    cell --> parts --> every order that fits the parts --> one order for all cells written alike

Cells written alike (31/07/2025, 07/31/2025) share an order, which is the one that fits all of them. Where several fit
and differ, two-digit years have evidence: a year first that makes a month of 25/07/01 to 25/07/31 is meant, not one day
in each of 31 years. Day and month are never told apart by such evidence: the user is asked.

Over 500 lines: each rule decides between orders that fit the same cells.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.data.date_cells import FIRST, LAST, PERIODS, WORDS, Cell, in_english, read_cells, written
from ipybatch.forecast.data.frame import distinct_of
from ipybatch.forecast.data.headings import is_of_months, is_of_weeks
from ipybatch.forecast.data.understanding import Answer, Undecided
from ipybatch.forecast.settings import Freq

_UTC = re.compile(r"[T ](\d{2}):(\d{2})(?::00(?:\.0+)?)? ?(?:Z|UTC|[+-]00:?00)$")
_LOOKED_AT = 10_000  # distinct times
_FEWEST = 8  # distinct dates, for their spread to be evidence
_MUCH = 8  # times the spread of the other reading
_SURE = 0.2  # share of the distinct dates whose number is above 12, that makes weeks of years' numbers
_EARLY = 3  # dates before the latest year; were they weeks, one of four would be up to 12, and one of 80 all of these
_QUARTERS = 4
_RECENT_YEARS = 20  # which numbers above 12 tell from days without a year
_UNREAD = 0.05  # share of the distinct dates of a shape that may not fit the order of the others
_RARE = 0.02  # share of the distinct dates of a style that may contradict it, and are then problems of their rows


@dataclass(frozen=True, slots=True, eq=False)
class Dates:
    """A column of dates as they were read.

    Attributes:
        days: For each row its day, NaT for none.
        style: How they are written, by an example and in words; "" for dates that needed no reading.
        period: "W" or "M" where all are written as weeks or as months; None where that is to be inferred.
        notes: What the user should know of how they were read.
        orders: By how dates are written the order of day, month and year that was taken.
    """

    days: pd.Series[Any]
    style: str = ""
    period: Freq | None = None
    notes: tuple[str, ...] = ()
    orders: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Decision:
    """The order of the cells of one kind, and what to say of it."""

    order: str
    notes: list[str] = field(default_factory=list)
    is_each_its_own: bool = False

    def day(self, cell: Cell) -> dt.date | None:
        if self.is_each_its_own and len(cell.days) == 1:
            return next(iter(cell.days.values()))
        return cell.days.get(self.order)


def read_dates(
    values: pd.Series[Any],
    name: str,
    *,
    date_format: str | None = None,
    freq: Freq | None = None,
    orders: Mapping[str, str] | None = None,
    today: dt.date | None = None,
) -> Dates:
    """Return the days of a column, without time and zone; NaT for values that are no day from 1900 to 2199.

    Args:
        values: The column: dates, text, or numbers such as 20250701.
        name: The user's name of the column, for messages.
        date_format: How text is written, as for strftime, e.g. ``"%d/%m/%y"``; None finds it.
        freq: The table's period where it is known: tells weeks from months.
        orders: By how dates are written the order that other pieces of the column told; what is not there is found.
        today: The day that no past demand lies after; default: today.

    Raises:
        Undecided: Several orders of day, month and year fit every cell and differ.
        InputError: ``date_format`` is none, or fits no cell; or no cell can be read.
        MissingExtra: The package that knows the names of months in other languages is not installed.
    """
    if (typed := _typed(values)) is not None:
        return Dates(_within(typed), notes=_told_zone(values, name))
    codes, found = distinct_of(values)
    ready = [None if isinstance(value, str) else _ready(value) for value in found]
    texts = [None if day is not None else written(value) for value, day in zip(found, ready, strict=True)]
    places = {text: at for at, text in enumerate(dict.fromkeys(text for text in texts if text))}
    place_of = np.array([places.get(text or "", -1) for text in texts], dtype=np.int64)  # times of a day share its text
    counts = np.bincount(codes[codes >= 0], minlength=len(found))
    rows = np.bincount(place_of[place_of >= 0], counts[place_of >= 0], minlength=len(places))
    typed_days = [day for day in ready if day is not None]
    notes: list[str] = []
    period: Freq | None = None
    taken: dict[str, str] = {}
    if date_format is not None:
        days, style = _formatted(list(places), name, date_format), f"as {date_format!r}"
    else:
        cells = read_cells(list(places))
        taken = dict(orders or {})
        days, style, period, notes = _decide_all(
            cells, rows, typed_days, name, taken, said=_said(freq, name), today=today or dt.date.today()
        )
        _refuse_swapped(cells, typed_days, name)
        notes += _told_written_zone(found, name)
    if places and not typed_days and not any(days):
        example = next(iter(places))
        msg = f"demand must have dates that can be read in {name!r}, got {example!r}: {_advice(example)}"
        raise InputError(msg)
    of_text = _stamps([*days, None])
    of_distinct = np.append(np.where(place_of < 0, _stamps(ready), of_text[place_of]), of_text[-1])
    made = pd.Series(of_distinct[codes])  # -1, missing, takes the last
    return Dates(_within(made), style, period, tuple(notes), taken)


def _advice(example: str) -> str:
    """Return what helps against dates that cannot be read."""
    if re.search(r"[QT][1-4]|[1-4][QT]", example, re.IGNORECASE) or re.fullmatch(r"\d{4}", example):
        return "forecasts are of days, weeks or months: hand over one of these"
    return "say how they are written, as for strftime, e.g. date_format='%d/%m/%Y'"


def looks_like_dates(values: pd.Series[Any]) -> float:
    """Return the share of a column's first few distinct values that some order reads as a day; not bare numbers."""
    if _typed(values.iloc[:1]) is not None:
        return 1.0
    distinct = list(values.iloc[:20_000].dropna().drop_duplicates().iloc[:50])
    days = [_ready(value) for value in distinct]
    texts = [text for value, day in zip(distinct, days, strict=True) if day is None and (text := written(value))]
    read = sum(bool(cell.days) for cell in read_cells(texts)) + sum(day is not None for day in days)
    return read / max(len(texts) + sum(day is not None for day in days), 1)


def _typed(values: pd.Series[Any]) -> pd.Series[Any] | None:
    """Return a column of dates as times without a zone, each as its own clock shows it; None if it is none."""
    dtype = values.dtype
    if isinstance(dtype, pd.PeriodDtype):
        values = values.dt.to_timestamp()
    elif isinstance(dtype, pd.ArrowDtype):
        import pyarrow as pa

        kind = dtype.pyarrow_dtype
        if pa.types.is_date(kind):
            stamps = pa.array(values.array).cast(pa.timestamp("ms"))
            values = pd.Series(stamps.to_numpy(zero_copy_only=False))
        elif pa.types.is_timestamp(kind):
            values = values.dt.tz_localize(None) if kind.tz else values
            values = pd.Series(values.to_numpy(dtype="datetime64[us]", na_value=np.datetime64("NaT", "us")))
        else:
            return None
    elif not pd.api.types.is_datetime64_any_dtype(dtype):
        return None
    if values.dt.tz is not None:
        values = values.dt.tz_localize(None)
    return values


def _within(values: pd.Series[Any]) -> pd.Series[Any]:
    days: pd.Series[Any] = values.dt.normalize().astype("datetime64[us]").reset_index(drop=True)
    return days.where((days >= pd.Timestamp(FIRST)) & (days <= pd.Timestamp(LAST)))


def _ready(value: Any) -> dt.date | None:
    """Return the day of a date's object."""
    if isinstance(value, pd.Period):
        value = value.start_time
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if value is pd.NaT or not isinstance(value, dt.date):
        return None
    return dt.date(value.year, value.month, value.day)


def _stamps(days: Sequence[dt.date | None]) -> Any:
    return np.array([np.datetime64("NaT", "us") if day is None else day for day in days], dtype="datetime64[us]")


def _told_zone(values: pd.Series[Any], name: str) -> tuple[str, ...]:
    """Tell of times in UTC that are midnights elsewhere: their days there are the next."""
    zone = getattr(values.dtype, "tz", None) or getattr(getattr(values.dtype, "pyarrow_dtype", None), "tz", None)
    if zone is None or str(zone) not in ("UTC", "Etc/UTC", "+00:00"):
        return ()
    return _told_midnights({(stamp.hour, stamp.minute) for stamp in values.dropna().iloc[:_LOOKED_AT]}, name)


def _told_written_zone(distinct: Iterable[Any], name: str) -> tuple[str, ...]:
    """As `_told_zone`, for times that are text."""
    texts = [value for value in islice(distinct, _LOOKED_AT) if isinstance(value, str)]
    found = [_UTC.search(text) for text in texts]
    times = {(int(time[1]), int(time[2])) for time in found if time is not None}
    return _told_midnights(times, name) if all(found) else ()


def _told_midnights(times: Collection[tuple[int, int]], name: str) -> tuple[str, ...]:
    """Tell of times of day that are midnights elsewhere: one, or two with summer time, in the evening of UTC."""
    if not 1 <= len(times) <= 2 or any(hour < 9 or minute % 15 for hour, minute in times):
        return ()
    hour, minute = min(times)
    told = f"all times in {name} are {hour:02}:{minute:02} UTC, a midnight elsewhere: their days are those of UTC"
    return (f"{told}; for the local day, convert them to its zone",)


def _formatted(texts: Sequence[str], name: str, date_format: str) -> list[dt.date | None]:
    if not isinstance(date_format, str) or "%" not in date_format:
        msg = f"date_format must say how dates are written, as for strftime, e.g. '%d/%m/%Y', got {date_format!r}"
        raise InputError(msg)
    form, cells = date_format, list(texts)
    form = re.sub(r"(?<=%[dDyYmjbB])[ T]+%[HI].*$", "", form)
    if "%V" in form and not re.search(r"%[uwaA]", form):  # a week is its Monday
        form, cells = f"{form} %u", [f"{text} 1" for text in cells]
    if re.search(r"%[bBh]", form):
        form, cells = re.sub(r"%[bBh]", "%B", form), in_english(cells)
    if re.fullmatch(r"(?:%[dmyYj])+", form):  # numbers lose their leading zero
        width = sum(4 if code == "Y" else 3 if code == "j" else 2 for code in form[1::2])
        cells = [text.zfill(width) for text in cells]
    try:
        read = pd.to_datetime(pd.Series(cells, dtype=object), format=form, errors="coerce")
    except ValueError as error:
        msg = f"date_format must say how dates are written, as for strftime, got {date_format!r}: {error}"
        raise InputError(msg) from None
    if cells and read.isna().all():
        msg = f"date_format must fit the dates of {name}, got {date_format!r}, and {cells[0]!r} is written otherwise"
        raise InputError(msg)
    return [None if pd.isna(stamp) else stamp.date() for stamp in read]


def _decide_all(
    cells: Sequence[Cell],
    rows: Any,
    typed: Sequence[dt.date],
    name: str,
    orders: dict[str, str],
    *,
    said: Freq | None,
    today: dt.date,
) -> tuple[list[dt.date | None], str, Freq | None, list[str]]:
    """Read all cells, those that are written alike in one order; put orders into ``orders`` that are not there yet.

    Returns:
        For each cell its day, the style, what each covers, and what to say.
    """
    kinds: dict[str, list[int]] = defaultdict(list)
    for at, cell in enumerate(cells):
        if cell.days:
            kinds[cell.kind].append(at)
    days: list[dt.date | None] = [None] * len(cells)
    known, notes = list(typed), []
    styles = [f"{typed[0]} as a date"] if typed and kinds else []
    periods: set[Freq | None] = {None} if typed else set()
    for of_kind in sorted(kinds.values(), key=lambda of_kind: -int(rows[of_kind].sum())):
        alike = [cells[at] for at in of_kind]
        if (kind := alike[0].kind) in orders:
            decision = _Decision(orders[kind])
            _refuse_other_order(alike, decision.order, name, said, today)
        else:
            decision = _decide(alike, name, said, today)
            _refuse_no_year(alike, decision.order, name, today)
            if not decision.is_each_its_own:
                orders[kind] = decision.order
        made = [decision.day(cell) for cell in alike]
        if known and alike[0].is_bare:  # a number among dates may be a quantity: it has to lie near them
            made = [day if day is not None and _is_near(day, known) else None for day in made]
        for at, day in zip(of_kind, made, strict=True):
            days[at] = day
        if read := [cell for cell, day in zip(alike, made, strict=True) if day is not None]:
            notes += decision.notes
            known += [day for day in made if day is not None]
            periods.add(PERIODS.get(decision.order))
            styles.append(f"{read[0].text!r} ({WORDS[decision.order]})")
    _refuse_unread(cells, days, name)
    if len(styles) > 1:
        notes.append(f"dates in {name} are written in {len(styles)} ways: {', '.join(styles[:4])}")
    return days, " and ".join(styles[:4]), periods.pop() if len(periods) == 1 else None, notes


def _refuse_other_order(cells: Sequence[Cell], order: str, name: str, said: Freq | None, today: dt.date) -> None:
    """Refuse dates of a piece that by themselves tell another order than other pieces told: some fit both, and differ.

    Raises:
        InputError: They do.
    """
    try:
        own = _decide(cells, name, said, today)
    except Undecided:
        return
    if own.order != order and not own.is_each_its_own:
        text = next(cell.text for cell in cells if own.order in cell.days)
        msg = (
            f"demand must have dates of one order in {name}, got {text!r} ({WORDS[own.order]}), where other rows"
            f" tell {WORDS[order]}: write them alike, or say date_format="
        )
        raise InputError(msg)


def _is_near(day: dt.date, known: Sequence[dt.date]) -> bool:
    first, last = min(known), max(known)
    reach = max(last - first, dt.timedelta(days=366))
    return first - reach <= day <= last + reach


def _decide(cells: Sequence[Cell], name: str, said: Freq | None, today: dt.date) -> _Decision:
    """Return the order of cells that are written alike.

    Raises:
        Undecided: Several fit and differ.
    """
    cells = _weeks_apart(cells, name, said)
    fits = Counter(order for cell in cells for order in cell.days)
    proofs = Counter(next(iter(cell.days)) for cell in cells if len(cell.days) == 1)
    best = max(proofs or fits, key=lambda order: ((proofs or fits)[order], fits[order]))
    if proofs:
        others = sum(proofs.values()) - proofs[best]
        open_cells = [cell for cell in cells if len(set(cell.days.values())) > 1]
        if others <= max(_RARE * proofs[best], proofs[best] >= _FEWEST):
            left = [order for order in fits if fits[order] >= fits[best] - others]
            return _between(cells, left, name, today)
        if open_cells:
            raise _undecided(name, open_cells[0], tuple(proofs))
        one, other = (next(cell.text for cell in cells if order in cell.days) for order in list(proofs)[:2])
        told = f"dates in {name} have days before months and after them ({one!r}, {other!r}): each fits only one way"
        return _Decision(best, [told], is_each_its_own=True)
    return _between(cells, [order for order in fits if fits[order] == fits[best]], name, today)


def _between(cells: Sequence[Cell], orders: Sequence[str], name: str, today: dt.date) -> _Decision:
    if len(orders) == 1 or all(len({cell.days.get(order) for order in orders}) == 1 for cell in cells):
        return _Decision(orders[0])
    kind = cells[0].kind
    if kind == "6 digits" and {"YM", "YMD"} <= set(orders):  # 201101: a month, or a day of 2020
        raise _undecided(
            name, cells[0], [one for one in orders if one in {"YM", "YMD", *_plausible(cells, orders, today)}]
        )
    left = _plausible(cells, orders, today)
    if kind == ".Y" and "DMY" in left:  # nobody writes a month before its day with points
        return _Decision("DMY")
    if kind == "d name yy" and "DMY" in left and not _is_denser(cells, "YMD", "DMY"):  # as spreadsheets write it
        return _Decision("DMY")
    if len(left) > 1:
        example = max(cells, key=lambda cell: len({cell.days.get(order) for order in left}))
        raise _undecided(name, example, left)
    (order,) = left
    example, otherwise = next(
        (cell, one) for cell in cells for one in orders if len({cell.days.get(one), cell.days.get(order), None}) == 3
    )
    told = (
        f"{example.text!r} in {name} was read as {example.days[order]}, as these dates then lie close together and in"
        f" the past; date_format={example.format(otherwise)!r} reads it as {example.days[otherwise]}"
    )
    return _Decision(order, [told])


def _plausible(cells: Sequence[Cell], orders: Sequence[str], today: dt.date) -> list[str]:
    """Return the orders that are left when where the year stands is judged by how the days lie.

    Demand is of the past, and its days lie close together. A year first and a year last differ by decades; day first
    and month first do not, and are never told apart here.
    """
    spans = {order: sorted(cell.days[order] for cell in cells if order in cell.days) for order in orders}
    groups = [group for group in (["YMD"], ["DMY", "MDY"], ["YM"], ["MY"], ["YW"], ["WY"]) if set(group) & set(orders)]
    groups = [[order for order in group if order in orders] for group in groups]
    soon = today + dt.timedelta(days=366)
    if past := [group for group in groups if any(spans[order][-1] <= soon for order in group)]:
        groups = past
    if len(cells) >= _FEWEST:
        wide = [min((spans[order][-1] - spans[order][0]).days for order in group) for group in groups]
        groups = [group for group, days in zip(groups, wide, strict=True) if days <= _MUCH * max(min(wide), 7)]
    return [order for group in groups for order in group]


def _said(freq: Freq | None, name: str) -> Freq | None:
    """Return whether a number beside a year is a week's or a month's, by what the user and the heading say."""
    if freq in ("W", "M"):
        return freq
    return "W" if is_of_weeks(name) else "M" if is_of_months(name) else None


def _weeks_apart(cells: Sequence[Cell], name: str, said: Freq | None) -> Sequence[Cell]:
    """Return cells that are months or weeks by their number as one of both: 2025-13 is no month.

    Raises:
        Undecided: Both fit: none is above 12, or few are; and nothing speaks for months, see `_is_of_years`.
        InputError: They are quarters.
    """
    for month, week in (("YM", "YW"), ("MY", "WY")):
        weeks = [cell for cell in cells if week in cell.days]
        if not weeks:
            continue
        sure = [cell for cell in weeks if month not in cell.days]
        is_rare = not sure or (len(sure) <= max(1, _RARE * len(weeks)) and len(weeks) >= _FEWEST)
        if said == "W" or (len(sure) > 2 and len(sure) >= _SURE * len(weeks)):
            lost = month
        elif is_rare and (said == "M" or _is_of_years(cells, month, name)):
            lost = week
        elif any(len(cell.days) > 2 for cell in weeks) or not all(len(cell.days) == 1 for cell in sure):
            continue  # digits that may be a day too: its orders are asked about together
        else:
            both = next((cell for cell in weeks if month in cell.days), weeks[0])
            raise _undecided(name, both, [month, week])
        left = (replace(cell, days={order: day for order, day in cell.days.items() if order != lost}) for cell in cells)
        cells = [cell for cell in left if cell.days] or cells
    return cells


def _is_of_years(cells: Sequence[Cell], month: str, name: str) -> bool:
    """Whether months are meant, as years follow one another without any number above 12: of weeks some would have one.

    Raises:
        InputError: None is above 4 in several years.
    """
    days = [cell.days[month] for cell in cells if month in cell.days]
    latest = max(day.year for day in days)
    early = [day for day in days if day.year < latest]
    goes_on = any(day.month == 12 and dt.date(day.year + 1, 1, 1) in days for day in early)
    if not goes_on and len(early) >= _QUARTERS and max(day.month for day in days) <= _QUARTERS:
        msg = (
            f"demand must have days, weeks or months in {name!r}, got {cells[0].text!r}, and none above {_QUARTERS} in"
            f" any year, as if these were quarters: hand over one of the three, or say date_format="
            f"{cells[0].format(month)!r} if they are months"
        )
        raise InputError(msg)
    return goes_on or len(early) >= _EARLY


def _refuse_no_year(cells: Sequence[Cell], order: str, name: str, today: dt.date) -> None:
    """Refuse 29-May and 29/05, unless one number is as rare as a year's: they may be days that do not tell their year.

    Raises:
        InputError: They may be.
    """
    kind = cells[0].kind
    if not (kind in ("yy name", "name yy") or kind.startswith("my")):
        return
    days = [cell.days[order] for cell in cells if order in cell.days]
    years, months = {day.year for day in days}, {day.month for day in days}
    if kind == "yy name":
        is_year = len(months) >= 6 and 2 * len(years) <= len(months)
    else:
        is_year = len(years) <= max(len(months), 2 if kind.startswith("my") else 3)
    is_recent = not kind.startswith("my") or min(years) > today.year - _RECENT_YEARS
    if is_year and is_recent and max(days) <= today + dt.timedelta(days=366):
        return
    example = next(cell for cell in cells if order in cell.days)
    msg = (
        f"demand must have dates with their years in {name!r}, got {example.text!r}: write the year too, or, if it is"
        f" {example.days[order]:%B %Y}, say date_format={example.format(order)!r}"
    )
    raise InputError(msg)


def _refuse_unread(cells: Sequence[Cell], days: Sequence[dt.date | None], name: str) -> None:
    """Refuse dates of which many that look alike do not fit: then the others are read wrongly too, such as 2025/01/07.

    Raises:
        InputError: There are such; ``date_format`` says how they are written.
    """
    read: dict[str, int] = {}
    unread: dict[str, list[int]] = defaultdict(list)
    for at, (cell, day) in enumerate(zip(cells, days, strict=True)):
        shape = re.sub(r"[^\W\d_]+\.?", "a", re.sub(r"\d\d?(?!\d)(?<!\d{3})", "9", cell.text))
        if day is not None:
            read.setdefault(shape, at)
        elif not cell.days:
            unread[shape].append(at)
    counts = Counter[str]()
    for shape, some in unread.items():
        if shape in read and len(some) > 2:
            counts[shape] = len(some)
    for shape, count in counts.most_common(1):
        if count <= _UNREAD * len(cells):
            return
        at = read[shape]
        msg = (
            f"demand must have dates that read in one way in {name!r}, got {cells[unread[shape][0]].text!r}, which is"
            f" no date as {cells[at].text!r} is {days[at]}, nor are {count - 1:,} more: say how they are written, as"
            " for strftime, e.g. date_format='%d/%m/%Y'"
        )
        raise InputError(msg)


def _is_denser(cells: Sequence[Cell], one: str, other: str) -> bool:
    """Whether the days lie much closer together in one order than in another."""
    wide = {}
    for order in (one, other):
        days = [cell.days[order] for cell in cells if order in cell.days]
        if len(days) < len(cells):
            return order == other
        wide[order] = (max(days) - min(days)).days
    return wide[one] * _MUCH < wide[other]


def _undecided(name: str, cell: Cell, orders: Sequence[str]) -> Undecided:
    answers = [
        Answer("date_format", cell.format(order), str(cell.days[order])) for order in orders if order in cell.days
    ]
    return Undecided(name, cell.text, answers, what="dates that read in one way")


def _refuse_swapped(cells: Sequence[Cell], typed: Sequence[dt.date], name: str) -> None:
    """Refuse a column of a spreadsheet that took days for months wherever it could, and left the others as text.

    Raises:
        InputError: All dates that are text have a day above 12, and none of the others has.
    """
    texts = [cell for cell in cells if cell.kind.endswith("Y") and list(cell.days) == ["DMY"]]
    if len(texts) < 5 or len(texts) < len(cells) or len(typed) < 5 or max(day.day for day in typed) > 12:
        return
    msg = (
        f"demand must not have day and month swapped in {name!r}, got {texts[0].text!r} as text and {typed[0]} as a"
        " date: no date that is text has a day up to 12, and no other has one above, as when a spreadsheet reads days"
        " as months; hand over the original file"
    )
    raise InputError(msg)
