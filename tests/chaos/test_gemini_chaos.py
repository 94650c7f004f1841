"""Kill -9 at each point of a batch submission: one job, never two, and its results are complete after a restart."""

import os
import subprocess
import sys
import time

import pytest

from ipybatch.testing import KILL_VARIABLE
from tests.chaos.rounds import ROOT
from tests.gemini.stories import KEY, gemini

VICTIM = """
import sys
from ipybatch.gemini.batch.manual import GeminiBatches
from ipybatch.testing import kill_points

url, journal, grace_s, *gives_up = sys.argv[1:]
prompts = [f"Name star {number}" for number in range(6)]
at = GeminiBatches("SIMULATED", url, journal=journal, grace_s=float(grace_s))
with kill_points():
    if gives_up:
        at.forget(gives_up[0])
    name = at.create_text(prompts, model="gemini-2.5-flash")
    print(name, at.history().state[0], flush=True)
    if at.wait(name, poll_s=0.05, wait_s=10 if at.history().remote[0] else 0).state[0] == "succeeded":
        print((at.results(name).status == "completed").sum(), flush=True)
at.close()
"""


class Victim:
    def __init__(self, service, journal):
        self._service, self._journal = service, journal

    def begin(self, *, kill_at="", grace_s=0.5, gives_up=()):
        environment = {**os.environ, KILL_VARIABLE: kill_at}
        command = [sys.executable, "-c", VICTIM, self._service.url, str(self._journal), str(grace_s), *gives_up]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)

    def run(self, **options):
        """Run it to its end and return its status and what it said."""
        with self.begin(**options) as process:
            said, _ = process.communicate(timeout=60)
        return process.returncode, said.split()


@pytest.mark.parametrize(
    "kill_at",
    [pytest.param(at, marks=pytest.mark.chaos) for at in ("before:1", "after:1", "after:2", "before:3", "after:4")]
    + ["before:4"],  # the service has taken the job, and nothing here says so
)
def test_a_kill_at_any_commit_of_a_submission_leaves_one_job(tmp_path, kill_at):
    """The intent, its file, the mark that it leaves, the service's answer: the next run makes it whole."""
    with gemini(batch_delay_s=0.1) as service:
        victim = Victim(service, tmp_path / "journal.db")
        assert victim.run(kill_at=kill_at)[0] == -9
        assert service.jobs == (1 if kill_at.endswith("4") else 0)
        returncode, said = victim.run()
        assert (returncode, said[-1]) == (0, "6")
        assert service.jobs == 1
        assert service.submitted_twice == service.truth()["billed_twice"] == []


@pytest.mark.chaos
def test_a_kill_while_the_service_has_it_and_has_not_answered_leaves_one_job(tmp_path):
    with gemini(batch_delay_s=0.1, create_faults=["hang_after"]) as service:
        victim = Victim(service, tmp_path / "journal.db")
        with victim.begin() as process:
            until_s = time.monotonic() + 30
            while not service.jobs:
                assert time.monotonic() < until_s
                time.sleep(0.01)  # the other process needs the core
            process.kill()
        returncode, said = victim.run()
        assert (returncode, said[-1]) == (0, "6")
        assert service.jobs == 1


@pytest.mark.chaos
def test_a_kill_just_before_it_leaves_is_told_and_waits_for_a_word(tmp_path):
    """Nobody can know whether it left: it is unknown, and sent again only when the user gives it up."""
    with gemini(batch_delay_s=0.1) as service:
        victim = Victim(service, tmp_path / "journal.db")
        assert victim.run(kill_at="after:3")[0] == -9
        for _ in range(2):
            returncode, (name, state) = victim.run()
            assert (returncode, state) == (0, "unknown")
        assert service.jobs == 0
        returncode, said = victim.run(gives_up=[name])
        assert (returncode, said[-1]) == (0, "6")
        assert service.jobs == 1


@pytest.mark.chaos
@pytest.mark.parametrize("fault", ["drop_after", "503_after", "html_after", "truncated_after"])
@pytest.mark.parametrize("kill_at", ["after:2", "before:4", "after:4"])
def test_a_kill_and_a_bad_answer_leave_one_job(tmp_path, fault, kill_at):
    with gemini(batch_delay_s=0.1, create_faults=[fault]) as service:
        victim = Victim(service, tmp_path / "journal.db")
        assert victim.run(kill_at=kill_at)[0] == -9
        returncode, said = victim.run()
        assert (returncode, said[-1]) == (0, "6")
        assert service.jobs == 1


@pytest.mark.chaos
def test_no_process_tells_the_key(tmp_path):
    with gemini(batch_delay_s=0.1) as service:
        victim = Victim(service, tmp_path / "journal.db")
        assert victim.run(kill_at="before:4")[0] == -9
        said = victim.run()[1]
        kept = b"".join(path.read_bytes() for path in tmp_path.glob("journal.db*"))
        assert KEY.encode() not in kept
        assert KEY not in str(said)
