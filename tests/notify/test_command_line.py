"""The command line: addresses come from a prompt or standard input, and no argument holds one."""

import io
import subprocess
import sys

import pytest

from ipybatch import BatchSession, notify
from ipybatch.__main__ import main
from ipybatch.notify import command_line, delivery
from tests.notify.receivers import SECRET

MAIL = "mailto://ana:hunter2-pass@mail.example.org"


class Terminal(io.StringIO):
    """Standard input that is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command line with lines on standard input; return its exit code, and what it says."""

    def run(*arguments, given="", terminal=False):
        monkeypatch.setattr(sys, "stdin", Terminal(given) if terminal else io.StringIO(given))
        code = main(["notify", *arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_a_channel_is_kept_listed_and_removed(run):
    code, out, _ = run("add", "team-mail", given=f"{MAIL}\n")
    assert code == 0
    assert "hunter2" not in out
    assert run("list") == (0, "team-mail  mail\n", "")
    assert run("remove", "team-mail") == (0, "team-mail: removed\n", "")
    assert run("list") == (0, "no channels\n", "")


def test_a_webhooks_secret_is_the_second_line(run):
    assert run("add", "hook", given=f"json+https://example.org/in\n{SECRET}\n")[0] == 0
    assert notify.channels() == {"hook": "webhook"}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "must be given at the prompt"),
        ("json+https://example.org/in\n", "must be given"),
        ("x\n", "an address such"),
    ],
)
def test_what_is_missing_is_told(run, given, why):
    code, out, err = run("add", "hook", given=given)
    assert (code, out) == (1, "")
    assert why in err


def test_at_a_terminal_nothing_is_shown(run, monkeypatch):
    asked = []
    monkeypatch.setattr(command_line.getpass, "getpass", lambda prompt: asked.append(prompt) or MAIL)
    assert run("add", "team-mail", terminal=True)[0] == 0
    assert asked == ["Address, such as mailto://user:password@host or json+https://host/path: "]


def test_a_channel_is_tried(run, hook):
    assert run("test", "hook") == (0, "hook: sent\n", "")
    assert hook.requests[0].told["kind"] == "test"
    hook.answers = [(401, {})]
    assert run("test", "hook") == (1, "", "ipybatch: it answered 401\n")
    assert "did you mean 'hook'" in run("test", "hok")[2]


def test_what_is_left_is_delivered_and_listed(run, hook, journal, monkeypatch):
    monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: None)
    assert run("outbox", "--journal", str(journal)) == (0, "no messages\n", "")
    BatchSession("night", str, [1], journal=journal, notify="hook").run()
    hook.answers = [(500, {})]
    assert run("deliver", "--journal", str(journal)) == (0, "", "")
    assert run("outbox", "--journal", str(journal))[1].endswith(
        "night  finished  hook  waiting (1 attempt): it answered 500\n"
    )


def test_all_journals_of_the_user_are_looked_at(run, hook, journal, monkeypatch):
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(journal.with_name("default.db")))
    monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: None)
    BatchSession("night", str, [1], journal=journal, notify="hook").run()
    assert run("deliver") == (0, "1 message sent\n", "")


def test_help_tells_each_action():
    done = subprocess.run(
        [sys.executable, "-m", "ipybatch", "notify", "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    assert all(action in done.stdout for action in command_line._VERBS)
