"""ipybatch: run one function over many items, safely, and watch it live in Jupyter."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipybatch.errors import *
from ipybatch.jupyter import aliases

if TYPE_CHECKING:
    import pandas as pd

    from ipybatch.engine.data.events import Counts
    from ipybatch.engine.data.masking import secret
    from ipybatch.engine.data.outcome import Outcome, Summary
    from ipybatch.engine.data.policy import Breaker, Limits, Rate, Retry
    from ipybatch.engine.rules.estimate import Estimate
    from ipybatch.engine.run.attempt import Attempt
    from ipybatch.session.session import BatchSession

__version__ = "0.2.0"

__all__ = [
    "Attempt",
    "BatchError",
    "BatchSession",
    "Breaker",
    "Counts",
    "EngineBusy",
    "Estimate",
    "Fenced",
    "Held",
    "InputError",
    "ItemError",
    "JournalCorrupt",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "JournalReadOnly",
    "Limits",
    "MissingExtra",
    "Outcome",
    "Permanent",
    "Rate",
    "RateLimited",
    "Refused",
    "Retry",
    "Summary",
    "Transient",
    "Withheld",
    "history",
    "lift",
    "prune",
    "resources",
    "secret",
]

# Loaded when first asked for (PEP 562): a server that imports `ipybatch.server`, and a child process, need none of it.
_HOMES = {
    "Attempt": "engine.run.attempt",
    "BatchSession": "session.session",
    "Breaker": "engine.data.policy",
    "Counts": "engine.data.events",
    "Estimate": "engine.rules.estimate",
    "Limits": "engine.data.policy",
    "Outcome": "engine.data.outcome",
    "Rate": "engine.data.policy",
    "Retry": "engine.data.policy",
    "Summary": "engine.data.outcome",
    "secret": "engine.data.masking",
}

if not TYPE_CHECKING:  # else any name would pass a type checker

    def __getattr__(name: str) -> Any:
        if name in ("accessor", "backends", "notify"):  # public, and users need not import them
            return import_module(f"ipybatch.{name}")
        if name not in _HOMES:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg, name=name)
        member = globals()[name] = getattr(import_module(f"ipybatch.{_HOMES[name]}"), name)
        return member


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def history(journal: str | Path | None = None, *, everywhere: bool = False) -> pd.DataFrame:
    """Return one row per recorded run: name, started, seconds, seconds_per_item, counts, state, reason, usd.

    Args:
        journal: Path of the journal; default: ``IPYBATCH_JOURNAL``, else the user's data folder.
        everywhere: Also the runs of all other journals that this user's processes have opened since the machine
            started, with a column ``journal``. These are only read, and the default one is not made.

    Raises:
        JournalError: The journal is damaged or cannot be read.
    """
    from ipybatch import frames
    from ipybatch.engine.store.journal import open_journal

    if everywhere:
        return frames.history_everywhere(None if journal is None else Path(journal))
    return frames.history(open_journal(journal))


def prune(older_than_s: float, *, journal: str | Path | None = None) -> int:
    """Delete runs that ended, or were left by a crash, more than ``older_than_s`` seconds ago; return how many.

    Runs of live sessions stay, whichever kernel they run in.

    Raises:
        JournalError: The journal is damaged or cannot be written.
    """
    import time

    from ipybatch.engine.store import removal
    from ipybatch.engine.store.journal import open_journal

    now_s = time.time()
    return removal.prune(open_journal(journal), now_s - older_than_s, now_s)


def resources(journal: str | Path | None = None, *, store: str | Path | None = None) -> pd.DataFrame:
    """Return what is rationed: one row per window of each resource that sessions use, or that cools down.

    Columns: resource, group, window, used, limit, owners, cool_until (UTC), why.  All kernels that use the journal's
    limits are counted, and all machines that use the Redis which sessions of this process use.

    Args:
        journal: Path of the journal; default: ``IPYBATCH_JOURNAL``, else the user's data folder.
        store: Look there instead: what ``Limits(store=)`` of the sessions is, a Redis's address or a file's path.

    Raises:
        InputError: ``store`` is no address.
        JournalError: The limits cannot be read.
        MissingExtra: ``store`` is the address of a Redis, and the redis package is not installed.
    """
    from ipybatch import frames

    return frames.resources(None if journal is None else Path(journal), store)


def lift(resource: str, *, journal: str | Path | None = None, store: str | Path | None = None) -> bool:
    """End the cool-down of a resource: sessions of this process go on at once, those of others within a second.

    Args:
        resource: As ``resource=`` of the sessions names it; that of one without a name is "session <its name>".
        journal: Path of the journal whose sessions use it; default: ``IPYBATCH_JOURNAL``, else the one in the user's
            data folder, and all sessions of this process.
        store: Where it is counted, instead: what ``Limits(store=)`` of the sessions is, a Redis's address or a file's
            path.

    Returns:
        Whether it was cooling down.

    Raises:
        InputError: No session of that resource ever ran, or ``store`` is no address.
        JournalError: The limits cannot be read or written.
        MissingExtra: ``store`` is the address of a Redis, and the redis package is not installed.
    """
    from ipybatch.engine.store import resources as known

    return known.lift(None if journal is None else Path(journal), resource, store)


def _forecast_form() -> type:
    from ipybatch.engine.data.deprecation import FORECAST_FORM, warn_of
    from ipybatch.forecast import ForecastForm

    warn_of(FORECAST_FORM, stacklevel=2)  # past the module's __getattr__
    return ForecastForm


aliases["ForecastForm"] = _forecast_form

if "pandas" in sys.modules or "polars" in sys.modules:  # nothing is loaded for those who use neither
    from ipybatch import accessor

    accessor.register()


def load_ipython_extension(shell: object) -> None:
    """Answer ``%load_ext ipybatch``."""
    from ipybatch.engine.store.history import RecordedRun, read_runs
    from ipybatch.engine.store.journal import open_journal
    from ipybatch.jupyter.magics import load_magics
    from ipybatch.session.session import BatchSession

    def recorded() -> list[RecordedRun]:
        journal = open_journal(None)
        with journal.reader() as database:
            return read_runs(database, journal)

    load_magics(shell, recorded, BatchSession.open, BatchSession)
