"""Attempt process: what the supervisor does about one that is stopped while its call or its answer is on the way."""

import os
import signal
import sys

import cloudpickle
import pytest

from ipybatch.backends import Overrun
from tests.backends.process.attempts import attempt, came_of

pytestmark = [
    pytest.mark.usefixtures("patience"),
    pytest.mark.skipif(sys.platform != "linux", reason="the supervisor is Linux's"),
]
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class StopsWhenRead:
    """An argument that stops the process in which it is read."""

    def __reduce__(self):
        return exec, (f"import os; os.kill(os.getpid(), {int(signal.SIGSTOP)})",)


def test_a_process_that_is_stopped_while_it_reads_its_call_goes_on():
    """Not a minute after its time: none of that is the work's, so that nobody waits for it."""
    assert attempt(lambda item: "well", StopsWhenRead(), timeout_s=30) == ["well"]


class StopsWhenMade:
    """A result that stops the process before it is sent."""

    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGSTOP)
        return str, ("made",)


def test_a_process_that_its_work_stops_is_not_continued():
    """That is the work's: it ends at its time."""
    (error,) = attempt(lambda item: os.kill(os.getpid(), signal.SIGSTOP), 1, timeout_s=0.5)
    assert came_of(error) == (Overrun, "Exceeded 0.5s")
    (error,) = attempt(lambda item: StopsWhenMade(), 1, timeout_s=0.5)
    assert came_of(error) == (Overrun, "Exceeded 0.5s")
