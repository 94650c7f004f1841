"""Near duplicates: names that may be one site or one part, written in two ways.

    Kendari, KENDARI, kéndari           the same but for case, accents and marks between letters
    P-100, P100; 00123, 123             the same number written in two ways
    Kendari (200 rows), Kendarl (3)     one letter of a word apart, and rare beside the other

Digits that differ make other names, so do short words: Store 1 and Store 2, Lamp L and Lamp R. Where many names lie a
letter apart, letters are a code, and none of these is told.

Names that differ in one word are found without comparing all with all: by their other words, then by what is left of
that word when a letter is taken away (the deletion neighbourhood of SymSpell); the distance itself is rapidfuzz's.

Source: https://github.com/wolfgarbe/SymSpell (2026-11-30).
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, islice
from typing import Any, Protocol

import numpy as np
import pandas as pd

from ipybatch.errors import MissingExtra
from ipybatch.forecast.data.names import Keys

_FEWEST_LETTERS = 5  # of a word that may have a typing error
_RARE = 0.1  # a typing error is at most this often as what it stands for
_CODES = 0.05  # with more typing errors than this share of the names, they are codes that differ in a letter
_FEWEST_CODES = 10
_MOST = 200_000  # names that are looked through for typing errors
_TOLD = 5  # groups in a note
_LETTERS = str.maketrans({"đ": "d", "ð": "d", "ø": "o", "ł": "l", "æ": "ae", "œ": "oe", "\u0131": "i"})
_BETWEEN = re.compile(r"(?<=[^\W_])[\s_\-.,'\u2019()]+(?=[^\W_])")  # letters or digits
_ENDS = re.compile(r"^[\s.,'\u2019()]+|[\s.,'\u2019()]+$")
_NUMBER = re.compile(r"0*(\d+)(?:\|0+)?")
_WORDS = re.compile(r"\d+|[^\W\d_]+|[^\w\s]")


class Named(Protocol):
    """Names, sorted, and in how many rows each stands."""

    @property
    def names(self) -> Any:
        """The names."""

    @property
    def counts(self) -> Any:
        """For each in how many rows it stands."""


def near_duplicates(keys: Named) -> list[list[int]]:
    """Return the groups of names that may be one, as positions in `Keys.names`, the most frequent name first.

    Raises:
        MissingExtra: rapidfuzz is not installed.
    """
    if not len(keys.names) or not isinstance(keys.names[0], str):
        return []
    names, counts = [_bare(name) for name in keys.names], keys.counts
    groups = _Groups(len(names))
    alike: dict[str, int] = {}
    for at, name in enumerate(names):
        groups.join(alike.setdefault(_loose(name), at), at)
    most = max(_FEWEST_CODES, int(_CODES * len(names)))
    typed = list(islice(_typing_errors(names, counts), most + 1)) if len(names) <= _MOST else []
    if len(typed) <= most:
        for one, other in typed:
            groups.join(one, other)
    return [sorted(group, key=lambda at: (-counts[at], at)) for group in groups.several()]


def merge(keys: Keys, groups: Iterable[Sequence[int]]) -> Keys:
    """Return a column in which each group has the name of its first."""
    target = targets(len(keys.names), groups)
    kept = np.unique(target)
    codes = np.append(np.searchsorted(kept, target), -1)[keys.codes]
    return Keys(codes, pd.Index(keys.names[kept]), keys.changes, keys.shortened)


def targets(count: int, groups: Iterable[Sequence[int]]) -> Any:
    """Return for each of ``count`` names the position of the name that it has when each group has that of its first."""
    target = np.arange(count)
    for first, *others in groups:
        target[others] = first
    return target


def tell_duplicates(keys: Named, groups: Sequence[Sequence[int]], ours: str, *, is_merged: bool) -> list[str]:
    """Return a line that names the first groups, with the rows of each name.

    Args:
        keys: The names before they are merged.
        groups: What `near_duplicates` returned.
        ours: "site" or "part".
        is_merged: Whether they are, or may be.
    """
    if not groups:
        return []
    counts = keys.counts
    told = [
        _listed([f"{_short(keys.names[at])} ({_rows(counts[at])})" for at in group], is_merged=is_merged)
        for group in groups[:_TOLD]
    ]
    more = f" and {len(groups) - _TOLD:,} more" if len(groups) > _TOLD else ""
    if is_merged:
        return [f"near duplicates of {ours}s were merged, each under its most frequent name: {'; '.join(told)}{more}"]
    one = f"may be one {ours}" if len(groups) == 1 else f"may each be one {ours}"
    return [f"{'; '.join(told)}{more} {one}: repair={{'merge_near_duplicates'}} makes them one"]


class _Groups:
    """Disjoint sets of positions (union-find)."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def join(self, one: int, other: int) -> None:
        self._above[self._top(other)] = self._top(one)

    def several(self) -> list[list[int]]:
        """Return the sets with several members."""
        members: defaultdict[int, list[int]] = defaultdict(list)
        for at in range(len(self._above)):
            members[self._top(at)].append(at)
        return [group for group in members.values() if len(group) > 1]

    def _top(self, at: int) -> int:
        while self._above[at] != at:
            self._above[at] = at = self._above[self._above[at]]
        return at


def _bare(name: str) -> str:
    """Return a name without case and accents."""
    if name.isascii():
        return name.lower()
    apart = unicodedata.normalize("NFKD", name.casefold()).translate(_LETTERS)
    return "".join(mark for mark in apart if not unicodedata.combining(mark))


def _loose(bare: str) -> str:
    """Return what is left of a name without marks between its letters; those between digits stay, as one mark."""
    if bare.isalnum() and not bare.isdigit():
        return bare
    inner = _ENDS.sub("", bare)
    joined = _BETWEEN.sub(
        lambda found: "|" if inner[found.start() - 1].isdigit() and inner[found.end()].isdigit() else "", inner
    )
    number = _NUMBER.fullmatch(joined)
    return number[1] if number else joined or bare


def _typing_errors(names: Sequence[str], counts: Any) -> Iterator[tuple[int, int]]:
    """Yield pairs of names that differ by a letter in one longer word, where one is rare beside the other."""
    if counts.min() > _RARE * counts.max():
        return
    beside: defaultdict[tuple[str, ...], list[tuple[int, str]]] = defaultdict(list)
    for at, name in enumerate(names):
        words = _WORDS.findall(name)
        for number, word in enumerate(words):
            if len(word) >= _FEWEST_LETTERS and not word.isdigit():
                beside[(*words[:number], "", *words[number + 1 :])].append((at, word))
    distance = _distance()
    often = counts.tolist()
    for some in beside.values():
        for (one, word), (other, its) in _neighbours(some, often):
            if distance(word, its, score_cutoff=1) == 1:
                yield one, other


def _neighbours(
    words: Sequence[tuple[int, str]], often: Sequence[int]
) -> Iterator[tuple[tuple[int, str], tuple[int, str]]]:
    """Yield pairs, one rare beside the other, of which a letter taken away from one or from each leaves the same."""
    if len(words) < 2:
        return
    left: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for at, word in words:
        for rest in {word, *(word[:gap] + word[gap + 1 :] for gap in range(len(word)))}:
            left[rest].append((at, word))
    seen = set()
    for near in left.values():
        for pair in combinations(near, 2):
            (one, word), (other, its) = pair
            is_rare = often[one] <= _RARE * often[other] or often[other] <= _RARE * often[one]
            if is_rare and word != its and (one, other) not in seen:
                seen.add((one, other))
                yield pair


def _distance() -> Any:
    try:
        from rapidfuzz.distance import OSA
    except ImportError:
        raise MissingExtra("forecast") from None
    return OSA.distance


def _listed(told: Sequence[str], *, is_merged: bool) -> str:
    if is_merged:
        return f"{told[0]} with {', '.join(told[1:])}"
    return f"{', '.join(told[:-1])} and {told[-1]}"


def _short(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:59]}…")


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
