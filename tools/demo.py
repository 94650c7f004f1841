"""Run notebook 01 from start to end in the terminal: a game library refreshed on a simulated store, no keys needed.

    python -m tools.demo        what `make demo` does

The kernel's temporary files lie in a folder of ours, and the notebook keeps its journal there: so the progress of its
sessions is read from the journal, as any other process may.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbclient.exceptions import CellExecutionError

from ipybatch import JournalError, history
from tools import notebooks
from tools.notebooks import Notebook

if TYPE_CHECKING:
    import pandas as pd

NOTEBOOK = notebooks.FOLDER / "01_library_refresh.ipynb"
OUT = notebooks.ROOT / "out"
WIDTH = 79
BAR = 20
BEAT_S = 0.2
PIPE_BEAT_S = 5.0  # where lines cannot be drawn over, one in five seconds is enough
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_SUMMARY = re.compile(r"^\S.* \w+: \d+/\d+ successful, .*$", re.MULTILINE)


class Screen:
    """The terminal: a line for each cell, and below it, while it runs, one for the session.

    Args:
        sections: What each code cell belongs to.
        folder: Where the kernel's temporary files lie.
    """

    def __init__(self, sections: list[str], folder: Path) -> None:
        self._sections, self._folder = sections, folder
        self._can_redraw = sys.stdout.isatty()
        self._journal: Path | None = None
        self._cell, self._began_s = 0, 0.0

    def begin(self, _: Notebook, index: int) -> None:
        """Show that a cell has begun."""
        del index
        self._cell += 1
        self._began_s = time.monotonic()
        # A journal that is only now being made is left alone until the next cell.
        self._journal = next(self._folder.glob("*/journal.db"), None)
        self._draw(self._head())

    def end(self, _: Notebook, index: int) -> None:
        """Show that it has ended, and how long it took."""
        del index
        line = f"{self._head():<{WIDTH - 9}}{time.monotonic() - self._began_s:7.1f} s"
        self._draw(line)
        if self._can_redraw:
            print()

    async def follow(self) -> None:
        """Show the running session until cancelled."""
        while True:
            await asyncio.sleep(BEAT_S if self._can_redraw else PIPE_BEAT_S)
            progress = self._progress()
            if progress:
                self._draw(f"{self._head(WIDTH - len(progress) - 1)} {progress}" if self._can_redraw else progress)

    def _head(self, width: int = WIDTH - 10) -> str:
        title = f"cell {self._cell} of {len(self._sections)}  {self._sections[self._cell - 1]}"
        return f"{title[:width]:<{width}}"

    def _progress(self) -> str:
        with suppress(JournalError):
            runs = history(self._journal) if self._journal else None
            running = None if runs is None else runs[runs["state"] == "running"]
            if running is not None and len(running):
                return _bar(running.iloc[-1])
        return ""

    def _draw(self, line: str) -> None:
        if self._can_redraw:
            sys.stdout.write(f"\r{line:<{WIDTH}}")
        elif line.strip() != self._head().strip():
            sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def sections(notebook: Notebook) -> list[str]:
    """Return the heading above each code cell."""
    heading, found = "", []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            found.append(heading)
        else:
            heading = next((line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")), heading)
    return found


def summaries(notebook: Notebook) -> list[str]:
    """Return the lines in which sessions said what they came to."""
    printed = [output.text for cell in notebooks.code_cells(notebook) for output in cell.outputs if "text" in output]
    return _SUMMARY.findall("\n".join(printed))


async def run(notebook: Notebook, folder: Path) -> None:
    """Run the notebook and show how far it is.

    Raises:
        CellExecutionError: A cell raised.
    """
    screen = Screen(sections(notebook), folder)
    following = asyncio.create_task(screen.follow())
    try:
        await notebooks.run(notebook, notebooks.environment(folder), begin=screen.begin, end=screen.end)
    finally:
        following.cancel()


def main() -> int:
    """Run it, keep it in `OUT`, and return the exit code."""
    notebook = notebooks.read(NOTEBOOK)
    print(f"Running {_short(NOTEBOOK)}: about a minute, no keys, no network.\n")
    began_s = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="ipybatch-", ignore_cleanup_errors=True) as folder:
            asyncio.run(run(notebook, Path(folder)))
    except CellExecutionError as error:
        print(f"\n\n{error if sys.stdout.isatty() else _COLOURS.sub('', str(error))}", file=sys.stderr)
        return 1
    print(f"\nDone in {time.monotonic() - began_s:.0f} s. What its sessions came to:\n")
    print("".join(f"  {line}\n" for line in summaries(notebook)))
    _keep(notebook)
    print("\nNext: make lab, and open 01_library_refresh.ipynb there; its panel is live.")
    return 0


def _keep(notebook: Notebook) -> None:
    OUT.mkdir(exist_ok=True)
    kept = OUT / NOTEBOOK.name
    notebooks.write(notebook, kept)
    page = kept.with_suffix(".html")
    page.write_text(notebooks.as_page(notebook), encoding="utf-8")
    print(f"Notebook: {_short(kept)}\nAs a page: {_short(page)}")


def _bar(run: pd.Series[Any]) -> str:
    ended, total = int(run[["completed", "failed", "timeout", "skipped"]].sum()), int(run["total"])
    filled = BAR * ended // max(total, 1)
    line = f"{run['name']} [{'#' * filled}{'.' * (BAR - filled)}] {ended}/{total}"
    return f"{line}, {run['failed']} failed" if run["failed"] else line


def _short(path: Path) -> str:
    return path.relative_to(notebooks.ROOT).as_posix()


if __name__ == "__main__":
    sys.exit(main())
