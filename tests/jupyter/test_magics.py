"""Magics: what `%ipybatch` answers, in an IPython shell of its own."""

import calendar
import time

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

from ipybatch import BatchSession
from ipybatch.engine.store.history import RecordedRun
from ipybatch.jupyter.magics import SHOWN, Sessions, completions, missing
from tests.works import Recorder

NOW_S = 1_796_000_000.0  # 2026-11-30 in UTC


@pytest.fixture
def shell(journal, monkeypatch):
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(journal))
    InteractiveShell.clear_instance()
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "ipybatch")
    return shell


@pytest.fixture
def zone(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Makassar")  # eight hours before UTC, without summer time
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def completed(shell, line):
    with provisionalcompleter():
        return [found.text for found in shell.Completer.completions(line, len(line))]


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
    assert repr(Sessions(runs, at_s + 60)).splitlines() == [
        "Session     State                               Done  Failed  Started              Took",
        "now         running in process 7 on host  500 of 500       3  11:07            1 m 48 s",
        "last night  completed                            500       3  yesterday 11:07      42 s",
        "before      failed                        497 of 500          27 Nov 11:07     2 h 05 m",
        "old         completed                     500 of 500       3  26 Oct 2025         0.0 s",
    ]


def test_cost_and_reason_are_shown_where_there_are_any():
    table = repr(Sessions([run(usd=0.0412, reason="the service gave up: " + 80 * "x", state="rolled_back")], NOW_S))
    assert table.splitlines()[0].split() == [
        "Session", "State", "Done", "Failed", "Started", "Took", "Cost", "Reason",
    ]  # fmt: skip
    assert "rolled back" in table
    assert "$0.0412  the service gave up: xxx" in table
    assert table.endswith("x\N{HORIZONTAL ELLIPSIS}")


def test_the_table_shows_the_latest_and_text_as_text():
    """Thousands of runs are no table to read, and a name is no markup."""
    told = Sessions([run(f"run {number}") for number in range(SHOWN + 1200)] + [run("<b>bold</b>")], NOW_S)
    assert len(repr(told).splitlines()) == SHOWN + 2
    assert repr(told).endswith("\n1,201 earlier ones: ipybatch.history()")
    page = told._repr_html_()
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>" not in page
    assert page.count("<tr>") == SHOWN + 1
    # Without a style sheet, too: it is taken from a notebook that is not trusted.
    assert '<td style="text-align:left">&lt;b&gt;bold&lt;/b&gt;</td>' in page
    assert '<th style="text-align:right">Took</th>' in page
    assert repr(Sessions([], NOW_S)) == "No session is recorded yet."
    assert Sessions([], NOW_S)._repr_html_() == "<p>No session is recorded yet.</p>"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("wishlst", "no such session: wishlst; near: wishlist"),
        ("WISH", "no such session: WISH; near: wishlist, wish for more"),
        ("by sit", "no such session: by sit; near: demand by site"),
        ("zzz", "no such session: zzz; %ipybatch lists them"),
        ("a\x1b[31m\nb", "no such session: a b; %ipybatch lists them"),
    ],
)
def test_a_name_that_is_not_there_is_answered_in_a_line(name, line):
    runs = [run("demand by site"), run("wish for more"), run("wishlist")]
    assert missing(name, runs) == line
    assert missing("x", []) == "no such session: x; none is recorded"


@pytest.mark.parametrize(
    ("line", "symbol", "found"),
    [
        ("%ipybatch ", "", ["wishlist", "demand by site", "demand by part"]),
        ("%ipybatch wi", "wi", ["wishlist"]),
        ("ipybatch de", "de", ["demand by site", "demand by part"]),
        ("%ipybatch demand by s", "s", ["site"]),
        ("%ipybatch demand by ", "", ["site", "part"]),
        ("%ipybatch nothing", "nothing", []),
    ],
)
def test_tab_completes_names(line, symbol, found):
    """The latest first, and one of several words from the word on that is typed."""
    assert completions(line, symbol, [run("demand by part"), run("demand by site"), run("wishlist")]) == found


def test_the_magic_in_a_shell(shell, journal, capsys, monkeypatch):
    """It lists, opens, completes, and says in one line what is not there."""
    assert repr(shell.run_line_magic("ipybatch", "")) == "No session is recorded yet."
    BatchSession("wishlist", Recorder(), [1, 2], journal=journal).run()
    assert "wishlist  completed  2 of 2" in repr(shell.run_line_magic("ipybatch", ""))
    assert shell.run_line_magic("ipybatch", " wishlist ").name == "wishlist"
    assert "wishlist" in completed(shell, "%ipybatch wi")
    capsys.readouterr()
    assert shell.run_line_magic("ipybatch", "wishlits") is None
    assert capsys.readouterr() == ("no such session: wishlits; near: wishlist\n", "")


def test_a_journal_that_cannot_be_read_is_told_in_a_line(shell, journal, capsys):
    journal.write_bytes(b"no database at all" * 100)
    assert shell.run_line_magic("ipybatch", "") is None
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert not err
    assert "wishlist" not in completed(shell, "%ipybatch wi")


def test_dollars_and_other_scripts_stay_as_they_are_beside_others():
    """A notebook renders what stands between two dollars as a formula; a name in Hebrew turns its row around."""
    name = "\u05e9\u05dc\u05d5\u05dd"
    table = Sessions([run(name=name, reason="of $5.00 $4.99 are spent", usd=4.99)], NOW_S)
    assert "$" not in table._repr_html_().replace("<span>$</span>", "")
    assert f"<bdi>{name}</bdi>" in table._repr_html_()
    assert f"\u2068{name}\u2069 " in repr(table)
    assert f"\u2068{name}\u2069" in missing(name, [])
    assert missing("\x1b[31mred", []).startswith("no such session: red;")


def test_a_long_name_leaves_room_for_the_rest():
    """It may have 200 characters; whole in a title, and for Tab."""
    name = "night of " + "x" * 190
    table = Sessions([run(name=name), run()], NOW_S)
    assert max(map(len, repr(table).splitlines())) < 130
    assert f'title="{name}"' in table._repr_html_()
    assert name not in table._repr_html_().replace(f'title="{name}"', "")
    assert completions("%ipybatch night", "night", [run(name=name)]) == [name]
