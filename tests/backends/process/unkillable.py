"""A module to preload: its supervisor cannot kill a process that is stopped, as if that hung in the system."""

from ipybatch.backends.process import keeper, process_tree

_kill = process_tree.kill
keeper.END_S = 0.3


def kill(pid):
    if process_tree.state(pid) != "T":
        _kill(pid)


process_tree.kill = kill
