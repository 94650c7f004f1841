"""Attempts: what the tests of processes run, and what is left of it."""

import asyncio
from pathlib import Path

from ipybatch.backends import Processes


def attempt(work, *items, within_s=25, **options):
    """Run one attempt per item side by side; return what came of each, errors as they are."""

    async def run():
        backend = Processes(len(items), **options)
        await backend.open(len(items))
        try:
            runs = [backend.run(work, (item,)) for item in items]
            return await asyncio.wait_for(asyncio.gather(*runs, return_exceptions=True), within_s)
        finally:
            await backend.close()

    return asyncio.run(run())


def came_of(told):
    return (type(told), str(told)) if isinstance(told, Exception) else told


def is_there(pid):
    """Say whether a process still runs: a zombie that waits for init does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def marked(mark):
    """Return the processes that carry a mark in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found
