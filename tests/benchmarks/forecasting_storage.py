"""Forecasting on storage: what the session and its workers hold where workers read the files, and where it does.

    python -m tests.benchmarks.forecasting_storage [--rows 10000000] [--files 40] [--only held files cluster]

    held       the session reads the folder, and each partition's process its rows: today's way of one machine
    files      `storage=`: two processes of this machine read the files
    cluster    `storage=`: two workers of a Dask LocalCluster read them

The same table, dealt over the files by day: 20 sites, a part to 40 rows, 120 days, 14 ahead, default models, written
to a parquet file.  Each run is a process of its own.  `session_mb` is the most that its main process had resident (of
which `idle_mb` before it began), `all_mb` the most that all its processes held at the same time, shared pages once;
`cpu_s` counts all processes.  Wall time says little on a machine that others use, and no partition is timed out.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from ipybatch.simulators.demand import demand

from .forecasting import AHEAD, HUGE, LARGE_DAYS, LARGE_SITES, ROWS_A_PART, WORKERS
from .measure import ROOT
from .memory import MB

WAYS = ("held", "files", "cluster")
_EVERY_S = 0.5


def write_files(rows: int, count: int, folder: Path) -> None:
    """Write the table, by day, into as many parquet files."""
    folder.mkdir()
    table = demand(rows=rows, sites=LARGE_SITES, parts=rows // ROWS_A_PART, days=LARGE_DAYS)
    table["date"] = pd.to_datetime(table["date"])
    table = table.sort_values("date", kind="stable", ignore_index=True)
    for at in range(count):
        table.iloc[at * rows // count : (at + 1) * rows // count].to_parquet(folder / f"{at:03}.parquet", index=False)


class Held:
    """The most memory that a process and all below it held at the same time."""

    def __init__(self) -> None:
        self.most = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Return it, in MB."""
        self._is_over.set()
        self._thread.join()
        return self.most / MB

    def _look(self) -> None:
        this = psutil.Process()
        while not self._is_over.wait(_EVERY_S):
            held = 0
            for one in (this, *this.children(recursive=True)):
                try:
                    held += one.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            self.most = max(self.most, held)


def forecast_it(way: str, place: Path) -> dict[str, float]:
    """Forecast the folder, and return what that took."""
    from pyarrow import parquet

    from ipybatch.backends import Dask
    from ipybatch.forecast import forecast

    idle_mb = psutil.Process().memory_info().rss / MB
    held, begun_s = Held(), time.perf_counter()
    arguments: dict[str, Any] = {
        "horizon": AHEAD[HUGE],
        "timeout_s": None,
        "workers": WORKERS,
        "output": place / f"{way}.parquet",
    }
    arguments |= {"journal": place / f"{way}.db"} | ({} if way == "held" else {"storage": place / f"{way}-storage"})
    if way == "cluster":
        import distributed

        dask: Any = distributed  # it has no types
        cluster = dask.LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, host="127.0.0.1")
        arguments["backend"] = Dask(dask.Client(cluster))
    session = forecast(place / "table", **arguments)
    split_s = time.perf_counter() - begun_s
    summary = session.run()
    assert summary.state == "completed", summary.reason
    wall_s = time.perf_counter() - begun_s
    if way == "cluster":
        arguments["backend"].client.close()
        cluster.close()
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "session_mb": used[0].ru_maxrss / 1024,
        "idle_mb": idle_mb,
        "all_mb": held.stop(),
        "session_cpu_s": used[0].ru_utime + used[0].ru_stime,
        "cpu_s": sum(each.ru_utime + each.ru_stime for each in used),
        "before_s": split_s,
        "wall_s": wall_s,
        "rows": parquet.read_metadata(place / f"{way}.parquet").num_rows,
    }


def main() -> None:
    """Write the table, and measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.forecasting_storage")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--place", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.place:
        print(json.dumps(forecast_it(asked.only[0], Path(asked.place))))
        return
    with tempfile.TemporaryDirectory(prefix="ipybatch-bench-") as folder:
        place = Path(folder)
        writing = multiprocessing.get_context("spawn").Process(
            target=write_files, args=(asked.rows, asked.files, place / "table")
        )
        writing.start()
        writing.join()
        for way in asked.only:
            command = [sys.executable, "-m", __spec__.name, "--only", way, "--place", folder]
            environment = {**os.environ, "XDG_RUNTIME_DIR": folder}
            ended = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            figures = json.loads(ended.stdout.splitlines()[-1])
            print(way, {name: round(value, 1) for name, value in figures.items()}, flush=True)


if __name__ == "__main__":
    main()
