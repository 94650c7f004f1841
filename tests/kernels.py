"""Another kernel: a process that runs cells for a test, one after the other, as long as the test wants it."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# One cell a line; it answers what the cell leaves in `said`, or the error.
_LOOP = """
import json, sys
names = {}
for line in sys.stdin:
    names["said"] = None
    try:
        exec(json.loads(line), names)
        said = names["said"]
    except BaseException as error:
        said = repr(error)
    print(json.dumps(said), flush=True)
"""


class Kernel:
    """A Python process of its own.

    Attributes:
        pid: Its number.
    """

    def __init__(self):
        command = [sys.executable, "-c", _LOOP]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
        )
        self.pid = self.process.pid

    def begin(self, cell):
        """Run a cell, without waiting for its end."""
        self.process.stdin.write(json.dumps(cell) + "\n")
        self.process.stdin.flush()

    def answer(self):
        """Wait for the end of the cell that was begun."""
        return json.loads(self.process.stdout.readline())

    def run(self, cell):
        """Run a cell, and return what it says."""
        self.begin(cell)
        return self.answer()

    def kill(self):
        """Let it die at once, as an out-of-memory killer does."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
