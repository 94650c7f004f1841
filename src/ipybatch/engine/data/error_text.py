"""Reason: an error as one line that anybody may read."""

from __future__ import annotations

import re

from ipybatch.engine.data.masking import mask
from ipybatch.errors import ItemError

OTHER_LOOP = re.compile(r"different (event )?loop|[Ee]vent loop is closed")
OTHER_LOOP_HINT = (
    "the work uses a client that was opened in another event loop: open it in __aenter__ of the work object, which is"
    " entered in the loop that uses it"
)


def describe(error: BaseException) -> str:
    """Return an error as one masked line."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "(its text cannot be had)"
    name = type(error).__name__
    is_ours = isinstance(error, ItemError) and type(error).__module__.startswith("ipybatch.")
    line = text if is_ours and text else f"{name}: {text}" if text else name
    return mask(line)[:500]
