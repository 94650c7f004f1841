"""Remedies: what helps against each way in which a partition may fail."""

from __future__ import annotations

REMEDIES = {
    "timeout": 'fewer rows to a partition (by="size", a smaller max_rows), or more time (a larger timeout_s)',
    "memory": 'smaller partitions (by="size", a smaller max_rows), fewer at a time (workers=1), or a larger memory_mb',
    "row": "correct the row or drop it, and run the same call again",
    "killed": "something else ended it, most often for want of memory: smaller partitions, or fewer at a time",
}
_SIGNS = (
    ("timeout", ("Exceeded ", "timeout")),
    ("memory", ("Out of memory",)),
    ("row", ("Invalid ", "Negative ", "Missing ")),
    ("killed", ("Killed by", "Ended without")),
)


def remedy(error: str) -> str:
    """Return what helps against an error of a partition, "" where nothing is known.

    Args:
        error: Its one line, e.g. ``Exceeded 300s`` or ``Partition 3 (Sofifi) failed: Out of memory``.
    """
    said = error.rsplit("failed: ", 1)[-1]
    return next((REMEDIES[kind] for kind, signs in _SIGNS if any(sign in said for sign in signs)), "")
