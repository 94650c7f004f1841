"""What the supervisor concludes from the way in which a process ended."""

import errno
import os
import socket
from pathlib import Path

import pytest

pytest.importorskip("fcntl")

from ipybatch.backends.process import protocol, supervisor


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(("number", "cause"), [(errno.ENOMEM, "memory"), (errno.EAGAIN, "")])
def test_a_process_that_could_not_be_started_says_so_and_leaves_no_descriptor(monkeypatch, number, cause):
    def refuse():
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fork", refuse)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        served = supervisor.Supervisor(theirs, os.getpid())
        before = descriptors()
        served._start(protocol.Start(1, b"token", None, None), os.dup(theirs.fileno()))
        assert descriptors() <= before  # fewer where something of another test was collected
        (ended,) = served._ended
    assert ended.cause == cause
    assert ended.printed.startswith("no process could be started: [Errno")
