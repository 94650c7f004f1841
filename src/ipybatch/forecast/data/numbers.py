"""Numbers of a column as people write them: which mark is the decimal one, and which separates thousands.

One style is decided for the whole column, from all of its cells:

    5.5   0.125   1,234.50   1,234,567   1234.567      only a decimal point fits
    5,5   0,125   1.234,50   1.234.567   1234,567      only a decimal comma fits
    1.234   1,234                                      both fit, and differ by a thousand
    7   1 234   1'234                                  alike either way

Cells that both fit are read as the others of the column prove. Where none proves anything, there is evidence: other
columns of the table, the separator of the file (a comma between cells is no decimal comma; a semicolon is there because
of one), and that a column writes every number above 999 with the mark and none below. Where that is lacking or
contradicts itself, the user is asked: nothing is guessed.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.data.frame import distinct_of
from ipybatch.forecast.data.understanding import Answer, Undecided

_GROUPS = {".": (",", " ", "'"), ",": (".", " ", "'")}  # for each decimal mark what may separate thousands
_OTHER = {".": ",", ",": "."}
_MISSING = frozenset(
    {"", "-", "--", ".", "?", "na", "n/a", "n.a.", "#n/a", "null", "none", "nan", "nil", "k.a.", "<na>"}
)
_CURRENCY = r"[$€£¥₹₫₩฿]|US\$|R\$|S\$|RM|Rp\.?|IDR|USD|EUR|GBP|VND|VNĐ|đ|MXN|CHF|SGD|MYR"
_CELL = re.compile(
    rf"(?P<open>\()?\s*(?P<sign>[-+])?\s*(?P<before>{_CURRENCY})?\s*(?P<sign2>[-+])?\s*"
    r"(?P<body>[\d.,' \u066b]*\d[.,]?)(?P<exponent>[eE][-+]?\d+)?"
    rf"\s*(?P<trail>-)?\s*(?P<after>{_CURRENCY})?\s*(?P<unit>[^\W\d_][^\W\d_.]*\.?)?\s*(?P<close>\))?",
    re.IGNORECASE,
)
_SIMPLE = r"[0-9]+\.(?:[0-9]{1,2}|[0-9]{4,})"  # only a decimal point fits
_MANY = 10_000  # distinct cells, from which on the simple ones are read all at once
# Words that multiply: 2 dozen are not two, 3 rb (ribu) are three thousand.
_MULTIPLES = frozenset(
    ["k", "m", "b", "x", "e", "mio", "mn", "bn", "mrd", "mil", "mill", "mille", "million", "millions", "tsd", "tausend",
     "hundred", "thousand", "dozen", "dozens", "doz", "dz", "dzn", "gross", "lusin", "kodi", "rb", "ribu", "jt", "juta",
     "nghin", "ngan", "trieu", "ty"]
)  # fmt: skip
# Typographic apostrophes, the Arabic mark of thousands, and the minus signs that are no hyphen; as plain ones.
_PLAIN = str.maketrans("\u2019\u02bc\u0060\u00b4\u066c\u2212\u2013\u2014\ufe63", "'''''----")
_ARABIC = "\u066b"  # a decimal mark that is nothing else
_RARE = 0.02  # share of the cells that would differ, below which others do not prove their mark
_NO_TAIL = 0.2  # share of the fractions with fewer than three digits, which lost zeros do not explain
_FEWEST = 5  # distinct cells on each side, for a pattern of a column to be evidence
_MOST_LOOKED_AT = 500  # distinct cells of another column


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rest of the table says of its numbers' style.

    Attributes:
        sep: What separates the columns of the file; "" for no file of text.
        decimal: The decimal mark that another column proves; "" for none.
        column: That column.
    """

    sep: str = ""
    decimal: str = ""
    column: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """A column of numbers as they were read.

    Attributes:
        values: For each row its number, NaN for none.
        decimal: The column's decimal mark; "" where no cell needed one to be decided.
        thousands: What separates its thousands; "" where nothing does.
        notes: What the user should know of how it was read.
        reasons: For cells as they stand in the column why they are no number, where more is known than that.
    """

    values: Any
    decimal: str = ""
    thousands: str = ""
    notes: tuple[str, ...] = ()
    reasons: Mapping[Any, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Cell:
    """A number's parts, and what it is with a decimal point and with a decimal comma: None where that does not fit."""

    text: str
    body: str
    point: float | None
    comma: float | None
    unit: str = ""
    money: str = ""

    @property
    def fits_both(self) -> bool:
        """Whether it differs by what the mark is taken for."""
        return self.point is not None and self.comma is not None and self.point != self.comma

    def proof(self) -> str:
        """Return the only decimal mark that fits; "" where both do, or none."""
        return "." if self.comma is None else "," if self.point is None else ""

    def read(self, decimal: str) -> float:
        """Return the number with that decimal mark; NaN where it does not fit."""
        number = self.comma if decimal == "," else self.point
        return np.nan if number is None else number


def check_style(decimal: Any, thousands: Any) -> None:
    """Refuse marks that no number is written with.

    Raises:
        InputError: ``decimal`` is not "." or ",", ``thousands`` is not one of them, a blank, an apostrophe or "", or
            both are the same.
    """
    if decimal not in (None, ".", ","):
        msg = f"decimal must be '.' or ',', or None to find it, got {decimal!r}"
        raise InputError(msg)
    if thousands not in (None, "", ".", ",", " ", "'"):
        msg = f"thousands must be ',', '.', ' ' or \"'\", '' for none, or None to find it, got {thousands!r}"
        raise InputError(msg)
    if thousands and thousands == decimal:
        msg = f"thousands must differ from decimal, got {decimal!r} for both"
        raise InputError(msg)


def read_numbers(
    values: pd.Series[Any],
    name: str,
    *,
    decimal: str | None = None,
    thousands: str | None = None,
    evidence: Evidence | None = None,
) -> Numbers:
    """Return the numbers of a column; NaN for cells that are none.

    Args:
        values: The column: numbers, or text as it was written.
        name: The user's name of the column, for messages.
        decimal: The decimal mark, "." or ","; None finds it.
        thousands: What separates thousands, "" for nothing; None finds it.
        evidence: What the rest of the table says of its numbers' style.

    Raises:
        Undecided: Two styles fit every cell and differ, and nothing else tells which is meant.
        InputError: ``decimal`` or ``thousands`` is no mark that numbers are written with.
    """
    check_style(decimal, thousands)
    if pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype):
        return _ready(values.to_numpy(dtype="float64", na_value=np.nan), name)
    codes, found = distinct_of(values)
    texts = {at: value for at, value in enumerate(found) if isinstance(value, str)}
    simple = _simple(texts) if thousands is None and decimal != "," else {}
    others = {at: text for at, text in texts.items() if at not in simple}
    cells = {at: cell for at, text in others.items() if (cell := read_cell(text, thousands)) is not None}
    mark, notes = _decided(
        list(cells.values()), name, decimal, thousands, evidence or Evidence(), points=[texts[at] for at in simple]
    )
    typed = [_float(value) for at, value in enumerate(found) if at not in texts and not isinstance(value, bool)]
    if decimal is None and thousands is None:
        _refuse_cut(np.array(typed), list(cells.values()), mark, name)
    numbers = np.full(len(found) + 1, np.nan)  # the last is for the code -1, missing
    numbers[list(simple)] = list(simple.values())
    marks: Counter[str] = Counter()
    for at, cell in cells.items():
        own = mark or cell.proof() or "."  # a mixed column: what reads in one way only is read so
        numbers[at] = cell.read(own)
        marks.update(_group(cell.body, own))
    for at, value in enumerate(found):
        if not isinstance(value, str | bool | np.bool_):
            numbers[at] = _float(value)
    counts = np.bincount(codes[codes >= 0], minlength=len(found))
    units: Counter[str] = Counter()
    for at, cell in cells.items():
        if cell.unit:
            units[cell.unit] += int(counts[at])
    return Numbers(
        numbers[codes],
        decimal=mark,
        thousands=thousands or (marks.most_common(1)[0][0] if marks else ""),
        notes=(*notes, *_told_units(units, name), *_told_money(cells.values(), name)),
        reasons=_reasons({text: float(numbers[at]) for at, text in others.items()}),
    )


def look_around(frame: pd.DataFrame, columns: Iterable[Any], sep: str) -> Evidence:
    """Return what some columns prove of their table's style of numbers.

    Args:
        frame: The table, whose text is as it was written.
        columns: The columns to look at: none whose cells are names or dates.
        sep: What separates the columns of its file; "" for no file of text.
    """
    proven: dict[str, str] = {}
    for column in columns:
        values = frame[column]
        if values.dtype != object and not isinstance(values.dtype, pd.StringDtype | pd.ArrowDtype):
            continue
        texts = [value for value in values.iloc[:20_000].drop_duplicates() if isinstance(value, str)]
        texts = [text for text in texts if not is_missing(text)][:_MOST_LOOKED_AT]
        cells = [cell for cell in map(read_cell, texts) if cell is not None]
        proofs = {cell.proof() for cell in cells} - {""}
        if len(proofs) == 1 and len(cells) >= 0.9 * len(texts):
            proven.setdefault(proofs.pop(), str(column))
    if len(proven) != 1:
        return Evidence(sep)
    ((decimal, column),) = proven.items()
    return Evidence(sep, decimal, column)


def is_missing(text: str) -> bool:
    """Whether a cell's text says that there is nothing."""
    return text.strip().translate(_PLAIN).casefold() in _MISSING


def read_cell(text: str, thousands: str | None = None) -> _Cell | None:
    """Return what a cell's text is with a decimal point and with a decimal comma; None if it is no number."""
    plain = text.strip()
    if plain.isascii() and plain.isdigit():
        number = float(plain)
        return _Cell(plain, plain, number, number)
    plain = _ascii_digits(unicodedata.normalize("NFKC", plain).translate(_PLAIN))
    found = _CELL.fullmatch(plain)
    if found is None:
        return None
    signs = [found[part] for part in ("sign", "sign2", "trail") if found[part]]
    is_bracketed = bool(found["open"])
    unit = (found["unit"] or "").rstrip(".").casefold()
    if is_bracketed != bool(found["close"]) or len(signs) + is_bracketed > 1 or unit in _MULTIPLES:
        return None
    factor = -1.0 if is_bracketed or "-" in signs else 1.0
    body = re.sub(" +", " ", found["body"].strip())
    exponent = found["exponent"] or ""
    point, comma = (_number(body.replace(_ARABIC, mark), mark, exponent, thousands, factor) for mark in ".,")
    if point is None and comma is None:
        return None
    money = found["before"] or found["after"] or ""
    return _Cell(plain, body, point, comma, unit, money)


def _number(body: str, decimal: str, exponent: str, thousands: str | None, factor: float) -> float | None:
    if thousands == decimal:
        return None  # what separates thousands is no decimal mark
    groups = _GROUPS[decimal] if thousands is None else tuple(thousands)
    found = _pattern(decimal, groups).fullmatch(body)
    if found is None:
        return None
    whole = re.sub(r"\D", "", found["whole"] or "")
    return factor * float(f"{whole or '0'}.{found['rest'] or '0'}{exponent}")


@lru_cache(maxsize=32)
def _pattern(decimal: str, groups: tuple[str, ...]) -> re.Pattern[str]:
    """Return the pattern of a number: 1,234 has full groups, and no group of thousands begins with a zero."""
    whole = r"\d+"
    if groups:
        marks = re.escape("".join(groups))
        whole += rf"|[1-9]\d{{0,2}}(?:(?P<mark>[{marks}])\d{{3}})(?:(?P=mark)\d{{3}})*"
    if "," in groups:
        whole += r"|[1-9]\d?(?:,\d{2})+,\d{3}"  # 12,34,567 of India
    return re.compile(rf"(?=.*\d)(?P<whole>{whole})?(?:{re.escape(decimal)}(?P<rest>\d*))?")


def _group(body: str, decimal: str) -> list[str]:
    """Return the mark that separates a number's thousands, if it has one."""
    whole = body.replace(_ARABIC, decimal).split(decimal)[0]
    return [mark for mark in _GROUPS[decimal] if mark in whole][:1]


def _simple(texts: Mapping[int, str]) -> dict[int, float]:
    """Return the numbers of the texts that only a decimal point fits, where there are many; but for the first few."""
    if len(texts) < _MANY:
        return {}
    column = pd.Series(texts.values(), index=list(texts), dtype="str").iloc[_FEWEST:]
    column = column[column.str.fullmatch(_SIMPLE)]
    return dict(zip(column.index.tolist(), pd.to_numeric(column).tolist(), strict=True))


def _decided(
    cells: list[_Cell],
    name: str,
    decimal: str | None,
    thousands: str | None,
    evidence: Evidence,
    *,
    points: Sequence[str],
) -> tuple[str, list[str]]:
    """Return the column's decimal mark, "" where none matters, and what to say of it.

    Args:
        points: Cells beside those, which prove a decimal point.
    """
    if decimal is not None:
        return decimal, []
    if thousands in (",", "."):
        return _OTHER[thousands], []
    open_cells = [cell for cell in cells if cell.fits_both]
    proofs = Counter(cell.proof() for cell in cells)
    del proofs[""]
    proofs += Counter({".": len(points)})
    example = _telling(open_cells)
    if len(proofs) == 2:
        if example is not None:
            raise _undecided(name, example)
        one, other = (next(cell.text for cell in cells if cell.proof() == mark) for mark in ".,")
        return "", [f"{name} has decimal points ({one!r}) and decimal commas ({other!r}): each was read as its own"]
    if proofs:
        (mark,) = proofs
        is_rare = proofs[mark] < _RARE * len(open_cells)  # one 7.5 among a hundred 1.234 does not prove fractions
        if example is not None and mark in example.body and (is_rare or _is_of_two(cells, points, mark)):
            raise _undecided(name, example)
        return mark, []
    if example is None:
        return "", []
    marks = {"." if "." in cell.body else "," for cell in open_cells}
    if len(marks) > 1:  # 1.234 beside 1,234
        raise _undecided(name, example)
    (mark,) = marks
    verdicts, why = _weighed(mark, cells, open_cells, evidence)
    if len(verdicts) != 1:
        raise _undecided(name, example)
    is_decimal = verdicts == {"decimal"}
    decimal = mark if is_decimal else _OTHER[mark]
    read, otherwise = (f"{example.read(as_mark):,.10g}" for as_mark in (decimal, _OTHER[decimal]))
    argument = "thousands" if is_decimal else "decimal"
    told = f"{example.text!r} in {name} was read as {read}, {why}; {argument}={mark!r} reads it as {otherwise}"
    return decimal, [told]


def _is_of_two(cells: list[_Cell], points: Sequence[str], mark: str) -> bool:
    """Whether fractions all have one digit, or two, and what may be thousands three: files of two styles put together.

    Where fractions have three digits and lose their last zeros, one in ten has two, and one in a hundred one.
    """
    sure = [cell.body for cell in cells if cell.proof() == mark and mark in cell.body]
    digits = {len(body.rpartition(mark)[2]) for body in (*sure, *points[:_MOST_LOOKED_AT])}
    maybe = {cell.body for cell in cells if cell.fits_both and mark in cell.body}
    count = len({*sure, *points})
    is_many = count >= max(_FEWEST, _NO_TAIL * (count + len(maybe)))
    return digits in ({1}, {2}) and is_many and len(maybe) >= _FEWEST


def _weighed(mark: str, cells: list[_Cell], open_cells: list[_Cell], evidence: Evidence) -> tuple[set[str], str]:
    """Return what speaks for the mark to be a decimal one and for thousands, and the strongest reason."""
    verdicts, reasons = set(), []
    if evidence.decimal:
        verdicts.add("decimal" if evidence.decimal == mark else "thousands")
        word = "point" if evidence.decimal == "." else "comma"
        reasons.append(f"as {evidence.column} has a decimal {word}")
    if (evidence.sep, mark) in ((";", "."), (",", ",")):
        verdicts.add("thousands")
        reasons.append(f"as a file separated by {evidence.sep!r} has a decimal {'comma' if mark == '.' else 'point'}")
    small = {cell.body for cell in cells if cell.body.isdigit() and abs(cell.read(".")) < 1000}
    has_large = any(cell.body.isdigit() and abs(cell.read(".")) >= 1000 for cell in cells)
    if not has_large and len(small) >= _FEWEST and len({cell.body for cell in open_cells}) >= _FEWEST:
        verdicts.add("thousands")
        reasons.append("as only numbers above 999 have the mark")
    return verdicts, reasons[0] if reasons else ""


def _telling(cells: list[_Cell]) -> _Cell | None:
    """Return the cell that shows the question best: the longest of the first few, 12.590 rather than 1.000."""
    return max(cells[:50], key=lambda cell: (len(cell.body), not cell.body.endswith("000")), default=None)


def _undecided(name: str, cell: _Cell) -> Undecided:
    mark = "." if "." in cell.body else ","
    answers = (
        Answer("decimal", mark, f"{cell.read(mark):.10g}"),
        Answer("thousands", mark, f"{cell.read(_OTHER[mark]):,.10g}"),
    )
    return Undecided(name, cell.text, answers, what="one style of numbers")


def _ascii_digits(text: str) -> str:
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _ready(values: Any, name: str) -> Numbers:
    """Return numbers that are numbers already, and say so where thousands may have been read as fractions before.

    In 7, 950, 1.234 and 12.59 whole numbers stop where fractions of three digits begin: so a file looks whose 1.234
    and 12.590 were read with a decimal point.
    """
    example = _cut(values)
    if example is None:
        return Numbers(values)
    told = (
        f"{example:.10g} in {name} was read as the fraction that it is; if the file meant {example * 1000:,.10g},"
        f" hand over the file, with thousands='.'"
    )
    return Numbers(values, notes=(told,))


def _cut(values: Any) -> float | None:
    """Return a fraction that may be a thousand whose mark was read as a decimal one; None where there is none."""
    broken = values[np.isfinite(values) & (values != np.floor(values))]
    if not len(broken) or (np.abs(broken) < 1).any() or (np.abs(values[np.isfinite(values)]) >= 1000).any():
        return None
    thousandths = np.abs(broken) * 1000
    is_written_so = np.isclose(thousandths, np.round(thousandths), rtol=0, atol=1e-6).all()
    is_third_used = (~np.isclose(thousandths / 10, np.round(thousandths / 10), rtol=0, atol=1e-7)).any()
    if not (is_written_so and is_third_used):
        return None
    return float(max(broken[:50].tolist(), key=lambda value: len(f"{value:.10g}")))


def _refuse_cut(typed: Any, cells: list[_Cell], mark: str, name: str) -> None:
    """Refuse numbers beside text with marks of thousands, where a spreadsheet took such marks for decimal ones.

    Raises:
        InputError: All fractions among the numbers have three digits, and the text has thousands.
    """
    example = _cut(typed)
    text = next((cell.text for cell in cells if _group(cell.body, mark or cell.proof() or ".")), None)
    if example is None or text is None:
        return
    msg = (
        f"demand must have one style of numbers in {name!r}, got {text!r} as text and {example:.10g} as a number, as"
        f" when a spreadsheet takes marks of thousands for decimal ones: hand over the original file, or say"
        f" decimal={mark or '.'!r} if it is the fraction {example:.10g}"
    )
    raise InputError(msg)


def _reasons(read: Mapping[str, float]) -> dict[str, str]:
    """Return for texts that say nothing, or less than nothing, why they are no quantity."""
    reasons = {text: f"Negative quantity {text.strip()}" for text, number in read.items() if number < 0}
    missing = (text for text, number in read.items() if np.isnan(number) and is_missing(text))
    return reasons | {text: f"Missing quantity {text!r}" if text.strip() else "Missing quantity" for text in missing}


def _told_units(units: Counter[str], name: str) -> list[str]:
    if not units:
        return []
    shown = ", ".join(f"{unit!r} ({rows:,} row{'' if rows == 1 else 's'})" for unit, rows in units.most_common(4))
    return [f"the units in {name} were left out: {shown}{' and others' if len(units) > 4 else ''}"]


def _told_money(cells: Iterable[_Cell], name: str) -> list[str]:
    example = next((cell.text for cell in cells if cell.money), None)
    return [] if example is None else [f"the currency in {name} was left out: {example!r}"]
