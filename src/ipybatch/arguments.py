"""Arguments: what a workload takes for its session and hands on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from ipybatch.engine.clock import Clock
from ipybatch.engine.drive import OnFailure
from ipybatch.engine.plan import Priority
from ipybatch.engine.policy import Breaker, Limits, Retry


class Arguments(TypedDict, total=False):
    """Arguments of `BatchSession`; what is left out, or None, is the workload's default."""

    limits: Limits | None
    retry: Retry | None
    breaker: Breaker | None  # None for none, as everywhere
    journal: str | Path | None
    fresh: bool
    on_failure: OnFailure
    resource: str | None
    on_progress: Callable[[int, int | None], None] | None
    verbose: bool
    clock: Clock | None


class SessionArguments(Arguments, total=False):
    """Those, the time that one attempt may take, and what goes first."""

    timeout_s: float | None
    priority: Callable[[Any], Priority] | None
    per: Callable[[Any], Any] | None
