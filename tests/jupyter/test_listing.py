"""Listing: recorded sessions as a table for people."""

import calendar
import time

import pytest

from ipybatch.jupyter.listing import SHOWN, Listing
from ipybatch.jupyter.magics import completions, missing
from tests.jupyter.runs import NOW_S, run


@pytest.fixture
def zone(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Makassar")  # eight hours before UTC, without summer time
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_table_is_for_people(zone):
    """Local times, rounded durations; a column that says nothing is not there; the latest comes first."""
    day_s = 86_400
    at_s = calendar.timegm((2026, 11, 30, 3, 7, 0))
    runs = [
        run("old", started_s=at_s - 400 * day_s, seconds=0.0432101),
        run("before", started_s=at_s - 3 * day_s, seconds=7511.9, state="failed", failed=0, timeout=0),
        run("last night", started_s=at_s - day_s, seconds=42.4, total=None),
        run("now", started_s=at_s, state="running", where="in process 7 on host"),
    ]
    assert repr(Listing(runs, at_s + 60)).splitlines() == [
        "Session     State                               Done  Failed  Started              Took",
        "now         running in process 7 on host  500 of 500       3  11:07            1 m 48 s",
        "last night  completed                            500       3  yesterday 11:07      42 s",
        "before      failed                        497 of 500          27 Nov 11:07     2 h 05 m",
        "old         completed                     500 of 500       3  26 Oct 2025         0.0 s",
    ]


def test_cost_and_reason_are_shown_where_there_are_any():
    table = repr(Listing([run(usd=0.0412, reason="the service gave up: " + 80 * "x", state="rolled_back")], NOW_S))
    assert table.splitlines()[0].split() == [
        "Session", "State", "Done", "Failed", "Started", "Took", "Cost", "Reason",
    ]  # fmt: skip
    assert "rolled back" in table
    assert "$0.0412  the service gave up: xxx" in table
    assert table.endswith("x\N{HORIZONTAL ELLIPSIS}")


def test_the_table_shows_the_latest_and_text_as_text():
    """Thousands of runs are no table to read, and a name is no markup."""
    told = Listing([run(f"run {number}") for number in range(SHOWN + 1200)] + [run("<b>bold</b>")], NOW_S)
    assert len(repr(told).splitlines()) == SHOWN + 2
    assert repr(told).endswith("\n1,201 earlier ones: ipybatch.history()")
    page = told._repr_html_()
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>" not in page
    assert page.count("<tr>") == SHOWN + 1
    # Without a style sheet, too: it is taken from a notebook that is not trusted.
    assert '<td style="text-align:left">&lt;b&gt;bold&lt;/b&gt;</td>' in page
    assert '<th style="text-align:right">Took</th>' in page
    assert repr(Listing([], NOW_S)) == "No session is recorded yet."
    assert Listing([], NOW_S)._repr_html_() == "<p>No session is recorded yet.</p>"


def test_dollars_and_other_scripts_stay_as_they_are_beside_others():
    """A notebook renders what stands between two dollars as a formula; a name in Hebrew turns its row around."""
    name = "\u05e9\u05dc\u05d5\u05dd"
    table = Listing([run(name=name, reason="of $5.00 $4.99 are spent", usd=4.99)], NOW_S)
    assert "$" not in table._repr_html_().replace("<span>$</span>", "")
    assert f"<bdi>{name}</bdi>" in table._repr_html_()
    assert f"\u2068{name}\u2069 " in repr(table)
    assert f"\u2068{name}\u2069" in missing(name, [])
    assert missing("\x1b[31mred", []).startswith("no such session: red;")


def test_a_long_name_leaves_room_for_the_rest():
    """It may have 200 characters; whole in a title, and for Tab."""
    name = "night of " + "x" * 190
    table = Listing([run(name=name), run()], NOW_S)
    assert max(map(len, repr(table).splitlines())) < 130
    assert f'title="{name}"' in table._repr_html_()
    assert name not in table._repr_html_().replace(f'title="{name}"', "")
    assert completions("%ipybatch night", "night", [run(name=name)]) == [name]
