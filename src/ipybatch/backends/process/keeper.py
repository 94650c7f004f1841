"""Keeper: the parent of the supervisor, which ends what a killed supervisor leaves behind.

    kernel --- keeper --- supervisor --+-- attempt 1 --- its processes
                                       `-- attempt 2 --- its processes

Rule: whichever of the three is killed, another one is there to end the rest.
When the supervisor ends, its attempts are killed by the system (PR_SET_PDEATHSIG),
and the orphans of all of them come to the keeper, which kills them, and ends
itself as the last.  When the keeper ends, the supervisor gives up.  When the kernel
ends, both notice.  A supervisor that is stopped is continued, and so is the keeper, by
the kernel: else no deadline holds.

When keeper and supervisor are killed at the same moment, the kernel looks for what
attempts had started by a mark in its environment.  What cannot be helped: that all
three are killed at once, or that such a process was started without its environment.
Then attempts end, but processes that they started live on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Set
from typing import NoReturn

from ipybatch.backends.process import process_tree

END_S = 10.0  # within which a process that was killed has to be gone
LEFT = 3  # exit code of a supervisor that has left some
_LOOK_MS = 1_000


def fork_supervisor(kernel: int, control: int) -> tuple[int, int]:
    """Fork; return in the new process, the supervisor, and stay behind as its keeper.

    Returns:
        Descriptors that become readable when the kernel and the keeper end.
    """
    process_tree.adopt_orphans()
    keeper = os.getpid()
    kernel_end, keeper_end = os.pidfd_open(kernel), os.pidfd_open(keeper)
    if os.getppid() != kernel:
        os._exit(1)  # the kernel has ended meanwhile, and its number may be another's
    pid = os.fork()
    if pid:
        os.close(control)
        _keep(pid, kernel_end)
    os.setsid()  # a signal to the group of one of them is none to the other
    return kernel_end, keeper_end


def end_all(bound_s: float, but: Set[int] = frozenset()) -> bool:
    """Kill what is below this process until nothing but ``but`` is left; return whether that was within ``bound_s``."""
    until_s = time.monotonic() + bound_s
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        left = [pid for pid in process_tree.children(os.getpid()) if pid not in but]
        for pid in left:
            process_tree.kill(pid)
        if not left or time.monotonic() >= until_s:
            return not left
        time.sleep(0.005)


def _keep(pid: int, kernel_end: int) -> NoReturn:
    code = 1
    try:
        code = _watch(pid, kernel_end)
        end_all(0.0 if code == LEFT else END_S)  # it has tried for so long already
    finally:
        os._exit(code)


def _watch(pid: int, kernel_end: int) -> int:
    """Wait for the end of the supervisor; return its exit code, 128 more than the number of a signal."""
    watched, end_s = select.poll(), float("inf")
    supervisor_end = os.pidfd_open(pid)
    watched.register(supervisor_end, select.POLLIN)
    watched.register(kernel_end, select.POLLIN)
    while time.monotonic() < end_s:
        ready = [descriptor for descriptor, _ in watched.poll(_LOOK_MS)]
        if supervisor_end in ready:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            return code if code >= 0 else 128 - code
        if kernel_end in ready:
            watched.unregister(kernel_end)
            end_s = time.monotonic() + 2 * END_S  # it takes END_S at most to end all attempts
        if process_tree.state(pid) == "T":
            os.kill(pid, signal.SIGCONT)
    return 1
