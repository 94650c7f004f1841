"""Each way in which a partition may fail has its remedy."""

import pytest

from ipybatch.forecast.remedies import REMEDIES, remedy


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("Exceeded 300s", "timeout"),
        ("Partition 5 (Kendari) timeout: Exceeded 300s", "timeout"),
        ("Partition 3 (Sofifi) failed: Out of memory", "memory"),
        ("Partition 7 (Sofifi) failed: Invalid date format '31/13/2025' in row 4102", "row"),
        ("Negative quantity -3 in row 7", "row"),
        ("Missing site in row 7", "row"),
        ("Partition 1 (timeout) failed: Killed by SIGKILL", "killed"),
    ],
)
def test_an_error_has_its_remedy(error, kind):
    """Timeout: fewer rows or more time; memory: smaller partitions; a row: correct it."""
    assert remedy(error) == REMEDIES[kind]


def test_an_error_of_the_users_own_has_none():
    assert remedy("ValueError: boom") == ""
