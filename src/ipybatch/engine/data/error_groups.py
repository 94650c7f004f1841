"""Error groups: the failures of a session by their message, so that ten thousand of one cause are one line.

    rows of items --`grouped`--> one group a message, the most frequent first

Rule: messages that differ in nothing but the item's own key are one: it stands
as ``<key>`` in them, unless only one item failed so.
"""

from __future__ import annotations

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


def grouped(failures: Iterable[tuple[str, str, str, str, str]]) -> list[ErrorGroup]:
    """Return the groups, the most frequent first, then by the first item.

    Args:
        failures: The key, the message, the status, the scope and the traceback of each item, in input order.
    """
    found: dict[tuple[str, str, str], list[Any]] = {}
    for key, message, status, scope, traceback in failures:
        told = found.setdefault((folded(message, label_of(key)), status, scope), [])
        if told:
            told[0] += 1
        else:
            told += [1, message, key_value(key), traceback]
    shown: dict[tuple[str, str, str], ErrorGroup] = {}
    for (alike, status, scope), (count, message, key, traceback) in found.items():
        text = alike if count > 1 else message
        group = shown.setdefault((text, status, scope), ErrorGroup(text, status, scope, 0, key, traceback))
        group.count += count
    return sorted(shown.values(), key=lambda group: -group.count)


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
