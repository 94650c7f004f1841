"""Cell magic: `%%ipybatch` over a cell that defines the work, in an IPython shell of its own."""

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

from ipybatch import BatchSession, InputError, Limits, Rate, Retry
from ipybatch.jupyter.cell_magic import read_line, split
from tests.works import Gate

WORK = "async def work(item):\n    return item * factor\n"


@pytest.fixture
def shell(journal, monkeypatch):
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(journal))
    InteractiveShell.clear_instance()
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "ipybatch")
    shell.user_ns.update(factor=10, numbers=[1, 2, 3])
    return shell


def test_the_line_says_what_the_session_takes():
    read = read_line(
        "'night of games' items=f(x, key='a b') concurrency=5 rate=40/2s rate=60000tokens/1m spacing=500ms"
        " attempts=2 timeout=1.5m on_failure=stop resource=api fresh"
    )
    assert read.name == "night of games"
    assert read.items == "f(x, key='a b')"
    assert read.arguments == {
        "limits": Limits(concurrency=5, spacing_s=0.5, rates=[Rate(40, 2), Rate(60_000, 60, "tokens")]),
        "retry": Retry(attempts=2),
        "timeout_s": 90.0,
        "on_failure": "stop",
        "resource": "api",
        "fresh": True,
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("a  b", ["a", "b"]),
        ("a items=[1, 2]  x", ["a", "items=[1, 2]", "x"]),
        ("""a items=d["two words"]['b c']""", ["a", """items=d["two words"]['b c']"""]),
        ("a items='(' b", ["a", "items='('", "b"]),
    ],
)
def test_blanks_in_quotes_and_brackets_part_no_words(line, words):
    assert split(line) == words


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "the line must begin with the name of the session: %%ipybatch wishlist items=app_ids"),
        ("concurrency=5", "the line must begin with the name"),
        ("a concurency=5", "there is no option 'concurency': did you mean concurrency?"),
        ("a b", "there is no option 'b': there are items, concurrency, rate"),
        ("two words items=x", "quote a name of several words"),
        ("a rate", "rate needs a value, as in rate=..."),
        ("a rate=40", "rate must be a number in a time, such as rate=40/2s, 200/5m or 60000tokens/1m, got '40'"),
        ("a rate=0/2s", "limit must be >= 1, got 0"),
        ("a timeout=soon", "timeout must be a duration, such as timeout=30s, 500ms or 5m, got 'soon'"),
        ("a concurrency=many", "concurrency must be a whole number, such as concurrency=5, got 'many'"),
        ("a concurrency=0", "concurrency must be a whole number >= 1, got 0"),
        ("a timeout=1 timeout=2", "timeout must be given once, got timeout='2' as well"),
        ("a items=", "items must be a text, got nothing"),
        ("a items=f(1", "the line cannot be read: ) is missing at its end"),
    ],
)
def test_a_line_that_cannot_be_is_answered_in_a_line(line, said):
    with pytest.raises(InputError) as error:
        read_line(line)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_cell_defines_the_work_and_running_it_again_continues(shell):
    """In the notebook's own names; what has its outcome is not run again, and the function stays usable."""
    session = shell.run_cell_magic("ipybatch", "tens items=numbers concurrency=2", WORK)
    assert session.run().counts.completed == 3
    assert session.results()["result"].tolist() == [10, 20, 30]
    shell.user_ns["numbers"] += [4]
    shell.user_ns["factor"] = 100
    session = shell.run_cell_magic("ipybatch", "tens items=numbers", WORK)
    session.run()
    assert session.results()["result"].tolist() == [10, 20, 30, 400]
    assert shell.user_ns["work"].__name__ == "work"


def test_the_cell_may_have_the_items_and_plain_work(shell):
    cell = "try:\n    items = [n + 1 for n in numbers]\nexcept OSError:\n    pass\ndef work(item):\n    return item\n"
    session = shell.run_cell_magic("ipybatch", "plain", cell)
    session.run()
    assert session.results()["result"].tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("line", "cell", "said"),
    [
        ("a", "\n", "the cell must define work, such as"),
        ("a items=numbers", "def wrok(item): ...\n", "the cell must define work: a function of one item"),
        ("a", WORK, "items are missing: name them in the line"),
        ("a items=nowhere", WORK, "items='nowhere' cannot be evaluated: NameError: name 'nowhere' is not defined"),
        ("a items=numbers", "def work(): ...\n", "work must take one item"),
        ("a items=numbers", "work = 3\n", "work must be a function of one item"),
        ("a items=7", WORK, "items must be a list or a generator, got 7"),
        ("a items=numbers", f"{WORK}await work(1)\n", "the cell must not await outside its functions"),
        ("a itmes=numbers", "1 / 0\n", "there is no option 'itmes': did you mean items?"),
    ],
)
def test_what_cannot_run_is_told_in_a_line(shell, capsys, line, cell, said):
    """The cell has failed; nothing is on record afterwards, and no traceback is shown."""
    assert not shell.run_cell(f"%%ipybatch {line}\n{cell}").success
    told = "".join(capsys.readouterr())
    assert said in told
    assert told.count("\n") == 1
    assert repr(shell.run_line_magic("ipybatch", "")) == "No session is recorded yet."


@pytest.mark.parametrize(
    ("cell", "said"), [("def work(item)\n", "SyntaxError"), (f"{WORK}1 / 0\n", "ZeroDivisionError")]
)
def test_an_error_of_the_cell_is_shown_as_that_of_any_cell(shell, capsys, cell, said):
    assert not shell.run_cell(f"%%ipybatch a items=numbers\n{cell}").success
    told = "".join(capsys.readouterr())
    assert said in told
    assert told.endswith("InputError: no session was started: the cell failed, as is shown above\n")
    assert repr(shell.run_line_magic("ipybatch", "")) == "No session is recorded yet."


def test_a_cell_that_is_run_again_shows_what_runs(shell, journal):
    gate = Gate()
    running = BatchSession("slow", gate, [1, 2, 3], journal=journal)
    running.start()
    gate.wait_begun(3)
    assert shell.run_cell_magic("ipybatch", "slow items=numbers", WORK) is running
    assert running.notes[-1] == "it runs already: cancel it to go on with a changed cell"
    gate.open()
    running.run()


def test_tab_completes_options(shell):
    with provisionalcompleter():
        line = "%%ipybatch wishlist conc"
        found = [option.text for option in shell.Completer.completions(line, len(line))]
    assert "concurrency=" in found


def test_its_help_tells_what_there_is(shell):
    told = shell.find_line_magic("ipybatch").__doc__
    assert "%ipybatch pause NAME" in told
    assert "%%ipybatch wishlist items=app_ids concurrency=5 rate=40/2s" in told
