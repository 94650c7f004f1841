"""Rests: channels whose receivers asked to be left alone, and until when, for all of the user's processes.

    an error with Retry-After --`begin`--> rests.json in the user's own folder --`in_force`--> whoever delivers

Rule: a rest is its receiver's: a channel that is made anew, or forgotten, has none.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from ipybatch.engine.store.config_folder import config_folder, write_private, writing

LONGEST_S = 6 * 3600.0  # that a receiver may ask for
_decode = msgspec.json.Decoder(dict[str, float]).decode
_unwritten: dict[str, float] = {}  # what this process alone knows, where the folder cannot be written


def path() -> Path:
    """Return where rests are kept."""
    return config_folder() / "rests.json"


def begin(channel: str, wait_s: float) -> None:
    """Let nobody send to a channel for so long.

    Args:
        wait_s: Seconds, at most `LONGEST_S`; a shorter rest does not end a longer one.
    """
    until_s = time.time() + min(wait_s, LONGEST_S)
    try:
        with writing():
            told = in_force()
            _write({**told, channel: max(until_s, told.get(channel, 0.0))})
    except OSError:
        _unwritten[channel] = until_s


def end(channel: str) -> None:
    """Let messages be sent to a channel again.

    Raises:
        OSError: The folder cannot be written.
    """
    _unwritten.pop(channel, None)
    if channel in in_force():
        with writing():
            _write({name: until_s for name, until_s in in_force().items() if name != channel})


def in_force() -> dict[str, float]:
    """Return until when which channels are left alone, Unix.

    One that lies further ahead than any receiver may ask for is over: the clock was set back since.
    """
    try:
        told = _decode(path().read_bytes())
    except (OSError, msgspec.MsgspecError):
        told = {}
    now_s = time.time()
    return {name: until_s for name, until_s in {**told, **_unwritten}.items() if 0 < until_s - now_s <= LONGEST_S + 1}


def _write(told: dict[str, float]) -> None:
    write_private(path(), msgspec.json.encode(told).decode())
