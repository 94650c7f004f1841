"""Magics: what `%ipybatch` answers, in an IPython shell of its own."""

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

from ipybatch import BatchSession
from ipybatch.jupyter.magics import completions, missing
from tests.jupyter.runs import run
from tests.works import Gate, Recorder


@pytest.fixture
def shell(journal, monkeypatch):
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(journal))
    InteractiveShell.clear_instance()
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "ipybatch")
    return shell


def completed(shell, line):
    with provisionalcompleter():
        return [found.text for found in shell.Completer.completions(line, len(line))]


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


def refused(shell, capsys, cell):
    """Run a cell that fails, and return the one line that it shows."""
    capsys.readouterr()
    assert not shell.run_cell(cell).success
    out, err = capsys.readouterr()
    assert (out + err).count("\n") == 1
    return out + err


def test_the_magic_in_a_shell(shell, journal, capsys, monkeypatch):
    """It lists, opens, completes, and says in one line what is not there."""
    assert repr(shell.run_line_magic("ipybatch", "")) == "No session is recorded yet."
    BatchSession("wishlist", Recorder(), [1, 2], journal=journal).run()
    assert "wishlist  completed  2 of 2" in repr(shell.run_line_magic("ipybatch", ""))
    assert shell.run_line_magic("ipybatch", " wishlist ").name == "wishlist"
    assert "wishlist" in completed(shell, "%ipybatch wi")
    assert refused(shell, capsys, "%ipybatch wishlits") == "InputError: no such session: wishlits; near: wishlist\n"


def test_a_journal_that_cannot_be_read_is_told_in_a_line(shell, journal, capsys):
    journal.write_bytes(b"no database at all" * 100)
    assert refused(shell, capsys, "%ipybatch").startswith("JournalCorrupt: ")
    assert "wishlist" not in completed(shell, "%ipybatch wi")


@pytest.mark.parametrize(
    ("line", "symbol", "found"),
    [
        ("%ipybatch ", "", ["list", "open", "pause", "resume", "cancel", "wishlist", "open shop"]),
        ("%ipybatch pa", "pa", ["pause"]),
        ("%ipybatch pause wi", "wi", ["wishlist"]),
        ("%ipybatch open ", "", ["shop", "wishlist", "open shop"]),
        ("%ipybatch cancel open s", "s", ["shop"]),
    ],
)
def test_tab_completes_verbs_and_then_names(line, symbol, found):
    assert completions(line, symbol, [run("open shop"), run("wishlist")]) == found


def test_a_name_that_reads_like_a_verb_is_reached(shell, journal):
    """A name is a name first, and `open` reaches what is named like a verb."""
    for name in ("list", "open shop", "pause"):
        BatchSession(name, Recorder(), [1], journal=journal).run()
    assert repr(shell.run_line_magic("ipybatch", "list")).startswith("Session")
    assert shell.run_line_magic("ipybatch", "open list").name == "list"
    assert shell.run_line_magic("ipybatch", "open shop").name == "open shop"
    assert shell.run_line_magic("ipybatch", "pause").name == "pause"
    BatchSession("shop", Recorder(), [1], journal=journal).run()
    assert shell.run_line_magic("ipybatch", "open shop").name == "shop"
    assert shell.run_line_magic("ipybatch", "open 'open shop'").name == "open shop"


def test_verbs_command_a_session(shell, journal, capsys):
    """Each is answered in a line; what has ended has nothing to pause."""
    gate = Gate()
    session = BatchSession("wishlist", gate, range(4), journal=journal)
    session.start()

    def said(line):
        capsys.readouterr()
        assert shell.run_line_magic("ipybatch", line) is None
        return capsys.readouterr().out

    assert said("pause wishlist") == "wishlist: paused\n"
    assert session.state == "paused"
    assert said("resume 'wishlist'") == "wishlist: running\n"
    assert session.state == "running"
    assert said("cancel wishlist") == "wishlist: cancelled\n"
    assert session.state == "cancelled"
    assert said("pause wishlist") == "wishlist has ended: cancelled; there is nothing to pause\n"
    assert "pass work= to go on" in refused(shell, capsys, "%ipybatch resume wishlist")
    assert "cancel needs the name of a session: %ipybatch cancel NAME" in refused(shell, capsys, "%ipybatch cancel")
    assert "no such session: wishlits; near: wishlist" in refused(shell, capsys, "%ipybatch pause wishlits")
    session.retry_failed()
    gate.open()
    session.run()
    assert said("resume wishlist") == "wishlist has completed; there is nothing to resume\n"
