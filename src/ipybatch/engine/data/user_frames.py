"""User frames: where in the user's own code an attempt failed, or a thread is, as masked lines that can be kept.

    shop.py:12 in fetch: price = float(page["price"])
    notebook cell:3 in parse: return int(text)

    then 12 frames of aiohttp

The last `MOST` frames, the innermost last, as in a traceback.  Frames of this
package, of installed packages and of the standard library say how the error
came about, not where to look: those that were called from there are counted.  Work that runs elsewhere
sends its traceback as text, in a note of the error (`REMOTE`).

Only what failed is looked at, so that items that succeed pay nothing.
"""

from __future__ import annotations

import functools
import linecache
import os
import re
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from ipybatch.engine.data.masking import mask, mask_source

MOST = 3
LONGEST = 200  # characters of a line
FOLDED = "then "  # what a line begins with that tells of other frames
REMOTE = "In the process of the attempt:\n"

_OURS = str(Path(__file__).resolve().parents[2]) + os.sep
_STANDARD = str(Path(os.__file__).resolve().parent) + os.sep
_INSTALLED = re.compile(r"[\\/](?:site|dist)-packages[\\/]|[\\/]lib[\\/]python3[\d.]*[\\/]|^<frozen ")
_ABOVE = re.compile(r"^.*[\\/](?:site|dist)-packages[\\/]|^.*[\\/]lib[\\/]python3[\d.]*[\\/]|^<frozen ")
_CELL = re.compile(r"^<ipython-input|[\\/]ipykernel_\d+[\\/]")
_FRAME = re.compile(r'^  File "(.+)", line (\d+), in (.+)(?:\n    (.*))?', flags=re.MULTILINE)

Frame = tuple[str, int, str, str]  # file, line, function, source line


def user_frames(error: BaseException) -> str:
    """Return the last frames of the user's own code that an error went through, one a line; "" for none."""
    try:
        frames: deque[Frame] = deque(maxlen=MOST)
        after: Counter[str] = Counter()
        for frame in _walk(error):
            if _is_users(frame[0]):
                frames.append(frame)
                after.clear()
            elif not frame[0].startswith(_OURS):
                after[_library(frame[0])] += 1
        lines = [*map(_line, frames), *([_folded(after)] if frames and after else [])]
        return "\n".join(lines)
    except Exception:  # of the user's class: what is told of the error itself must not be lost
        return ""


def last_user_frame(error: BaseException) -> str:
    """Return the innermost frame of the user's own code that an error went through; "" for none."""
    return next((line for line in reversed(user_frames(error).split("\n")) if not line.startswith(FOLDED)), "")


def user_place(frame: FrameType) -> str:
    """Return where a thread is: in the innermost frame of the user's own code, or of any where there is none."""
    own: FrameType | None = frame
    while own is not None and not _is_users(own.f_code.co_filename):
        own = own.f_back
    own = own or frame
    code = own.f_code
    return _line((code.co_filename, own.f_lineno, code.co_name, linecache.getline(code.co_filename, own.f_lineno)))


def _walk(error: BaseException) -> Iterator[Frame]:
    """Yield all frames, outermost first; of a group, those of its first error too."""
    place = error.__traceback__
    while place is not None:
        code, source = place.tb_frame.f_code, ""
        if _is_users(code.co_filename):
            source = linecache.getline(code.co_filename, place.tb_lineno, place.tb_frame.f_globals)
        yield code.co_filename, place.tb_lineno, code.co_name, source
        place = place.tb_next
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, str) and note.startswith(REMOTE):
            for file, line, function, source in _FRAME.findall(note):
                yield file, int(line), function, source or linecache.getline(file, int(line))  # a cell's is here
    if isinstance(error, BaseExceptionGroup):
        yield from _walk(error.exceptions[0])


def _folded(libraries: Counter[str]) -> str:
    """Return how many frames of which libraries were called from there."""
    told = [f"{count} frame{'' if count == 1 else 's'} of {name}" for name, count in libraries.items()]
    return f"{FOLDED}{', '.join(told[:MOST])}{', and others' if len(told) > MOST else ''}"


@functools.lru_cache(maxsize=1000)
def _library(file: str) -> str:
    """Return the name of the package that a file belongs to."""
    return re.split(r"[\\/.>]", _ABOVE.sub("", file.removeprefix(_STANDARD)), maxsplit=1)[0] or "Python"


@functools.lru_cache(maxsize=1000)
def _is_users(file: str) -> bool:
    return not file.startswith((_OURS, _STANDARD)) and not _INSTALLED.search(file)


def _line(frame: Frame) -> str:
    file, line, function, source = frame
    name = "notebook cell" if _CELL.search(file) else re.split(r"[\\/]", file)[-1]
    place, code = mask(f"{name}:{line} in {function}"), mask_source(" ".join(source.split()))
    return (f"{place}: {code}" if code else place)[:LONGEST]
