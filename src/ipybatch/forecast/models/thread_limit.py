"""Thread limit: models that are trained in a thread of this process use that thread alone, as those in processes do.

Several on busy cores took ten times as long. OpenMP, which gradient boosting uses, counts for each thread by itself.
BLAS, which a user's own models may use, counts for the whole process: those are trained one after another.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ipybatch.forecast.models.series_models import MODELS


def one_thread(models: Iterable[Any]) -> AbstractContextManager[object]:
    """Limit the libraries that these models use to one thread, where they are trained in this one."""
    used = list(models)
    if "IPYBATCH_ATTEMPT" in os.environ or all(isinstance(model, str) and model in MODELS for model in used):
        return nullcontext()  # it has one, or needs none
    try:
        import sklearn.ensemble  # noqa: F401  # a library that is loaded later would not be limited
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no types
    except ImportError:
        return nullcontext()
    is_ours = all(isinstance(model, str) for model in used)
    made: AbstractContextManager[object] = threadpool_limits(1, user_api="openmp" if is_ours else None)
    return made
