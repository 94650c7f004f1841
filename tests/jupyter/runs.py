"""A recorded run, for tests of what lists them."""

from ipybatch.engine.store.history import RecordedRun

NOW_S = 1_796_000_000.0  # 2026-11-30 in UTC


def run(name="wishlist", **changes):
    told = {
        "name": name,
        "started_s": NOW_S,
        "seconds": 108.4,
        "total": 500,
        "completed": 497,
        "failed": 2,
        "timeout": 1,
        "cancelled": 0,
        "skipped": 0,
        "state": "completed",
        "reason": "",
        "usd": None,
    }
    return RecordedRun(**(told | changes))
