"""Deprecation: what still works and has a better way, which that is, and until when.

`TABLE` is the whole list; docs/deprecations.md shows it, and what is in use of it warns with its words.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Deprecated:
    """What is deprecated.

    Attributes:
        old: As a user writes it.
        new: What to write instead.
        since: The version that began to warn.
        until: The version that does not have it any more.
    """

    old: str
    new: str
    since: str
    until: str

    def __str__(self) -> str:
        return f"{self.old} is deprecated since ipybatch {self.since} and gone in {self.until}. Use {self.new}"


SHARED = Deprecated(
    old="Limits(shared=)",
    new="Limits(store=); kernels of one machine that name the same resource= share its limits without it",
    since="0.2",
    until="1.0",
)
FORECAST_FORM = Deprecated(
    old="ipybatch.jupyter.ForecastForm", new="ipybatch.forecast.ForecastForm", since="0.2", until="1.0"
)
TABLE = (SHARED, FORECAST_FORM)


def warn_of(deprecated: Deprecated, *, stacklevel: int) -> None:
    """Warn whoever uses it.

    Args:
        stacklevel: How many calls above the caller of this the user's own line is, 1 for the next one.
    """
    warnings.warn(str(deprecated), DeprecationWarning, stacklevel=stacklevel + 2)
