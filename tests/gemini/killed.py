"""Sessions that are killed at random moments: one process loads all, and a child of it runs each session."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

KEY = "SIMULATED"
MODEL = "gemini-2.5-flash"
PRICES = {MODEL: {"in": 1.0, "out": 10.0, "batch": 0.5, "flex": 0.5}}
ROOT = Path(__file__).parents[2]
RUNNER = """
import json, os, signal, sys, time
from google.genai import errors, types
from google import genai
import google.genai.batches, google.genai.files
from ipybatch import Retry
from ipybatch.gemini import generate
from ipybatch.gemini.batch import submission

submission.Submission.__init__.__kwdefaults__["grace_s"] = 0.5


def session(given):
    prompts = [f"Name star {number}" for number in range(given.pop("prompts"))]
    return generate(prompts, name="night", api_key="SIMULATED", **given)


for line in sys.stdin:
    given = json.loads(line)
    kill_s, out = given.pop("kill_s"), os.dup(1)
    child = os.fork()
    if not child:
        made = session(given)
        summary = str(made.run())
        statement = json.loads(made.statement().drop(columns="expires").to_json(orient="records"))
        usage = made.usage()
        told = {"summary": summary, "statement": statement, "usd": float(usage.usd.sum()), "reason": made.reason}
        os.write(out, (json.dumps(told) + "\\n").encode())
        os._exit(0)
    if kill_s is not None:
        time.sleep(kill_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.write(out, b'{"ended": %d}\\n' % status)
"""


class Killed:
    """Runs of one session, each in a process of its own that may be killed."""

    def __init__(self, url, journal, **options):
        self._given = {"base_url": url, "journal": str(journal), "prices": PRICES, **options}
        environment = {**os.environ, "NO_PROXY": "127.0.0.1", "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-W", "ignore", "-c", RUNNER]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def run(self, kill_s=None, **options):
        """Run it, for so many seconds or to its end, and return what it told at its end; None if it was killed."""
        self._process.stdin.write(json.dumps({**self._given, **options, "kill_s": kill_s}) + "\n")
        self._process.stdin.flush()
        told = None
        while "ended" not in (said := json.loads(self._process.stdout.readline())):
            told = said
        return told

    def kill_often(self, times, seed, least_s=0.02, most_s=0.6):
        """Kill it at so many random moments."""
        chance = random.Random(seed)
        for _ in range(times):
            self.run(chance.uniform(least_s, most_s))
