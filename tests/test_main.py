"""The command line: what it says, what it exits with, and what it leaves alone."""

import io
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from ipybatch import Limits, templates
from ipybatch.__main__ import main
from ipybatch.engine.run import engine_thread
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store import plan_rows
from ipybatch.server.submission_order import to_order, without_server
from ipybatch.server.submission_store import Submissions
from ipybatch.server.wire import SubmissionRequest
from ipybatch.session import follower
from ipybatch.simulators import serve
from tests.kernels import Kernel

ROOT = Path(__file__).parents[1]
COMMANDS = ["pause", "resume", "cancel"]


async def work(item):
    if item == 3:
        raise ValueError("bad")
    return {"double": f"={item}"}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A user of their own, in a zone of their own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(tmp_path / "default.db"))
    return tmp_path


@pytest.fixture
def run(capfdbinary):
    """Run a command line; return its exit code, what it prints, and what it says on standard error."""

    def run(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = exit_.code
        sys.stdout.flush()
        told = capfdbinary.readouterr()
        return code, told.out.decode(), told.err.decode()

    return run


@pytest.fixture
def night(plan, clock):
    session = plan(work, [1, 2, 3], name="night", limits=Limits(concurrency=1))
    clock.run(session)
    return session


@pytest.fixture
def elsewhere(plan, clock, tmp_path, night):
    """A second journal that has a session of the same name."""
    path = tmp_path / "else where.db"
    clock.run(plan(work, [1], name="night", journal=path))
    yield path
    journals._open_journals.pop(path).close()


def test_list_is_a_table_of_all_sessions(run, night, elsewhere, journal):
    code, told, said = run("list")
    head, first, second = sorted(told.splitlines(), key=lambda line: str(elsewhere) in line)
    assert (code, said) == (0, "")
    assert head.split() == ["name", "state", "done", "failed", "started", "took", "journal"]
    assert re.fullmatch(
        rf"night  completed  3 of 3 +1  \d{{4}}-\d\d-\d\d \d\d:\d\d  0\.0 s  {re.escape(str(journal))}", first
    )
    assert second.endswith(str(elsewhere))
    assert first.index(str(journal)) == second.index(str(elsewhere)) == head.index("journal")


def test_list_of_one_journal(run, night, elsewhere):
    _, told, _ = run("list", "--journal", elsewhere)
    assert len(told.splitlines()) == 2
    assert str(elsewhere) in told


def test_times_are_local(night, journal):
    """The virtual clock's sessions began at a full hour of UTC; in India it was half past."""
    told = [
        subprocess.run(
            [sys.executable, "-m", "ipybatch", "show", "night", "--journal", str(journal)],
            env={**os.environ, "TZ": zone},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for zone in ("UTC", "Asia/Kolkata")
    ]
    utc, kolkata = (re.search(r"started +\S+ \d\d:(\d\d):", text)[1] for text in told)
    assert (int(kolkata) - int(utc)) % 60 == 30


def test_list_as_json(run, night, journal):
    code, told, _ = run("list", "--json")
    (row,) = json.loads(told)
    assert code == 0
    assert row["journal"] == str(journal)
    assert (row["name"], row["state"], row["total"], row["completed"], row["failed"]) == ("night", "completed", 3, 2, 1)
    assert row["usd"] is None
    assert row["started"].endswith("+00:00")


def test_list_of_nothing(run, place):
    assert run("list") == (0, "no sessions\n", "")
    assert run("list", "--json") == (0, "[]\n", "")
    assert list(place.glob("*.db")) == [], "nothing is made"


def test_show_says_how_it_stands_and_why_items_failed(run, night, journal):
    code, told, said = run("show", "night")
    assert (code, said) == (0, "")
    assert told.splitlines()[0] == "night"
    assert re.search(r"^  state +completed$", told, flags=re.MULTILINE)
    assert "  items    3: 2 completed, 1 failed\n" in told
    assert "  1 x failed: ValueError: bad (first: 3)\n" in told
    assert str(journal) in told


def test_show_as_json(run, night):
    _, told, _ = run("show", "night", "--json")
    shown = json.loads(told)
    assert shown["errors"] == [
        {"message": "ValueError: bad", "count": 1, "status": "failed", "scope": "item", "key": 3}
    ]
    assert shown["state"] == "completed"


@pytest.mark.parametrize("command", [*COMMANDS, "show", "results"])
def test_a_name_that_is_nowhere_is_told(run, night, journal, command):
    for where, given in (("", []), (f" in {journal}", ["--journal", journal])):
        code, told, said = run(command, "day", *given)
        assert (code, told) == (1, "")
        assert said == f"ipybatch: no session is called 'day'{where}: python -m ipybatch list shows those there are\n"


@pytest.mark.parametrize("command", [*COMMANDS, "show", "results"])
def test_a_name_in_several_journals_is_asked_about(run, elsewhere, journal, command):
    code, told, said = run(command, "night")
    assert (code, told) == (1, "")
    assert "session 'night' is in 2 journals: say which by --journal " in said
    assert f"--journal {journal}" in said
    assert f"--journal '{elsewhere}'" in said, "as a shell takes it"
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_what_has_ended_cannot_be_commanded(run, night, command):
    assert run(command, "night") == (
        1,
        "",
        f"ipybatch: session 'night' has ended: completed; there is nothing to {command}\n",
    )


@pytest.mark.parametrize("command", [*COMMANDS, "show"])
def test_what_its_process_left_is_told_with_how_to_go_on(run, night, journal, command):
    with closing(sqlite3.connect(journal, isolation_level=None)) as database:
        database.execute("UPDATE run SET state = 'running', owner = 'host/1/dead', total = 5")
    code, told, said = run(command, "night")
    assert code == (0 if command == "show" else 1)
    assert "interrupted" in told + said
    assert f"BatchSession.open('night', work=..., journal={str(journal)!r}) goes on; 2 items are left\n" in told + said


CELL = """
import asyncio, time
from ipybatch import BatchSession, Limits
async def work(item):
    await asyncio.sleep(60)
session = BatchSession("night", work, [1, 2, 3], journal={!r}, limits=Limits(concurrency=1))
session.start()
said = session.state
"""


def test_a_session_of_another_process_is_commanded(run, journal):
    """Found by its registration, also while a cell blocks its kernel; a stopped one is asked, and says so."""
    kernel = Kernel()
    try:
        assert kernel.run(CELL.format(str(journal))) == "running"
        kernel.begin("time.sleep(60)")
        where = f"in process {kernel.pid} on {socket.gethostname()}"
        assert re.search(rf"^  state +running {where}$", run("show", "night")[1], flags=re.MULTILINE)
        assert run("pause", "night") == (0, "night: paused\n", "")
        assert json.loads(run("list", "--json")[1])[0]["state"] == "paused"
        assert run("resume", "night") == (0, "night: running\n", "")
        kernel.process.send_signal(signal.SIGSTOP)
        assert run("pause", "night")[:2] == (3, f"night: asked to pause; what runs it {where} has not done so yet\n")
        kernel.process.send_signal(signal.SIGCONT)
        assert run("cancel", "night") == (0, "night: cancelled\n", "")
        assert [line.split(",")[1] for line in run("results", "night")[1].splitlines()] == [
            "status",
            *["cancelled"] * 3,
        ]
    finally:
        kernel.kill()


def test_a_session_is_paused_and_goes_on_and_is_cancelled(run, live, gate, monkeypatch):
    for module in (engine_thread, follower):
        monkeypatch.setattr(module, "COMMAND_S", 20.0)  # the machine may be busy for a second
    session = live(gate, [1, 2, 3], name="night", limits=Limits(concurrency=1))
    session.start()
    gate.wait_begun(1)
    assert run("pause", "night") == (0, "night: paused\n", "")
    assert session.state == "paused"
    assert run("pause", "night")[0] == 0
    assert run("resume", "night") == (0, "night: running\n", "")
    assert session.state == "running"
    assert run("cancel", "night") == (0, "night: cancelled\n", "")
    assert session.run().state == "cancelled"  # its journal tells it a moment before


def test_of_several_journals_that_in_which_it_runs_is_meant(run, elsewhere, live, gate):
    session = live(gate, [4, 5, 6], name="night", limits=Limits(concurrency=1))
    session.start()
    gate.wait_begun(1)
    assert run("cancel", "night") == (0, "night: cancelled\n", "")
    assert session.run().state == "cancelled"
    assert "is in 2 journals" in run("cancel", "night")[2]


def test_a_command_reads_no_items(run, live, gate, monkeypatch):
    """However many there are, it is taken within a second."""
    live(gate, [1, 2, 3], name="night", limits=Limits(concurrency=1)).start()
    gate.wait_begun(1)
    monkeypatch.setattr(plan_rows, "read_plan", None)
    assert [run(command, "night")[:2] for command in COMMANDS] == [
        (0, "night: paused\n"),
        (0, "night: running\n"),
        (0, "night: cancelled\n"),
    ]


def test_what_is_only_asked_says_so(run, live):
    """Work that holds the engine keeps it from answering: it cancels when it is free."""
    begun, hold = threading.Event(), threading.Event()

    async def block(item):
        begun.set()
        hold.wait(20)

    session = live(block, [1, 2], name="night", limits=Limits(concurrency=1))
    session.start()
    assert begun.wait(20)
    code, told, _ = run("cancel", "night")
    hold.set()
    assert (code, told) == (3, "night: asked to cancel; what runs it in this kernel has not done so yet\n")
    assert session.run().state == "cancelled"


def test_results_are_csv_that_no_spreadsheet_runs(run, night):
    code, told, said = run("results", "night")
    assert (code, said) == (0, "")
    assert told.splitlines() == [
        "key,status,attempts,seconds,error,double",
        "1,completed,1,0.0,,'=1",
        "2,completed,1,0.0,,'=2",
        "3,failed,1,0.0,ValueError: bad,",
    ]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_results_are_written_to_a_file(run, night, tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    assert run("results", "night", "-o", path) == (0, f"written to {path}\n", "")
    assert path.read_bytes() == night.save(tmp_path / f"again{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["list", "night"], "unrecognized arguments: night"),
        (["pause"], "the following arguments are required: NAME"),
        (["stop", "night"], "invalid choice: 'stop'"),
        (["results", "night", "-o", "out.xlsx"], "must end in .csv, .parquet, .jsonl, got 'out.xlsx'"),
    ],
)
def test_a_wrong_command_line_is_told(run, arguments, told):
    code, _, said = run(*arguments)
    assert code == 2
    assert told in said


def test_a_folder_that_is_not_there_is_told(run, night, tmp_path):
    code, told, said = run("results", "night", "-o", tmp_path / "nowhere" / "out.csv")
    assert (code, told) == (1, "")
    assert re.fullmatch(r"ipybatch: .*nowhere.*: No such file or directory\n", said)


@pytest.mark.parametrize("command", [*COMMANDS, "show", "results", "list"])
@pytest.mark.parametrize(("content", "told"), [(None, "there is no journal"), (b"dear diary", "is damaged")])
def test_a_journal_that_is_none_is_told_and_left_as_it_is(run, tmp_path, command, content, told):
    path = tmp_path / "some.db"
    if content is not None:
        path.write_bytes(content)
    code, out, said = run(*[command, "night"][: 1 + (command != "list")], "--journal", path)
    assert (code, out) == (1, "")
    assert told in said
    assert said.count("\n") == 1
    assert (path.read_bytes() if path.exists() else None) == content


@pytest.mark.parametrize("arguments", ["list", "show night", "results night"])
def test_a_closed_output_is_told(night, journal, arguments):
    line = f"{sys.executable} -m ipybatch {arguments} --journal {journal}"
    done = subprocess.run(
        ["bash", "-c", f"{line} >&-"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, "ipybatch: standard output is closed\n")


def test_a_folder_is_no_journal(run, tmp_path):
    assert run("list", "--journal", tmp_path) == (
        1,
        "",
        f"ipybatch: journal '{tmp_path}' is a folder: name a file in it, with journal= or IPYBATCH_JOURNAL\n",
    )


def test_help_says_what_the_exit_codes_mean(run):
    code, told, _ = run("--help")
    assert code == 0
    for exit_code in ("0", "1", "2", "3", "130", "141"):
        assert re.search(rf"^  {exit_code} ", told, flags=re.MULTILINE)


def test_a_reader_who_leaves_is_left_in_peace(night, journal, plan, clock):
    """As ``head`` does: nothing on standard error."""
    clock.run(plan(work, range(10, 5000), name="long"))
    code = f"{sys.executable} -m ipybatch results long --journal {journal} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["key,status,attempts,seconds,error,double", "141"]


def test_names_are_shown_in_any_terminal(plan, clock, journal):
    clock.run(plan(work, [1], name="nüit 夜"))
    done = subprocess.run(
        [sys.executable, "-m", "ipybatch", "list", "--journal", str(journal)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert r"n\xfcit \u591c" in done.stdout


def test_listing_needs_no_pandas(night, journal):
    """It answers at once."""
    code = "import sys; from ipybatch.__main__ import main; main(); sys.exit('pandas' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "list", "--journal", str(journal)],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_interrupt_ends_it_quietly(run, monkeypatch):
    monkeypatch.setattr("ipybatch.__main__._list", raising(KeyboardInterrupt))
    assert run("list") == (130, "", "")


def raising(error):
    def raise_it(*arguments, **named):
        raise error

    return raise_it


class TestTemplates:
    """`template list`, `show` and `delete`."""

    @pytest.fixture(autouse=True)
    def config(self, place, monkeypatch):
        monkeypatch.setenv("IPYBATCH_CONFIG", str(place / "config"))

    def test_they_are_listed(self, run):
        templates.save("night", templates.Template(based_on="text", description="Mine"))
        templates.path("night").with_name("odd.toml").write_text("x")
        code, out, err = run("template", "list")
        assert (code, err) == (0, "")
        lines = [re.split("  +", line) for line in out.splitlines()]
        assert lines[0] == ["name", "based on", "description"]
        assert lines[1][0] == "character"
        assert ["night", "text", "Mine"] in lines
        assert "odd" in lines[-1][0]
        assert "cannot be used: odd.toml" in out
        told = json.loads(run("template", "list", "--json")[1])
        assert [one["name"] for one in told][-2:] == ["night", "odd"]

    def test_one_is_shown_and_deleted(self, run):
        template = templates.Template(based_on="text", params={"lane": "online", "breaker": None})
        path = templates.save("night", template)
        assert run("template", "show", "night")[1].strip() == path.read_text().strip()
        assert json.loads(run("template", "show", "night", "--json")[1])["params"] == template.params
        assert 'based_on = "text"' in run("template", "show", "text")[1]
        assert run("template", "delete", "night") == (0, "night: deleted\n", "")
        assert not path.exists()

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["show", "nigth"], "there is no template 'nigth'"),
            (["delete", "text"], "ships with ipybatch"),
            (["delete", "../x"], "name must be 1 to 64"),
            (["show"], "NAME must be given"),
        ],
    )
    def test_what_is_not_possible(self, run, arguments, said):
        code, out, err = run("template", *arguments)
        assert (code, out) == (1, "")
        assert said in err


class TestSubmit:
    """`submit TEMPLATE`, and `run` of what it prints."""

    @pytest.fixture(autouse=True)
    def config(self, place, monkeypatch):
        monkeypatch.setenv("IPYBATCH_CONFIG", str(place / "config"))
        monkeypatch.setenv("IPYBATCH_LIBRARY", str(place / "library.sqlite3"))
        with serve("steam") as url:
            monkeypatch.setenv("IPYBATCH_STEAM_BASE_URL", url)
            templates.save("games", templates.Template(based_on="refresh", params={"request_delay_ms": 0}))
            yield

    @pytest.mark.parametrize("text", ["[440, 570]", "440\n\n570\n"])
    def test_it_is_run_by_its_id(self, run, place, text):
        (place / "games.txt").write_text(text)
        code, out, err = run("submit", "games", "-r", place / "games.txt", "--params", '{"force": true}', "--name", "x")
        assert (code, err) == (0, "")
        code, told, err = run("run", out.strip())
        assert (code, err) == (0, "")
        assert "2 of 2 done" in told
        assert run("list")[1].splitlines()[1].split()[:2] == ["x", "completed"]

    def test_it_is_listed_while_it_waits(self, run, place):
        (place / "games.txt").write_text("440\n570")
        submit = ("submit", "games", "-r", place / "games.txt", "--name", "x")
        first = run(*submit)[1].strip()
        head, line = run("list")[1].splitlines()
        assert head.split() == ["name", "state", "done", "journal", "reason"]
        assert line.split() == ["x", "waiting", "0", "of", "2", str(place / "default.db"), "submission", first]
        assert run("run", first)[0] == 0
        later = SubmissionRequest(template="games", name="later", requests=[440, 570], start_at="2090-01-05T12:00:00Z")
        second = Submissions().create(to_order(later, without_server(later))).id
        done, waits = json.loads(run("list", "--json")[1])
        assert (done["name"], done["state"], "submission" in done) == ("x", "completed", False)
        assert waits.keys() - done.keys() == {"submission"}
        assert (waits["name"], waits["state"], waits["total"], waits["started"]) == ("later", "waiting", 2, None)
        assert waits["submission"] == second
        assert f"submission {second}, not before 2090-01-05" in waits["reason"]

    def test_as_many_as_there_are(self, run, monkeypatch):
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(list(range(1, 101)))))
        assert run("submit", "games", "-r", "-")[0] == 0

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["gmaes", "-r", "{place}/some"], "template must be one of character"),
            (["games", "-r", "{place}/none"], "none: No such file or directory"),
            (["games", "-r", "{place}/odd"], "requests must be a JSON list, or a text a line"),
            (["games", "-r", "{place}/some", "--params", '{"cc": "nowhere"}'], "cc must be"),
            (["games", "-r", "{place}/some", "--params", "3"], "it must be a JSON object"),
        ],
    )
    def test_what_is_not_possible(self, run, place, arguments, said):
        (place / "some").write_text("440")
        (place / "odd").write_text("[440")
        code, out, err = run("submit", *(each.replace("{place}", str(place)) for each in arguments))
        assert (code, out) in ((1, ""), (2, ""))
        assert said in err
