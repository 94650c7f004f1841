"""Reason: an error as one line that anybody may read."""

from __future__ import annotations

import re

from ipybatch.engine.data.masking import mask

OTHER_LOOP = re.compile(r"different (event )?loop|[Ee]vent loop is closed")
OTHER_LOOP_HINT = (
    "the work uses a client that was opened in another event loop: open it in __aenter__ of the work object, which is"
    " entered in the loop that uses it"
)
_PLAIN_NAMES = frozenset(
    {"Transient", "RateLimited", "Permanent", "Refused", "Withheld", "BadResult", "Killed", "OutOfMemory", "Overrun"}
)


def describe(error: BaseException) -> str:
    """Return an error as one masked line."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "(its text cannot be had)"
    name = type(error).__name__
    line = text if name in _PLAIN_NAMES and text else f"{name}: {text}" if text else name
    return mask(line)[:500]
