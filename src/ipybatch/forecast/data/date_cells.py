"""Cell of a date as people write it: every day that it may be, by the order of day, month and year.

    '31/07/2025'   DMY 2025-07-31
    '03/04/2025'   DMY 2025-04-03, MDY 2025-03-04
    '25/07/01'     DMY 2001-07-25, YMD 2025-07-01
    '01-Ags-25'    DMY 2025-08-01, YMD 2001-08-25

Names of months are looked up one by one, in the six languages that headings are known in; dateparser knows them. It
never sees a whole date, so that it has nothing to guess.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from ipybatch.errors import MissingExtra
from ipybatch.forecast.settings import Freq

LANGUAGES = ("en", "id", "vi", "es", "de", "fr")
FIRST, LAST = dt.date(1900, 1, 1), dt.date(2199, 12, 31)
WORDS = {
    "DMY": "day, month, year",
    "MDY": "month, day, year",
    "YMD": "year, month, day",
    "YM": "year and month, read as its first day",
    "MY": "month and year, read as its first day",
    "YW": "year and week, read as its Monday",
    "WY": "week and year, read as its Monday",
    "week": "a week, read as its Monday",
    "weekday": "a week and its day",
    "serial": "the day number of a spreadsheet",
    "epoch": "seconds since 1970",
}
# What an order without days covers.
PERIODS: Mapping[str, Freq] = {"YM": "M", "MY": "M", "YW": "W", "WY": "W", "week": "W"}
_FORMATS = {
    "DMY": "%d{0}%m{0}%Y",
    "MDY": "%m{0}%d{0}%Y",
    "YMD": "%Y{0}%m{0}%d",
    "YM": "%Y{0}%m",
    "MY": "%m{0}%Y",
    "YW": "%G{0}%V",
    "WY": "%V{0}%G",
}
_EXCEL_ZERO = dt.date(1899, 12, 30)
_SERIALS = (25_569, 80_000)  # 1970 to 2119
_EPOCHS = ((10, 1), (13, 10**3), (16, 10**6), (19, 10**9))  # digits of seconds since 1970, and of their fractions
TIME = re.compile(
    r"(?:(?<=\d)[ T]+\d{1,2}[:h]\d{2}.*|(?<=\d{4})[ T]+\d{1,2}\.\d{2}(?:\.\d{2})?"
    r"|(?<=\d)[ T]+\d{1,2}\.\d{2}\.\d{2}(?:\.\d{3,}(?: ?[AP]M)?| ?[AP]M)|(?<=\d)T\d{2,6}Z?)$",
    re.IGNORECASE,
)
_THREE = re.compile(r"(\d{1,4})( ?[-/., ] ?)(\d{1,2})( ?[-/., ] ?)(\d{1,4})\.?")
_TWO = re.compile(r"(\d{1,4}) ?([-/.]) ?(\d{1,4})")
_WEEKS = (
    re.compile(r"(?P<year>\d{4})[-/ ]?(?:W|KW|CW|WK)[- ]?(?P<week>\d{1,2})(?:-?(?P<day>[1-7]))?", re.IGNORECASE),
    re.compile(r"(?:W|KW|CW|WK|Week|Minggu|Semana|Semaine|Woche)[ .-]*(?P<week>\d{1,2})[-/, ]+(?P<year>\d{4})", re.I),
)
_MONTHS = (
    re.compile(r"(?P<year>\d{4})[- ]?M(?P<month>\d{1,2})"),
    re.compile(r"M(?P<month>\d{1,2})[- /](?P<year>\d{4})"),
)
_VIETNAMESE_DAY = re.compile(
    r"^(?:th[uứ] ?(?:[2-7]|hai|ba|t[uư]|n[aă]m|s[aá]u|b[aả]y)|ch[uủ] nh[aậ]t)[ ,]+", re.IGNORECASE
)
_VIETNAMESE = re.compile(r"\b(?:th[aá]ng|thg)[ .]*(\d{1,2})\b", re.IGNORECASE)
_FILLERS = frozenset(["de", "del", "of", "le", "ngay", "nam", "st", "nd", "rd", "th", "er", "the", "den", "am"])
_OURS = {"ags": 8, "maerz": 3, "sept": 9}  # beside those that dateparser knows
_MOST_WORDS = 80
_GERMAN_DAYS = frozenset(["mo", "di", "mi", "do", "fr", "sa", "so"])
_LEADING = re.compile(r"([^\W\d_]{2,})[., ]+(?=\d)")
_CUT = re.compile(r"\d{4}\.\d")
_POINT_ZERO = re.compile(r"(\d{5,})\.0+")  # a number of a column that had gaps, as text


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell's possible readings.

    Attributes:
        text: As it stands in the table, without its time.
        kind: How it is written: cells of a kind share an order.
        days: For each order that fits its day.
        mark: What stands between its parts.
    """

    text: str
    kind: str
    days: Mapping[str, dt.date]
    mark: str = ""

    @property
    def is_bare(self) -> bool:
        """Whether it is a number that need not be a date at all."""
        return self.kind in ("serial", "epoch") or self.kind.endswith("digits") or self.kind.startswith("my")

    def format(self, order: str) -> str:
        """Return how it is written in an order, as for strftime."""
        if self.kind == "d name yy":
            return "%y-%b-%d" if order == "YMD" else "%d-%b-%y"
        if "name yy" in self.kind or "yy name" in self.kind:
            return f"%y{self.mark}%b" if order == "YM" else f"%b{self.mark}%y"
        made = _FORMATS[order].format(self.mark)
        is_short = (
            self.kind.endswith("yy") or self.kind.startswith("my") or (self.kind == "6 digits" and len(order) == 3)
        )
        return made.replace("%Y", "%y") if is_short else made


def written(value: Any) -> str | None:
    """Return a cell as the text of its day: one kind of blanks and digits, no time; None for what is no text."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool | np.bool_) or value is None:
        return None
    elif isinstance(value, int | np.integer):
        return str(int(value))
    elif isinstance(value, float | np.floating):
        if np.isnan(value) or float(value).is_integer():
            return None if np.isnan(value) else str(int(value))
        return f"{value:.2f}" if FIRST.year <= value < LAST.year else str(value)  # 2025.1 is 2025.10
    else:
        text = str(value)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)
    text = " ".join(text.split())
    whole = _POINT_ZERO.fullmatch(text)
    return whole[1] if whole else TIME.sub("", text)


def read_cells(texts: Sequence[str]) -> list[Cell]:
    """Return the possible readings of each text."""
    months = _months(_distinct_words(texts))
    is_cut = _has_cut_months(texts)
    return [_cell(f"{text}0" if is_cut and _CUT.fullmatch(text) else text, months) for text in texts]


def _has_cut_months(texts: Sequence[str]) -> bool:
    """Whether 2025.1 is the 2025.10 of numbers that lost their last zero: beside 2025.01, and without 2025.2."""
    cut = {text[-1] for text in texts if _CUT.fullmatch(text)}
    return cut == {"1"} and any(re.fullmatch(r"\d{4}\.0[1-9]", text) for text in texts)


def _cell(text: str, months: Mapping[str, int]) -> Cell:
    if text.isdigit():
        return _compact(text)
    if re.fullmatch(r"\d{5}[.,]\d+", text):  # the time of a spreadsheet's day is its fraction
        return Cell(text, "serial", _only({"serial": _serial(int(text[:5]))}))
    if (day := _LEADING.match(text)) and (_bare(day[1]) in months or _bare(day[1]) in _GERMAN_DAYS):
        rest = text[day.end() :]
        if three := _THREE.fullmatch(rest):  # Tue 01/07/2025
            return _three(rest, three)
    if (three := _THREE.fullmatch(text)) and three[2].strip() == three[4].strip():
        return _three(text, three)
    if two := _TWO.fullmatch(text):
        return _two(text, two)
    return _lettered(text) or _named(text, months)


def _lettered(text: str) -> Cell | None:
    """Read a week or a month by its number: 2025-W31, KW 31/2025, 2025M07."""
    for pattern in _WEEKS:
        if week := pattern.fullmatch(text):
            order = "weekday" if week.groupdict().get("day") else "week"
            return Cell(text, order, _only({order: _week(week.groupdict())}))
    for pattern in _MONTHS:
        if month := pattern.fullmatch(text):
            return Cell(text, "M", _only({"YM": _day(month["year"], month["month"], "1")}))
    return None


def _compact(text: str) -> Cell:
    size = len(text)
    days: dict[str, dt.date | None] = {}
    if size == 7:  # 1072025 has lost its leading zero
        return replace(_compact(text.zfill(8)), text=text)
    if size == 5 and text[:2] in ("19", "20") and text[4] != "0":  # 20257, as 202510 goes on
        return replace(_compact(f"{text[:4]}0{text[4]}"), text=text)
    if size == 8:
        days = {"YMD": _day(text[:4], text[4:6], text[6:])}
        days |= {"DMY": _day(text[4:], text[2:4], text[:2]), "MDY": _day(text[4:], text[:2], text[2:4])}
    elif size == 6:
        days = {"YM": _day(text[:4], text[4:], "1"), "MY": _day(text[2:], text[:2], "1")}
        days |= {"YMD": _day(text[:2], text[2:4], text[4:]), "DMY": _day(text[4:], text[2:4], text[:2])}
        days |= {"MDY": _day(text[4:], text[:2], text[2:4]), "YW": _week({"year": text[:4], "week": text[4:]})}
        days |= {"WY": _week({"year": text[2:], "week": text[:2]})}
    elif size == 5 and _SERIALS[0] <= int(text) < _SERIALS[1]:
        return Cell(text, "serial", _only({"serial": _serial(int(text))}))
    for digits, parts in _EPOCHS:
        if size == digits:
            day = dt.date(1970, 1, 1) + dt.timedelta(days=int(text) // parts // 86_400)
            return Cell(text, "epoch", {"epoch": day} if 1990 <= day.year < 2100 else {})
    return Cell(text, f"{size} digits", _only(days))


def _three(text: str, three: re.Match[str]) -> Cell:
    one, mark, two, last = three[1], three[2].strip(), three[3], three[5]
    mark = mark or " "
    if len(one) == 4:
        return Cell(text, f"Y{mark}", _only({"YMD": _day(one, two, last)}) if len(last) <= 2 else {}, mark)
    if 3 in (len(one), len(last)) or (len(last) == 1 and len(one) != 2):
        return Cell(text, "", {})
    days = {"DMY": _day(last, two, one), "MDY": _day(last, one, two)}
    if len(last) == 4:
        return Cell(text, f"{mark}Y", _only(days), mark)
    if len(last) == 1:
        days = {}
    return Cell(text, f"{mark}yy", _only(days | {"YMD": _day(one, two, last) if len(one) == 2 else None}), mark)


def _two(text: str, two: re.Match[str]) -> Cell:
    one, mark, last = two.groups()
    if len(one) == 4 and len(last) <= 2:
        week = _week({"year": one, "week": last})
        return Cell(text, f"YM{mark}", _only({"YM": _day(one, last, "1"), "YW": week}), mark)
    if len(last) == 4 and len(one) <= 2:
        week = _week({"year": last, "week": one})
        return Cell(text, f"MY{mark}", _only({"MY": _day(last, one, "1"), "WY": week}), mark)
    if mark != "." and len(one) == len(last) == 2:
        return Cell(text, f"my{mark}", _only({"MY": _day(last, one, "1"), "YM": _day(one, last, "1")}), mark)
    return Cell(text, "", {})


def _named(text: str, months: Mapping[str, int]) -> Cell:
    """Read a date whose month has a name: 1 Agustus 2025, Aug 1, 2025, 01-Jul-25, 3 tháng 8 2025, Agustus 2025."""
    plain = _VIETNAMESE.sub(r" #\1 ", _VIETNAMESE_DAY.sub("", text))
    parts = re.findall(r"#\d+|\d+|[^\W\d_]+", plain)
    numbers, names, at = [], [], 0
    for part in parts:
        if part.isdigit():
            numbers.append(part)
            continue
        month = int(part[1:]) if part[0] == "#" else months.get(_bare(part), -1)
        if month < 0 or month > 12:
            return Cell(text, "", {})
        if month:
            names.append(str(month))
            at = len(numbers)
    if len(names) != 1 or not 1 <= len(numbers) <= 2 or any(len(number) not in (1, 2, 4) for number in numbers):
        return Cell(text, "", {})
    (month_text,) = names
    if len(numbers) == 1:
        return _month_of(text, numbers[0], month_text, is_year_first=at > 0)
    one, last = numbers
    if len(last) == 4:
        return Cell(text, "d name Y" if at else "name d Y", _only({"DMY": _day(last, month_text, one)}))
    if len(one) == 4:
        return Cell(text, "Y name d", _only({"YMD": _day(one, month_text, last)}))
    days = {"DMY": _day(last, month_text, one) if len(last) == 2 else None}
    return Cell(text, "d name yy", _only(days | {"YMD": _day(one, month_text, last) if at == 1 else None}), "-")


def _month_of(text: str, year: str, month: str, *, is_year_first: bool) -> Cell:
    """Return a month by its name: Agustus 2025, Aug-25; 29-May may as well be a day that does not tell its year."""
    first = _day(year, month, "1") if len(year) > 1 else None
    if len(year) == 4:
        return Cell(text, "name Y", _only({"MY": first}))
    mark = next((mark for mark in "-/." if mark in text), " ")
    return Cell(
        text, *(("yy name", _only({"YM": first})) if is_year_first else ("name yy", _only({"MY": first}))), mark
    )


def _only(days: Mapping[str, dt.date | None]) -> dict[str, dt.date]:
    return {order: day for order, day in days.items() if day is not None}


def _day(year: str, month: str, day: str) -> dt.date | None:
    """Return a day from 1900 to 2199; two digits of a year are of 1969 to 2068, as for strptime."""
    full = int(year) if len(year) == 4 else int(year) + (2000 if int(year) < 69 else 1900) if len(year) == 2 else 0
    try:
        made = dt.date(full, int(month), int(day))
    except ValueError:
        return None
    return made if FIRST <= made <= LAST else None


def _serial(days: int) -> dt.date | None:
    return _EXCEL_ZERO + dt.timedelta(days=days) if _SERIALS[0] <= days < _SERIALS[1] else None


def _week(parts: Mapping[str, str | None]) -> dt.date | None:
    try:
        made = dt.date.fromisocalendar(int(parts["year"] or 0), int(parts["week"] or 0), int(parts.get("day") or 1))
    except ValueError:
        return None
    return made if FIRST <= made <= LAST else None


def _distinct_words(texts: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for text in texts:
        if not text.isdigit():
            found.update(_bare(word) for word in re.findall(r"[^\W\d_]{2,}", text))
    return found


def _bare(word: str) -> str:
    """Return a word without case, accents and dots."""
    plain = unicodedata.normalize("NFKD", word.casefold().replace("đ", "d"))
    return "".join(char for char in plain if char.isalpha() and not unicodedata.combining(char))


def _months(words: Iterable[str]) -> dict[str, int]:
    """Return the month of each word, 0 for words that go with a date and say nothing: of, de, Monday."""
    found: dict[str, int] = {}
    for word in sorted(words)[:_MOST_WORDS]:
        month = _month(word)
        if month is not None:
            found[word] = month
    return found


@lru_cache(maxsize=1024)
def _month(word: str) -> int | None:
    if word in _FILLERS:
        return 0
    for number in range(1, 13):
        if word in (calendar.month_name[number].lower(), calendar.month_abbr[number].lower()):
            return number
    if word in _OURS:
        return _OURS[word]
    try:
        import dateparser
    except ImportError:
        raise MissingExtra("forecast") from None
    rules = {"DATE_ORDER": "DMY", "PARSERS": ["absolute-time"]}
    read = dateparser.parse(f"15 {word} 2025", languages=list(LANGUAGES), settings={**rules, "STRICT_PARSING": True})
    if read is not None and (read.year, read.day) == (2025, 15):
        return int(read.month)
    is_weekday = len(word) > 2 and dateparser.parse(word, languages=list(LANGUAGES), settings=rules) is not None
    return 0 if is_weekday else None


def in_english(texts: Sequence[str]) -> list[str]:
    """Return texts with the names of their months in English."""
    months = _months(_distinct_words(texts))
    return [
        re.sub(r"[^\W\d_]+\.?", lambda word: calendar.month_name[months.get(_bare(word[0]), 0)] or word[0], text)
        for text in texts
    ]
