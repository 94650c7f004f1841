"""Text files: from bytes to a grid of cells, each as it was written.

    bytes --encoding--> UTF-8 --separator--> cells --grid--> table

Encoding. A byte-order mark says it, and so does UTF-8, which other text hardly ever is by chance. What is neither is
Windows-1252, which contains Latin-1, where every word then looks like one of a Latin script; that is told. Otherwise
the user is asked, with what charset-normalizer thinks likely: of tables, whose few words are mostly names, it alone
finds the right encoding in one of three cases.

Separator. The one that cuts the most lines into the same number of cells, not the one that the first line has most of:
a title may stand above the table, and a decimal comma in every row.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.data.understanding import Answer, Undecided

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "|"}
_MARKS = (  # the longest first: UTF-32 begins as UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LIKELY = [
    "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1257", "cp1258", "cp874", "cp932", "gb18030", "big5", "cp949",
    "cp850", "mac_roman",
]  # fmt: skip
_HEAD = 1 << 18  # bytes in which the separator is looked for
_LINES = 2000  # of them
_BLOCK = 1 << 24
_MOST_WIDTH = 20_000  # cells of a row
_WORDS = 500
_WORD = re.compile(rb"[A-Za-z]*[\x80-\xff][A-Za-z\x80-\xff]*")
_ICELANDIC = re.compile(rb"[\xd0\xde\xf0\xfe]")  # in Windows-1252; letters of Turkish and Baltic words elsewhere
_INSIDE = frozenset("\u00a0\u2019\u00b7\u00ad")  # signs that stand between the letters of a word
_BESIDE = _INSIDE | frozenset(
    "\u2018\u201c\u201d\u201e\u2013\u2014\u00ab\u00bb\u00b0\u00ba\u00aa\u00ae\u2122\u20ac\u00a3\u00b2\u00b3\u00bd\u00bc"
    "\u00b4\u00d7\u00a7\u00b1\u2026\u00a9\u00bf\u00a1"
)


@dataclass(frozen=True, slots=True, eq=False)
class TextGrid:
    """The cells of a text file.

    Attributes:
        cells: Text, "" where there is none; one row per record from 0 on, one column per cell of the longest.
        encoding: Python's name of the encoding that was taken.
        sep: What separates the cells.
        notes: What the user must know of how it was read.
    """

    cells: pd.DataFrame
    encoding: str
    sep: str
    notes: tuple[str, ...]


def read_text(data: bytes, name: str, encoding: str | None = None) -> TextGrid:
    """Return the cells of a text file.

    Args:
        data: Its bytes.
        name: What the user calls it, for messages.
        encoding: Python's name of its encoding; None finds it.

    Raises:
        Undecided: Its words may be of several encodings.
        InputError: The encoding is not known, or the cells cannot be told apart.
    """
    encoding, notes = _checked(data, name, encoding) if encoding else _found(data, name)
    text = data if encoding == "utf-8" else data.decode(encoding).encode("utf-8", "surrogatepass")
    text = text.removeprefix(codecs.BOM_UTF8)
    if b"\0" in text:
        msg = f"demand must be a table, got {name!r}, which has bytes that no text has: is it the right file?"
        raise InputError(msg)
    if not text[:4096].strip() and not text.strip():
        msg = f"demand must be a table, got {name!r}, which is empty"
        raise InputError(msg)
    sep = _separator(text[:_HEAD], name, whole=len(text) <= _HEAD)
    return TextGrid(_cells(text, sep, name), encoding, sep, notes)


def widths(cells: str, sep: str) -> Iterator[int]:
    """Yield the number of cells of each record of a text, up to a cell that is too long for a table's."""
    try:
        for record in csv.reader(io.StringIO(cells, newline=""), delimiter=sep):
            yield len(record)
    except csv.Error:
        return


def _checked(data: bytes, name: str, encoding: str) -> tuple[str, tuple[str, ...]]:
    """Return an encoding that the user names, with what is the same one."""
    try:
        found = codecs.lookup(encoding).name
        data.decode(encoding)
    except (LookupError, TypeError):
        msg = f"encoding must be one that Python knows, such as 'utf-8' or 'cp1252', got {encoding!r}"
        raise InputError(msg) from None
    except UnicodeError as error:
        at = getattr(error, "start", 0)
        row = data.count(b"\n", 0, at) + 1
        msg = f"encoding must be that of {name!r}, got {encoding!r}: a byte in line {row:,} is no character of it"
        raise InputError(msg) from None
    return found, ()


def _found(data: bytes, name: str) -> tuple[str, tuple[str, ...]]:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _marked(data, name, encoding)
    wide = _wide(data[:4096])
    if wide:
        return _marked(data, name, wide)
    if data.isascii() or _is_utf8(data):
        return "utf-8", ()
    words = list(
        dict.fromkeys(match.group() for _, match in zip(range(50 * _WORDS), _WORD.finditer(data), strict=False))
    )
    words = words[:_WORDS]
    _refuse_broken_utf8(data, name)
    if all(map(_is_latin, words)) and not any(map(_ICELANDIC.search, words)):
        example = max((word.decode("cp1252") for word in words), key=len)
        return "cp1252", (f"{name} was read as Windows-1252 text, such as {example!r}: encoding= names another",)
    readings = _readings(words)
    if len(readings) == 1:
        ((encoding, example),) = readings
        return encoding, (f"{name} was read as {encoding} text, such as {example!r}: encoding= names another",)
    if not readings:
        msg = f"demand must be text of a known encoding, got {name!r}, which is not UTF-8: say encoding="
        raise InputError(msg)
    answers = [Answer("encoding", encoding, repr(text)) for encoding, text in readings]
    raise Undecided("", name, answers, what="text of a known encoding")


def _marked(data: bytes, name: str, encoding: str) -> tuple[str, tuple[str, ...]]:
    """Return an encoding that the first bytes tell, if the others are of it too."""
    try:
        data.decode(encoding)
    except UnicodeError:
        msg = f"demand must be text of one encoding, got {name!r}, which begins as {encoding} and does not go on so"
        raise InputError(msg) from None
    return "utf-8" if encoding == "utf-8-sig" else encoding, ()


def _wide(head: bytes) -> str:
    """Return UTF-16 that has no mark, by its zeros; "" for anything else."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    if len(head) < 8 or max(even, odd) < len(head) // 5 or min(even, odd) > len(head) // 64:
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"


def _is_utf8(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for at in range(0, len(data), _BLOCK):
            decoder.decode(data[at : at + _BLOCK], final=at + _BLOCK >= len(data))
    except UnicodeDecodeError:
        return False
    return True


def _refuse_broken_utf8(data: bytes, name: str) -> None:
    """Refuse text that is UTF-8 but for a few bytes: whatever else it could be reads all of it wrong."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        first = error.start
    near = data[max(0, first - _HEAD) : first + _HEAD].decode("utf-8", "replace")
    broken = near.count("\ufffd")
    if sum(char > "\x7f" for char in near) > 3 * broken:
        line = data.count(b"\n", 0, first) + 1
        msg = (
            f"demand must be text of one encoding, got {name!r}: it is UTF-8 but for some bytes, the first in line"
            f" {line:,}: save it as UTF-8"
        )
        raise InputError(msg)


def _is_latin(word: bytes) -> bool:
    """Whether a word, read as Windows-1252, looks like one of a Latin script."""
    try:
        text = word.decode("cp1252")
    except UnicodeDecodeError:
        return False
    if set(text) <= _BESIDE:
        return True
    core = text.strip("".join(_BESIDE))
    foreign = [char for char in core if char > "\x7f" and char not in _INSIDE]
    if any(not unicodedata.name(char, "").startswith("LATIN") for char in foreign):
        return False
    if any(here.islower() and after.isupper() and after > "\x7f" for here, after in pairwise(core)):
        return False
    if sum(char in _BESIDE and char not in _INSIDE for char in text) > len(core):
        return False
    return len(core) <= 2 or 2 * len(foreign) <= len(core)


def _readings(words: list[bytes]) -> list[tuple[str, str]]:
    """Return up to three encodings that the words may be of, the likeliest first, and a word as each reads it."""
    try:
        from charset_normalizer import from_bytes
    except ImportError:  # the question is asked without a proposal
        return []
    likely = [match.encoding for match in from_bytes(b"\n".join(words), cp_isolation=_LIKELY)]
    if all(map(_is_latin, words)):
        likely = ["cp1254", "cp1252", *likely]
    longest = max(words, key=len)
    readings: dict[str, str] = {}
    for encoding in likely:
        try:
            text = longest.decode(encoding)
        except UnicodeDecodeError:
            continue
        if text not in readings.values() and text.isprintable():
            readings[encoding] = text
    return list(readings.items())[:3]


def _separator(head: bytes, name: str, *, whole: bool) -> str:
    """Return what separates the cells of the most lines into the same number."""
    text = head.decode("utf-8", "ignore")
    if not whole:
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    said = re.match(r"sep=(.)\r?\n", text)
    if said and said.group(1) in SEPARATORS:
        return said.group(1)
    scores = {}
    for sep in SEPARATORS:
        counts = Counter(count for count in islice(widths(text, sep), _LINES) if count)
        if not counts:
            continue
        lines = sum(counts.values())
        width, same = max(counts.items(), key=lambda item: (item[0] > 1, item[1], item[0]))
        if width > 1:
            scores[sep] = (round(same / lines, 1), width)
    if not scores:
        first = next((line for line in text.splitlines() if line.strip()), "")
        msg = (
            f"demand must be a table of columns with a comma, semicolon, tab or | between them, got {name!r}, whose"
            f" first line is {first[:60]!r}"
        )
        raise InputError(msg)
    return max(scores, key=lambda sep: scores[sep])


def _cells(text: bytes, sep: str, name: str) -> pd.DataFrame:
    width = max(widths(_first_lines(text), sep), default=1)
    while True:
        try:
            cells = pd.read_csv(
                io.BytesIO(text), sep=sep, header=None, names=list(range(width)), index_col=False, dtype=str,
                keep_default_na=False, skip_blank_lines=False, encoding="utf-8", encoding_errors="surrogatepass",
            )  # fmt: skip
            break
        except (ValueError, OverflowError) as error:  # pandas' own errors are ValueErrors
            longer = re.search(r"saw (\d+)", str(error))
            if longer is None or not width < int(longer.group(1)) <= _MOST_WIDTH:
                raise _unread(error, text, name) from None
            width = int(longer.group(1))
    if text.count(b"\n") > len(cells):
        _refuse_swallowed(cells, sep, name)
    if b'="' in text:  # ="007", by which programs keep a spreadsheet from taking a name for a number
        cells = cells.apply(lambda column: column.str.replace(r'^="(.*)"$', r"\1", regex=True))
    return cells


def _refuse_swallowed(cells: pd.DataFrame, sep: str, name: str) -> None:
    """Refuse a cell that holds whole rows: a quotation mark opens there, and the next one is far below."""
    for column in cells.columns:
        texts = cells[column]
        for at in np.flatnonzero(texts.str.count("\n").to_numpy() > 1).tolist():
            inner = str(texts.iat[at]).split("\n")[1:-1]
            if any(line.count(sep) == cells.shape[1] - 1 > 0 for line in inner):
                msg = (
                    f"demand must be a table whose quotation marks are closed, got {name!r}: one that opens in row"
                    f" {at + 1:,} holds {len(inner) + 1:,} more rows"
                )
                raise InputError(msg)


def _first_lines(text: bytes) -> str:
    """Return the lines in which the width of the table is looked for: rows that are longer are met later."""
    head = text[:_HEAD].decode("utf-8", "ignore")
    return head if len(text) <= _HEAD else head[: max(head.rfind("\n"), head.rfind("\r")) + 1] or head


def _unread(error: Exception, text: bytes, name: str) -> InputError:
    opened = re.search(r"EOF inside string starting at row (\d+)", str(error))
    if opened:
        return InputError(
            f"demand must be a table whose quotation marks are closed, got {name!r}: one that opens in row"
            f" {int(opened.group(1)) + 1:,} is not"
        )
    wide = re.search(r"line (\d+), saw (\d+)", str(error))
    if wide:
        return InputError(
            f"demand must be a table of at most {_MOST_WIDTH:,} columns, got {int(wide.group(2)):,} in row"
            f" {int(wide.group(1)):,} of {name!r}"
        )
    return InputError(f"demand must be a table that can be read, got {name!r}: {str(error).strip()}")
