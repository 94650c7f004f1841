"""Facts: how their figures are written, and what stands for a moment that counts on."""

import pytest

from ipybatch.engine.data.fact import counted, moment, span, standing, took, usd


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0 s"), (48.9, "48 s"), (108, "1 m 48 s"), (7500, "2 h 05 m"), (273_600, "3 d 04 h")],
)
def test_a_span_is_written_as_the_panels_clocks_are(seconds, words):
    assert span(seconds) == words


def test_how_long_something_took_has_tenths_where_they_matter():
    assert [took(1.234), took(59.94), took(59.96)] == ["1.2 s", "59.9 s", "1 m 00 s"]


def test_an_amount_keeps_digits_where_two_would_be_nothing():
    assert [usd(0), usd(0.0042), usd(-0.05), usd(1234.5)] == ["$0.00", "$0.0042", "$-0.0500", "$1,234.50"]


def test_a_moment_stands_still_in_a_static_form():
    """What has run tells for how long it had; what expires tells when."""
    assert standing(f"{moment(1000.25)} so far", 1012.5) == "12 s so far"
    assert standing("in 2026-12-02T08:10:00Z", 0.0) == "on 2026-12-02 at 08:10 UTC"
    assert standing("site 2026-12-02T08:10:00Z", 0.0) == "site 2026-12-02T08:10:00Z"


def test_a_count_has_its_word():
    assert [counted(1, "partition"), counted(1200, "row")] == ["1 partition", "1,200 rows"]
