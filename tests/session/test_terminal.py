"""Terminal: a progress line where there is a terminal, a line per item where it is asked for, nothing elsewhere."""

import datetime as dt
import threading

import pytest

from ipybatch import InputError, Limits, secret
from ipybatch.engine.data import events, masking
from ipybatch.engine.feed.event_text import line_of
from ipybatch.session.waiting import in_notebook, show_progress


def fetch(item):
    if item == 2:
        raise ValueError("no such game")
    return item


def test_no_terminal_no_progress(live, capsys):
    """Output that goes to a file or a pipe holds the script's own lines only."""
    live(fetch, [1]).run()
    assert capsys.readouterr() == ("", "")


def test_verbose_writes_a_line_per_item(live, capsys):
    live(fetch, [1, 2], limits=Limits(concurrency=1), verbose=True).run()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("wishlist: 1 completed in 0.0")
    assert lines[1].startswith("wishlist: 2 failed in ")
    assert lines[1].endswith(": ValueError: no such game")
    assert lines[-1] == "wishlist: completed"


def test_verbose_of_run_wins_over_that_of_the_session(live, capsys):
    live(fetch, [1], verbose=True).run(verbose=False)
    assert capsys.readouterr().err == ""
    live(fetch, [1], name="other").run(verbose=True)
    assert "1 completed" in capsys.readouterr().err


def test_a_terminal_gets_one_progress_line(live, capsys, monkeypatch):
    """A bar on standard error, with name, counts and what failed; standard output stays the script's."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)

    def fetch_when_shown(item):
        while not session._feed._listeners:
            threading.Event().wait(0.01)
        return fetch(item)

    session = live(fetch_when_shown, [1, 2, 3], limits=Limits(concurrency=1))
    session.run()
    out, err = capsys.readouterr()
    last = err.rstrip().rsplit("\r", 1)[-1]
    assert out == ""
    assert "wishlist: 100%" in last
    assert "3/3" in last
    assert "1 failed" in last


def test_a_bar_that_goes_on_starts_where_it_was(live, capsys, monkeypatch):
    live(fetch, [1, 3]).run()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    live(fetch, [1, 3, 4]).run()
    assert "3/3" in capsys.readouterr().err


def test_a_bar_tells_what_a_session_waits_for(plan, clock, capsys, monkeypatch):
    """Its start, until it has come; and its hours."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    start = dt.datetime.fromtimestamp(clock.unix_s() + 7200, dt.UTC)

    async def work(item):
        return item

    session = plan(work, [1, 2], start_at=start, limits=Limits(zone="UTC"))

    async def look():
        with show_progress(session, verbose=False):
            await session

    clock.run_coroutine(look())
    shown = capsys.readouterr().err.split("\r")
    assert any(f"0/2 [00:00<?, ?item/s, it starts at {start:%H:%M}" in line for line in shown)
    assert "it starts at" not in shown[-1]
    assert "2/2" in shown[-1]


def test_a_script_is_no_notebook():
    assert not in_notebook()


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (events.AttemptFailed(0, "7", 0, 1, "503", 2.5), "7 attempt 1 failed, again in 2.5 s: 503"),
        (events.BreakerMoved(0, "open", 3, 1, 60), "breaker open after 3 failures in a row"),
        (events.BreakerMoved(0, "half_open", 3, 1, 0), "breaker half-open after 3 failures in a row"),
        (events.BreakerMoved(0, "closed", 0, 0, 0), ""),
        (events.CooledDown(10, 40, "slow down"), "cooling down for 30.0 s: slow down"),
        (events.Noted(0, "something"), "something"),
        (events.StateChanged(0, "failed", "budget"), "failed: budget"),
        (events.Drawn(0), ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_event_is_one_line_or_none(event, line):
    assert line_of(event) == line


HOSTILE = "a\x1b]0;title\x07b\x9b31m\u202ec\x08"  # what a terminal, or a reader, would be fooled by


def test_keys_and_errors_are_shown_as_given_without_what_acts_on_a_terminal(live, capsys):
    """A key with a backslash or quotes reads as it was given; escape codes reach no terminal, overrides are named."""
    keys = ["C:\\games\\xcom", 'say "hi" twice', HOSTILE, "two\nlines"]

    def work(item):
        raise ValueError(HOSTILE)

    session = live(work, keys, limits=Limits(concurrency=1), breaker=None)
    session.note(HOSTILE)
    session.run(verbose=True)
    told = capsys.readouterr().err
    assert [line.split(" failed")[0] for line in told.splitlines()[:4]] == [
        "wishlist: C:\\games\\xcom",
        'wishlist: say "hi" twice',
        "wishlist: ab<U+202E>c",
        "wishlist: two lines",
    ]
    recorded = [item.key for item in session.items_of(0)[1]]
    assert recorded == ["C:\\games\\xcom", 'say "hi" twice', "ab<U+202E>c", "two lines"]
    shown = [told.replace("\n", ""), *recorded, *session.snapshot.notes, *session.results()["error"]]
    assert [text for text in shown if not text.isprintable()] == []
    assert session.results()["key"].tolist() == keys


def test_group_names_are_shown_without_what_acts_on_a_terminal_and_without_secrets(live, monkeypatch):
    """What the work says of its groups, and what `per=` calls them: names of files and sites, say."""
    monkeypatch.setattr(masking, "_secrets", ())
    secret("topsecret99")
    name = f"topsecret99{HOSTILE}"

    def work(item):
        session.tell(events.GroupStarted(0.0, 1, name, 1, {name: name, "rows": 2}))
        session.tell(events.GroupChanged(0.0, 1, "failed", {}, error=name))

    session = live(work, [1], limits=Limits(each=Limits()), per=lambda item: name)
    groups = []
    session.on("done", lambda event: groups.extend(session.live_status.limit_groups))
    session.run()
    (group,) = session.snapshot.groups.values()
    assert (group.name, group.error, group.extra) == (
        *["***ab<U+202E>c"] * 2,
        {"***ab<U+202E>c": "***ab<U+202E>c", "rows": 2},
    )
    assert [group.name for group in groups] == ["***ab<U+202E>c"]


@pytest.mark.parametrize("field", ["name", "resource", "group_word"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        *(
            (name, "have no control characters")
            for name in (HOSTILE, "two\nlines", "tab\there", "\x07", "\u202ea", "\0")
        ),
        *((name, "be a text that UTF-8 can hold") for name in ("\ud800", "bad\udce9name")),
        *((name, "be a text of 1 to 200 characters") for name in (5, ["x"], "", " ", "x" * 201, b"x")),
    ],
    ids=repr,
)
def test_a_name_that_cannot_be_kept_or_acts_on_a_terminal_is_refused(live, journal, field, name, words):
    with pytest.raises(InputError, match=f"{field} must {words}.*, got "):
        live(fetch, [1], **{field: name})
    assert not journal.exists()


@pytest.mark.parametrize("verbose", [True, False])
def test_a_program_without_standard_error_runs_all_the_same(live, monkeypatch, verbose):
    """sys.stderr is None under pythonw and in some services; it may also go while a session runs."""
    monkeypatch.setattr("sys.stderr", None)
    assert live(fetch, [1, 2]).run(verbose=verbose).counts.completed == 1


def test_standard_error_may_go_while_a_session_runs(live, monkeypatch, capsys):
    def work(item):
        monkeypatch.setattr("sys.stderr", None)
        return item

    assert live(work, [1, 2]).run(verbose=True).counts.completed == 2
