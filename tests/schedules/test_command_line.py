"""``python -m ipybatch schedule``: what it says, and what it exits with."""

import json
import sys

import pytest

from ipybatch.__main__ import main
from tests.schedules.test_schedule import overdue
from tests.server.submitting import add_words

EVERY_NIGHT = ["--template", "words", "--every", "1d", "--at", "22:00", "--zone", "Europe/Berlin"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(tmp_path / "default.db"))
    monkeypatch.setattr("ipybatch.server.templates.TEMPLATES", {})
    add_words()
    (tmp_path / "gate").touch()
    (tmp_path / "params.json").write_text(json.dumps({"gate": str(tmp_path / "gate"), "log": str(tmp_path / "log")}))
    return tmp_path


@pytest.fixture
def run(capfdbinary):
    """Run a command line; return its exit code, what it prints, and what it says on standard error."""

    def run(*arguments):
        try:
            code = main(["schedule", *(str(argument) for argument in arguments)])
        except SystemExit as exit_:
            code = exit_.code
        sys.stdout.flush()
        told = capfdbinary.readouterr()
        return code, told.out.decode(), told.err.decode()

    return run


def add(run, place, name="night", requests='["one"]', *more):
    return run("add", name, *EVERY_NIGHT, "--requests", requests, "--params", f"@{place / 'params.json'}", *more)


def test_a_life(run, place):
    assert run("list") == (0, "no schedules\n", "")
    code, out, _ = add(run, place)
    assert (code, out[:12], out[-23:]) == (0, "night: next ", " 22:00 (Europe/Berlin)\n")
    code, out, _ = run("list")
    assert out.splitlines()[0].split() == ["name", "state", "when", "zone", "next", "last", "last_state"]
    assert out.splitlines()[1].startswith("night  waiting  every 1d at 22:00  Europe/Berlin  ")
    assert len(run("next", "night")[1].splitlines()) == 5
    assert run("pause", "night") == (0, "night: paused\n", "")
    assert run("resume", "night")[1].startswith("night: next ")
    assert run("run-now", "night")[1].endswith(": PENDING\n")
    code, out, err = run("run-due", "--json")
    assert (code, json.loads(out)[0]["state"]) == (0, "COMPLETED")
    assert "1 of 1 done" in err
    (told,) = json.loads(run("list", "--json")[1])
    assert (told["last_state"], told["next"][11:16]) == ("COMPLETED", "22:00")
    assert run("remove", "night") == (0, "night: removed\n", "")


def test_a_question(run, place):
    add(run, place, "night", '["one"]', "--misfire", "ask")
    overdue()
    assert run("run-due")[0] == 0
    assert "night: 1,000 times or more, " in run("list")[1]
    assert run("answer", "night", "skip")[1].startswith("night: next ")


def test_what_did_not_complete(run, place):
    run("add", "night", *EVERY_NIGHT, "--requests", '["one"]')  # without a parameter that its session needs
    run("run-now", "night")
    code, out, err = run("run-due")
    assert (code, "FAILED" in out) == (1, True)
    assert "1 of 1 runs did not complete: night 20" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["add", "n", *EVERY_NIGHT, "--requests", "[1"], 1, "--requests must be JSON"),
        (["add", "n", *EVERY_NIGHT, "--requests", "@nowhere.json"], 1, "nowhere.json: No such file"),
        (["add", "n", "--template", "words", "--requests", '["a"]', "--cron", "0 22"], 1, "five fields"),
        (["add", "n", *EVERY_NIGHT], 1, "requests must be a list of 1 to 20"),
        (["pause", "n"], 1, "there is no schedule 'n'"),
        (["answer", "n", "maybe"], 2, "invalid choice"),
        ([], 2, "ACTION"),
    ],
)
def test_what_is_wrong_is_said(run, arguments, code, said):
    told = run(*arguments)
    assert told[0] == code
    assert said in told[2]
