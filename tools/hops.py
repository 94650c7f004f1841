"""Count the calls and the hops between files that one item of a session takes.

python -m tools.hops              prints hops and calls per item, at 1 and at 10 items at a time
python -m tools.hops --edges      prints the most frequent hops as well, from file to file

A *call* is a ``call`` event of `sys.setprofile` whose code lies in a file of ours (src/ipybatch). Python reports each
resumption of a coroutine or generator as such an event, so resumptions count as calls.

A *hop* is a call that enters another file of ours: the file of the called code is not the file of the nearest frame of
ours above it. Frames of other packages in between are skipped, so a callback of the event loop or a resumed task is a
hop from the file that runs the loop. A call without a frame of ours above it is a hop from ``(none)``. Returns are no
hops.

Counted are the threads that a session starts (the engine's and the journal's); the thread that waits for it is not.
The figure is a slope, so that start and end of a session drop out: the count for `MANY` no-op coroutines minus that for
`FEW`, divided by the difference. At one item at a time every item pays for its own commit and its own waking; at 10,
the default, ten items share them.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import ipybatch
from ipybatch import BatchSession, Limits

FEW, MANY = 200, 1_200
NONE = "(none)"
SHOWN = 25
_ROOT = f"{Path(ipybatch.__file__).parent}/"

Edge = tuple[str, str]


class Count:
    """Calls and hops since it was made or cleared; a profile function for `threading.setprofile`.

    Attributes:
        calls: Calls into files of ours.
        edges: Hops by (from file, to file).
    """

    def __init__(self) -> None:
        self.calls = 0
        self.edges: Counter[Edge] = Counter()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Count one event of the profiler."""
        entered = frame.f_code.co_filename
        if event != "call" or not entered.startswith(_ROOT):
            return
        self.calls += 1
        above = frame.f_back
        while above is not None and not above.f_code.co_filename.startswith(_ROOT):
            above = above.f_back
        left = NONE if above is None else above.f_code.co_filename
        if left != entered:
            self.edges[left.removeprefix(_ROOT), entered.removeprefix(_ROOT)] += 1

    def clear(self) -> None:
        """Begin at zero."""
        self.calls = 0
        self.edges.clear()


async def nothing(_: Any) -> None:
    """Do nothing with an item."""


def per_item(count: Count, concurrency: int) -> tuple[float, dict[Edge, float]]:
    """Return calls per item and hops per item by edge, in steady state."""
    calls, edges = zip(*[_of_session(count, items, concurrency) for items in (FEW, MANY)], strict=True)
    more = MANY - FEW
    hops = {edge: (edges[1][edge] - edges[0][edge]) / more for edge in edges[1] if edges[1][edge] != edges[0][edge]}
    return (calls[1] - calls[0]) / more, hops


def _of_session(count: Count, items: int, concurrency: int) -> tuple[int, Counter[Edge]]:
    with tempfile.TemporaryDirectory(prefix="ipybatch-") as folder:
        limits = Limits(concurrency=concurrency)
        session = BatchSession("hops", nothing, list(range(items)), limits=limits, journal=Path(folder, "journal.db"))
        count.clear()
        session.run()
        return count.calls, count.edges.copy()


def main(arguments: list[str]) -> int:
    """Print the figures, with ``--edges`` the hops one by one."""
    count = Count()
    threading.setprofile(count)  # before the first session: threads that run already are not profiled
    for concurrency in (1, 10):
        calls, hops = per_item(count, concurrency)
        print(f"{concurrency:>2} at a time: {sum(hops.values()):.1f} hops, {calls:.1f} calls per item")
        if "--edges" in arguments:
            for (left, entered), times in sorted(hops.items(), key=lambda hop: (-hop[1], hop[0]))[:SHOWN]:
                print(f"  {times:5.2f}  {left} -> {entered}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
