"""Memory of attempts: what is shared counts once, what is taken is limited, and only the system's count is evidence."""

import ctypes
import mmap
import os
import sys
import time
from multiprocessing import shared_memory
from pathlib import Path

import cloudpickle
import pytest

from ipybatch.backends import OutOfMemory
from ipybatch.backends.process.tree_memory import SystemKills
from tests.backends.process.attempts import attempt, came_of

pytestmark = [
    pytest.mark.usefixtures("patience"),
    pytest.mark.skipif(sys.platform != "linux", reason="the supervisor is Linux's"),
]
cloudpickle.register_pickle_by_value(sys.modules[__name__])
MB = 2**20
WELL = "its own"


def hold_in_idle_forks():
    """Nine processes that share 100 MB, as a pool does that has loaded a table."""
    held = b"x" * (100 * MB)
    for _ in range(8):
        if os.fork() == 0:
            time.sleep(3600)
    time.sleep(0.4)  # a few looks
    return len(held)


def share(size_mb):
    held = mmap.mmap(-1, size_mb * MB)
    held.write(b"x" * len(held))
    return held


def hold_shared_in_forks():
    held = share(100)
    for _ in range(8):
        if os.fork() == 0:
            for at in range(0, len(held), 4096):
                held[at]
            time.sleep(3600)
    time.sleep(0.6)
    return WELL


def share_memory_with_a_helper_for_a_moment():
    """Between vfork() and exec() a helper has its parent's memory, not a copy: subprocess starts programs so."""
    held = b"x" * (200 * MB)
    libc = ctypes.CDLL(None)
    stack = ctypes.create_string_buffer(MB)
    libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    clone_vm = 0x100
    libc.clone(ctypes.cast(libc.sleep, ctypes.c_void_p), ctypes.addressof(stack) + MB - 64, clone_vm | 17, 1)
    time.sleep(0.4)
    return WELL if held else ""


def map_a_file():
    """Pages of a file are the system's, which takes them back when it needs them."""
    with Path("large").open("w+b") as file:
        file.truncate(400 * MB)
        held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        sum(held[at] for at in range(0, len(held), 4096))
        time.sleep(0.2)
    return WELL


WITHIN = {
    hold_in_idle_forks: 100 * MB,
    hold_shared_in_forks: WELL,
    share_memory_with_a_helper_for_a_moment: WELL,
    map_a_file: WELL,
}


def test_what_processes_share_counts_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = attempt(lambda work: work(), *WITHIN, timeout_s=20, memory_mb=320)
    assert {work.__name__: came_of(one) for work, one in zip(WITHIN, told, strict=True)} == {
        work.__name__: expected for work, expected in WITHIN.items()
    }


def take_in_children():
    held = b""
    for _ in range(3):
        if os.fork() == 0:
            held = b"x" * (150 * MB)
            break
    time.sleep(3600)
    return held


def take_what_forks_had_shared():
    """Shared until each writes to it: then it is nine times as much."""
    held = bytearray(80 * MB)
    held[:] = b"x" * len(held)
    for _ in range(8):
        if os.fork() == 0:
            time.sleep(0.3)
            for at in range(0, len(held), 4096):
                held[at] = 1
            time.sleep(3600)
    time.sleep(3600)


def take_shared_memory():
    held = share(500)
    time.sleep(3600)
    return held


def take_a_named_segment():
    held = shared_memory.SharedMemory(create=True, size=500 * MB)
    Path("/dev/shm", held.name).unlink()
    held.buf[:] = bytes(500 * MB)
    time.sleep(3600)


def take_a_file_in_memory():
    """Written, never mapped: no process has it in its resident set."""
    one = os.memfd_create("held")
    for _ in range(50):
        os.write(one, b"x" * (10 * MB))
    time.sleep(3600)


class LargeToRead:
    def __reduce__(self):
        return bytearray, (800 * MB,)


def return_what_is_large_to_read():
    return LargeToRead()


BEYOND = [
    take_in_children,
    take_what_forks_had_shared,
    take_shared_memory,
    take_a_named_segment,
    take_a_file_in_memory,
    return_what_is_large_to_read,
]


def test_what_is_really_taken_is_limited():
    for one in (BEYOND[:3], BEYOND[3:]):  # a few at a time: together they are some gigabytes
        told = attempt(lambda work: work(), *one, timeout_s=20, memory_mb=320)
        assert {work.__name__: came_of(end) for work, end in zip(one, told, strict=True)} == {
            work.__name__: (OutOfMemory, "Out of memory") for work in one
        }


def test_a_kill_by_the_system_explains_one_end(tmp_path, monkeypatch):
    """The control group's count where there is one; and each kill is the reason of one end only."""
    told = tmp_path / "memory.events"
    told.write_text("low 0\noom 3\noom_kill 3\n")
    monkeypatch.setattr("ipybatch.backends.process.tree_memory._group_files", lambda: [(told, "oom_kill")])
    kills = SystemKills()
    assert kills.count() == 3
    told.write_text("low 0\noom 4\noom_kill 4\n")
    assert kills.count() == 4
    kills.explain()
    assert kills.count() == 3
