"""Kill -9 of a whole session at each point of its batch jobs: a new process with the same call makes it whole."""

import itertools
import json
import os
import sqlite3
import subprocess
import sys
import time

import pytest

from ipybatch.testing import KILL_VARIABLE
from tests.chaos.rounds import ROOT
from tests.gemini.nights import night_service
from tests.gemini.stories import gemini
from tests.gemini.test_statement import check_killed_batch, check_killed_calls

pytestmark = pytest.mark.chaos
PROMPTS = 12
VICTIM = """
import json, sys
from ipybatch.gemini import generate
from ipybatch.gemini.batch import submission
from ipybatch.testing import kill_points
from tests.benchmarks.memory import MB, peak

url, journal, options = sys.argv[1:]
options = json.loads(options)
submission.Submission.__init__.__kwdefaults__["grace_s"] = options.pop("grace_s", 1.0)
prompts = [f"Name star {number}" for number in range(options.pop("prompts"))]
with kill_points():
    where = {"api_key": "SIMULATED", "base_url": url, "journal": journal}
    session = generate(prompts, lane="batch", name="night", **where, **options)
    print(session.run())
    print(int(peak() / MB))
    results = session.results()
    answered = zip(results.key, results.get("text", []))
    print(sum(str(text).startswith(f"On {key}: ") for key, text in answered))
"""


class Night:
    """A session's journal and service, and one process after another between them."""

    def __init__(self, service, journal, **options):
        self.service, self.journal = service, journal
        self.options = {"prompts": PROMPTS, "max_requests_per_job": 5, "poll_s": 0.05, **options}

    def begin(self, kill_at="", **options):
        environment = {**os.environ, KILL_VARIABLE: kill_at}
        given = json.dumps({**self.options, **options})
        command = [sys.executable, "-W", "ignore", "-c", VICTIM, self.service.url, str(self.journal), given]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)

    def run(self, kill_at="", **options):
        """Run a process to its end; return its status, its summary, its peak in MB, and the answers that are right."""
        with self.begin(kill_at, **options) as process:
            said, _ = process.communicate(timeout=120)
        return process.returncode, *said.splitlines()

    def kill_when(self, reached, **options):
        with self.begin(**options) as process:
            wait_until(reached)
            process.kill()
        assert process.returncode == -9

    def recorded(self):
        with sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True) as database:
            try:
                (count,) = database.execute("SELECT count(*) FROM item WHERE status = 'completed'").fetchone()
            except sqlite3.OperationalError:  # killed before the first table
                count = 0
        database.close()
        return count

    def check_whole(self, jobs, **options):
        """Go on without a kill: every prompt has its answer, and none was submitted or billed twice."""
        returncode, summary, _, right = self.run(**options)
        whole = f"night completed: {PROMPTS}/{PROMPTS} successful, 0 failed, 0 skipped"
        assert (returncode, summary, right) == (0, whole, str(PROMPTS))
        self.check_once(PROMPTS)
        assert self.service.jobs == jobs

    def check_once(self, generations):
        truth = self.service.truth()
        assert truth["submitted_twice"] == truth["billed_twice"] == []
        assert truth["billed"]["batch"]["generations"] == generations


def wait_until(reached):
    until_s = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < until_s
        time.sleep(0.01)  # the other process needs the core


def test_a_kill_before_anything_was_submitted(tmp_path):
    with gemini(batch_delay_s=0.1) as service:
        night = Night(service, tmp_path / "journal.db")
        assert night.run("before:5") == (-9,)
        assert service.jobs == 0
        night.check_whole(jobs=3)


def test_a_kill_while_the_service_has_a_job_and_has_not_answered(tmp_path):
    with gemini(batch_delay_s=0.1, create_faults=["hang_after"]) as service:
        night = Night(service, tmp_path / "journal.db", max_active_jobs=1)
        night.kill_when(lambda: service.jobs == 1)
        night.check_whole(jobs=3)


def test_a_kill_while_jobs_run(tmp_path):
    """The next process picks them up by itself, and sends nothing."""
    with gemini(batch_delay_s=2.0) as service:
        night = Night(service, tmp_path / "journal.db")
        night.kill_when(lambda: service.jobs == 3)
        night.check_whole(jobs=3)


def test_a_kill_when_some_results_are_recorded(tmp_path):
    with gemini(batch_delay_s=0.5) as service:
        night = Night(service, tmp_path / "journal.db", max_active_jobs=1)
        night.kill_when(lambda: service.jobs == 2 and night.recorded() == 5)
        night.check_whole(jobs=3)


@pytest.mark.parametrize("failures", [0.0, 0.3])
def test_a_kill_at_any_commit_of_a_night(tmp_path, failures):
    """Between mark and answer nobody knows whether a job was taken: then it is told, and nothing is sent."""
    whole = f"night completed: {PROMPTS}/{PROMPTS} successful, 0 failed, 0 skipped"
    for number in itertools.count(1, 2):
        with gemini(batch_delay_s=0.1, item_failure_rate=failures) as service:
            night = Night(service, tmp_path / f"{number}.db")
            if night.run(f"after:{number}")[0] == 0:
                break
            returncode, summary, _, right = night.run()
            assert returncode == 0
            if summary == whole:
                assert right == str(PROMPTS)
                night.check_once(PROMPTS)
            else:
                assert "It is not sent again by itself" in summary
                assert service.jobs < 3 or failures
                night.check_once(service.truth()["billed"]["batch"]["generations"])
    assert number > 20


def test_ten_thousand_prompts_of_which_some_fail_and_are_sent_again_alone(tmp_path):
    """Three in a hundred: only those are sent again, every answer is beside its prompt, and 300 MB are enough."""
    with gemini(batch_delay_s=0.5, item_failure_rate=0.03, output_tokens=200) as service:
        night = Night(service, tmp_path / "journal.db", prompts=10_000, max_requests_per_job=10_000)
        returncode, summary, peak_mb, right = night.run()
        assert (returncode, right) == (0, "10000")
        assert summary == "night completed: 10000/10000 successful, 0 failed, 0 skipped"
        night.check_once(10_000)
        assert service.jobs <= 5
        assert int(peak_mb) <= 300


@pytest.mark.parametrize("seed", [1, 2])
def test_the_statement_after_fifty_kills_is_the_ledger_of_the_service(tmp_path, seed):
    faults = {"late": 0.2, "cut": 0.2, "shuffled": 0.2}
    with night_service(batch_delay_s=1.0, job_faults=faults, job_looks=1, seed=seed) as service:
        told = check_killed_batch(service, tmp_path / "journal.db", times=50, seed=seed)
        assert told["summary"].startswith("night completed: 40/40")


@pytest.mark.parametrize("lane", ["online", "flex"])
def test_the_budget_holds_through_thirty_kills(tmp_path, lane):
    with night_service(latency_s=0.1) as service:
        check_killed_calls(service, tmp_path / "journal.db", lane, times=30, seed=3)
