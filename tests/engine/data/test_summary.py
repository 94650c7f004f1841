import pytest

from ipybatch.engine.data.events import Counts
from ipybatch.engine.data.outcome import Summary


@pytest.mark.parametrize(
    ("state", "counts", "reason", "line"),
    [
        (
            "completed",
            Counts(completed=497, failed=3, total=500),
            "",
            "wishlist completed: 497/500 successful, 3 failed, 0 skipped",
        ),
        (
            "completed",
            Counts(completed=1, failed=1, timeout=2, total=4),
            "",
            "wishlist completed: 1/4 successful, 3 failed, 0 skipped",
        ),
        (
            "failed",
            Counts(completed=2, skipped=8, total=10),
            "HTTP 401",
            "wishlist failed: 2/10 successful, 0 failed, 8 skipped (HTTP 401)",
        ),
        (
            "cancelled",
            Counts(completed=2, cancelled=8, total=10),
            "",
            "wishlist cancelled: 2/10 successful, 0 failed, 0 skipped, 8 cancelled",
        ),
        ("completed", Counts(total=0), "", "wishlist completed: 0/0 successful, 0 failed, 0 skipped"),
        (
            "cancelled",
            Counts(completed=3, total=None),
            "",
            "wishlist cancelled: 3/3 successful, 0 failed, 0 skipped",
        ),
    ],
)
def test_a_summary_is_one_line(state, counts, reason, line):
    """The line of the contract; timeouts are failures, and a reason is told."""
    assert str(Summary("wishlist", state, counts, reason, 12.5)) == line
