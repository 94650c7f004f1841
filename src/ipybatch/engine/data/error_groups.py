"""Error groups: the failures of a session by their message, so that ten thousand of one cause are one line.

    rows of items --`grouped`--> one group a message, the most frequent first

Rule: messages that differ in nothing but the item's own key are one: it stands
as ``<key>`` in them, unless only one item failed so.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import msgspec

from ipybatch.engine.data.plan import key_value, label_of


class ErrorGroup(msgspec.Struct):
    """Items that failed with the same message.

    Attributes:
        scope: Whose it is, as far as is known: "item", "service", "rate", "account".
        key: Of the first of them; ``traceback``: the last frames of the user's own code there.
    """

    message: str
    status: str
    scope: str
    count: int
    key: Any
    traceback: str


class FailureList(msgspec.Struct, frozen=True):
    """What failed and matches a search, at one moment.

    Attributes:
        version: A number that no other list has.
        groups: Items with the same message, the most frequent first, then by their first item.
        ids: The rows of the items, those of the first group in input order, then those of the second.
        of: How many failed in all.
    """

    version: int
    groups: list[ErrorGroup]
    ids: array[int]
    of: int


def grouped(failures: Iterable[tuple[str, str, str, str, str]]) -> list[ErrorGroup]:
    """Return the groups, the most frequent first, then by the first item.

    Args:
        failures: The key, the message, the status, the scope and the traceback of each item, in input order.
    """
    return [group for group, _ in members((0, *failure) for failure in failures)]


def members(failures: Iterable[tuple[int, str, str, str, str, str]]) -> list[tuple[ErrorGroup, array[int]]]:
    """Return the groups as `grouped` does, each with the numbers of its items, in input order.

    Args:
        failures: The number of each item, rising, and what `grouped` takes of it.
    """
    found: dict[tuple[str, str, str], list[Any]] = {}
    for number, key, message, status, scope, traceback in failures:
        told = found.setdefault((folded(message, label_of(key)), status, scope), [])
        if not told:
            told += [array("q"), message, key, traceback]
        told[0].append(number)
    shown: dict[tuple[str, str, str], tuple[ErrorGroup, array[int]]] = {}
    for (alike, status, scope), (numbers, message, key, traceback) in found.items():
        text = alike if len(numbers) > 1 else message
        first = ErrorGroup(text, status, scope, 0, key_value(key), traceback)
        group, known = shown.setdefault((text, status, scope), (first, array("q")))
        group.count += len(numbers)
        shown[text, status, scope] = group, array("q", heapq.merge(known, numbers)) if known else numbers
    return sorted(shown.values(), key=lambda entry: -entry[0].count)


def folded(message: str, label: str) -> str:
    """Return a message with ``<key>`` for each place where the item's own key stands as a word of its own."""
    if "%" in message and (spelt := quote(label, "")) != label:  # in an address
        message = message.replace(spelt, "<key>")
    if not label or label not in message:
        return message
    told, end = "", 0
    while (at := message.find(label, end)) >= 0:
        after = at + len(label)
        is_part = (label[0].isalnum() and message[at - 1 : at].isalnum() and at > 0) or (
            label[-1].isalnum() and message[after : after + 1].isalnum()
        )
        told += message[end:at] + (label if is_part else "<key>")
        end = after
    return told + message[end:]
