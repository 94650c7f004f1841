"""Models that are trained in threads use one thread each, and leave the process as it was."""

import threading

import pytest
import sklearn.ensemble  # noqa: F401  # loads OpenMP
from sklearn.linear_model import LinearRegression
from threadpoolctl import threadpool_info, threadpool_limits

from ipybatch.forecast.models.model_selection import run_partition
from ipybatch.forecast.models.thread_limit import one_thread
from ipybatch.forecast.settings import Settings
from tests.forecast.retail import matrix, table


def threads(api="openmp"):
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == api}


@pytest.fixture(autouse=True)
def two_threads():
    with threadpool_limits(2):
        yield


def test_each_thread_that_trains_uses_itself_alone():
    """Two train at a time; the one that ends first is not the one that began last, and neither limits the process."""
    began, may_end = threading.Event(), threading.Event()
    seen = []

    def first():
        with threadpool_limits(2), one_thread(["gradient_boosting"]):
            seen.append(threads())
            began.set()
            may_end.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    began.wait(60)
    with one_thread(["gradient_boosting"]):
        may_end.set()
        thread.join(60)
        seen.append(threads())
    assert (seen, threads(), threads("blas")) == ([{1}, {1}], {2}, {2})


def test_a_model_that_fails_leaves_the_process_as_it_was():
    limit = one_thread(["gradient_boosting", LinearRegression()])
    with pytest.raises(ZeroDivisionError), limit:
        _ = 1 / (threads("blas") == {2})
    assert (threads(), threads("blas")) == ({2}, {2})


def test_a_partition_is_trained_in_one_thread_wherever_that_is():
    """Also by forecast(backend=Threads()), where no process sets the limit."""
    seen = []

    class Watched(LinearRegression):
        def fit(self, rows, target):
            seen.append((threads(), threads("blas")))
            return super().fit(rows, target)

    run_partition(table(matrix(20)), Settings(horizon=5, models=(Watched(),)))
    assert set(map(str, seen)) == {"({1}, {1})"}


def test_models_that_load_no_library_are_not_limited():
    with one_thread(["ses", "naive"]):
        assert threads() == {2}
