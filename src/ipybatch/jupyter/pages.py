"""Pages: which pages show a view, as far as the kernel can know.

    Hello, Here (each 20 s) --heard--> [known] --60 s unheard--> forgotten          Bye --left--> forgotten

Rule: a page is forgotten for its silence alone, never for what keeps the kernel
from listening.  While a cell runs, the kernel may not read what a page sends, so
that time does not count, except of a page that was heard in another thread than
that of the cells: through a subshell, or the control channel, it is heard always.

Until the first page is heard, one is assumed: the cell that displays a view may
keep the kernel from hearing of it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

FORGET_S = 60.0
HELLO_S = 5.0  # the longest time from the end of a cell to the Hello of a view that it displayed
MOST = 256  # a class looks on; each that is dropped while it renews is told everything anew, as are all

_ASSUMED = ""


class Cells:
    """How long the kernel could hear pages: all the time but that of its cells, which run in the main thread.

    Attributes:
        has_other_ear: Whether a page was ever heard in another thread: the front end has a way past a cell.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self.now_s = now_s
        self.has_other_ear = False
        self._deaf_s = 0.0  # of cells that have ended
        self._begun_s: float | None = None
        self._shell: Any = None

    def follow(self, shell: Any) -> None:
        """Be told of the cells of a shell from now on; who calls this for the first time does so in a cell."""
        if shell is None or shell is self._shell:
            return
        self._shell = shell
        self.begin()
        shell.events.register("pre_run_cell", self.begin)
        shell.events.register("post_run_cell", self.end)

    def begin(self, *_: Any) -> None:
        """Note that a cell has begun."""
        if self._begun_s is None and _is_main():
            self._begun_s = self.now_s()

    def end(self, *_: Any) -> None:
        """Note that the cell has ended."""
        if self._begun_s is not None and _is_main():
            self._deaf_s += self.now_s() - self._begun_s
            self._begun_s = None

    def heard_s(self, now_s: float) -> float:
        """Return a clock that stands while a cell runs."""
        begun_s = self._begun_s
        return now_s - self._deaf_s - (0.0 if begun_s is None else now_s - begun_s)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


class _Heard(NamedTuple):
    """When a page was last heard, by the clock and by that of the kernel's ears; ``always``: the former counts."""

    at_s: float
    heard_s: float
    always: bool


class Answered(NamedTuple):
    """Pages that are told that they were heard; ``always``: those that are heard while a cell runs, too."""

    pages: list[str]
    always: list[str]


class Pages:
    """The pages that show one view."""

    def __init__(self, cells: Cells) -> None:
        self._unanswered: set[str] = set()
        self._cells = cells
        self._lock = threading.Lock()  # they are heard in several threads
        self._pages: OrderedDict[str, _Heard] = OrderedDict()  # the one unheard longest first
        self._hear(_ASSUMED)

    def heard(self, page: str) -> bool:
        """Take in that a page is there; return whether it was known."""
        with self._lock:
            self._forget()
            self._pages.pop(_ASSUMED, None)
            was_known = page in self._pages
            self._hear(page)
            self._unanswered.add(page)
            if len(self._pages) > MOST:
                self._pages.popitem(last=False)
            return was_known

    @property
    def is_unanswered(self) -> bool:
        """Whether any was heard that has not been told so."""
        return bool(self._unanswered)

    def answer(self, *, is_whole: bool = False) -> Answered:
        """Return those that were heard since the last answer, or all, sorted: they are told so now."""
        with self._lock:
            self._forget()
            names = [page for page in sorted(self._pages) if page != _ASSUMED]
            told = names if is_whole else [page for page in names if page in self._unanswered]
            self._unanswered.clear()
            return Answered(told, [page for page in told if self._pages[page].always])

    def left(self, page: str) -> None:
        """Take in that a page shows the view no more."""
        with self._lock:
            self._pages.pop(_ASSUMED, None)
            self._pages.pop(page, None)

    @property
    def is_any(self) -> bool:
        """Whether any is there, as far as is known."""
        with self._lock:
            self._forget()
            return bool(self._pages)

    def _hear(self, page: str) -> None:
        now_s, before = self._cells.now_s(), self._pages.get(page)
        is_elsewhere = page != _ASSUMED and not _is_main()
        self._cells.has_other_ear |= is_elsewhere
        always = is_elsewhere or (before is not None and before.always)
        self._pages[page] = _Heard(now_s, self._cells.heard_s(now_s), always)
        self._pages.move_to_end(page)

    def _forget(self) -> None:
        now_s = self._cells.now_s()
        heard_s = self._cells.heard_s(now_s)
        for page, heard in tuple(self._pages.items()):
            always = heard.always or (page == _ASSUMED and self._cells.has_other_ear)
            unheard_s = now_s - heard.at_s if always else heard_s - heard.heard_s
            is_late = page == _ASSUMED and heard_s - heard.heard_s > HELLO_S
            if is_late or unheard_s > FORGET_S:
                del self._pages[page]


cells = Cells()
