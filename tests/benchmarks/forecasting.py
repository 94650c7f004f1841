"""Forecasting: the same demand through ours and through its peers: time, CPU, memory, and how good it is.

    python -m tests.benchmarks.forecasting [--data onlineretail_daily.parquet] [--peers folder] [--no-large | --huge]

    small      11,919 rows of 13 sites, simulated, 30 days ahead
    large      1,000,000 rows of 20 sites, a part to 40 of them, 120 days, 14 ahead; once, ours from parquet to parquet
    huge       10,000,000 rows of them; once, where it is asked for, ours alone
    retail     Online Retail by week, 8 ahead from 3 origins, as `accuracy` measures it; once, where BENCH_DATA names it

Ours is `forecast` with all it does: checks the table, tries eight models on its past in 13 processes that can be
killed, two at a time, chooses, adds intervals.  The peers run one model and no intervals.  CPU counts all processes
from where the packages are imported (ours imports scikit-learn in its supervisor: that counts); memory is what all
processes held at the same time, shared pages once, imports included.

The one-hot forest is given a minute and reckoned up to its 100 trees.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from . import forecasting_peers as peers
from .accuracy import GOAL, HORIZON, ORIGINS, weekly
from .measure import BYTE_CODE, LIMIT_S, ROOT, Case, Figures, Runs
from .memory import MB
from .table import Row, table

ROWS, LARGE_ROWS = 11_919, 1_000_000
LARGE_SITES, ROWS_A_PART, LARGE_DAYS = 20, 40, 120
WORKERS = 2
TREES, BOX_S = 100, 60.0
TABLE, OUT = "BENCH_TABLE", "BENCH_OUT"
SMALL, LARGE, HUGE, RETAIL = "small", "large", "huge", "retail"
AHEAD = {SMALL: 30, LARGE: 14, HUGE: 14}

OURS, OURS_IMAPA, FOREST = "ipybatch", "ipybatch, models=['imapa']", "one-hot RandomForest"
BESIDE = {
    SMALL: (peers.IMAPA, peers.TSB, peers.LIGHTGBM, peers.HISTOGRAM),
    LARGE: (peers.IMAPA, peers.TSB, peers.LIGHTGBM, peers.HISTOGRAM),
    HUGE: (),
    RETAIL: (peers.IMAPA, peers.TSB, peers.SBA, peers.ETS, peers.LIGHTGBM, peers.ABSOLUTE, peers.HISTOGRAM),
}
GOALS: dict[str, dict[str, float]] = {
    SMALL: {"wall_s": 2.5},
    LARGE: {"cpu_s": 11.0},  # half of what it took when a partition's rows and forecasts went through the session
    HUGE: {"cpu_s": 120.0, "mb": 2500.0},
    RETAIL: {"rmsse": GOAL},
}


def ours(models: list[str] | None, n: int) -> Figures:
    """Forecast the table that is there, from the frame to the frame."""
    from ipybatch.forecast import forecast

    frame = pd.read_parquet(os.environ[TABLE])
    begun_s, used_s = time.perf_counter(), peers.cpu_s()
    session = forecast(frame, horizon=AHEAD[SMALL], workers=WORKERS, models=models)
    summary = session.run()
    assert summary.state == "completed", summary.reason
    rows = len(session.results())
    return {"wall_s": time.perf_counter() - begun_s, "cpu_s": peers.cpu_s() - used_s, "rows": rows}


def ours_by_file(models: list[str] | None, n: int) -> Figures:
    """Forecast a parquet file into another."""
    from pyarrow import parquet

    from ipybatch.forecast import forecast

    out = os.environ[OUT]
    begun_s, used_s = time.perf_counter(), peers.cpu_s()
    session = forecast(os.environ[TABLE], horizon=AHEAD[LARGE], workers=WORKERS, models=models, output=out)
    summary = session.run()
    assert summary.state == "completed", summary.reason
    spent = {"wall_s": time.perf_counter() - begun_s, "cpu_s": peers.cpu_s() - used_s}
    return {**spent, "rows": parquet.read_metadata(out).num_rows}


def forest(n: int) -> Figures:
    """Plant trees on a dense one-hot table, a column a site and a part, for a minute of CPU."""
    from sklearn.ensemble import RandomForestRegressor

    frame = pd.read_parquet(os.environ[TABLE])
    names = pd.get_dummies(frame[["site", "part"]].astype(str), dtype="float32").to_numpy()
    dates = [frame["date"].dt.day_of_week, frame["date"].dt.day, frame["date"].dt.month]
    columns = np.column_stack([names, *dates]).astype("float32")
    made = RandomForestRegressor(n_estimators=0, warm_start=True, random_state=0)
    used_s = begun_s = time.process_time()
    while used_s - begun_s < BOX_S and made.n_estimators < TREES:
        made.n_estimators += 1
        made.fit(columns, frame["quantity"])
        used_s = time.process_time()
    return {"cpu_s": (used_s - begun_s) * TREES / made.n_estimators, "trees": made.n_estimators}


def accuracy(models: list[str] | None, n: int) -> Figures:
    """Measure ours as `accuracy` does."""
    from ipybatch.forecast.evaluation import evaluate
    from ipybatch.forecast.scoring import CHOSEN
    from ipybatch.forecast.settings import AUTO

    demand = pd.read_parquet(os.environ[TABLE])
    used_s = peers.cpu_s()
    found = evaluate(demand, horizon=HORIZON, origins=ORIGINS, models=models or AUTO)
    used_s = peers.cpu_s() - used_s
    scores = found.loc[CHOSEN]
    return {"cpu_s": used_s, **{name: float(scores[name]) for name in SCORES}}


SCORES = ("rmsse", "bias", "pooled_rmse")
CASES: dict[str, Case] = {
    OURS: partial(ours, None),
    OURS_IMAPA: partial(ours, ["imapa"]),
    **{f"{size}: {OURS}": partial(ours_by_file, None) for size in (LARGE, HUGE)},
    **{f"{size}: {OURS_IMAPA}": partial(ours_by_file, ["imapa"]) for size in (LARGE, HUGE)},
    FOREST: forest,
    f"{RETAIL}: {OURS}": partial(accuracy, None),
    f"{RETAIL}: {OURS_IMAPA}": partial(accuracy, ["imapa"]),
}


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Run everybody on every table; what is not there is left out, and said.  Only the large table is scaled."""
    runs: Runs = {}
    n = int(LARGE_ROWS * scale)
    with tempfile.TemporaryDirectory(prefix="ipybatch-bench-") as folder:
        place = Path(folder)
        for number in range(rounds):
            _on_table(runs, SMALL, ROWS, place, number == 0)
        if os.environ.get("BENCH_LARGE") != "0":
            _on_table(runs, LARGE, n, place, False)
        if os.environ.get("BENCH_HUGE") == "1":
            _on_table(runs, HUGE, 10 * n, place, False)
        if "BENCH_DATA" in os.environ:
            _on_retail(runs, Path(os.environ["BENCH_DATA"]), place)
        else:
            _say("no retail table: BENCH_DATA, or --data, names the daily Online Retail table")
    return runs, n


def _on_table(runs: Runs, size: str, rows: int, folder: Path, with_forest: bool) -> None:
    from ipybatch.simulators import demand

    path = folder / f"{size}.parquet"
    if not path.exists():
        parts = max(1, rows // ROWS_A_PART)
        made = demand(rows) if size == SMALL else demand(rows, LARGE_SITES, parts=parts, days=LARGE_DAYS)
        made.to_parquet(path)
    for name in (OURS, OURS_IMAPA, *([FOREST] if with_forest else []), *_present(size)):
        _say(f"{size}: {name}")
        peer = [str(peers.python()), peers.__file__, "table", name, str(path), str(AHEAD[size])]
        key = f"{size}: {name}" if f"{size}: {name}" in CASES else name
        found = watched(_own(key) if key in CASES else peer, path)
        if found is not None:
            if name == FOREST:
                del found["whole_s"]  # what the minute took: says nothing of its trees
            runs.setdefault(f"{size}: {name}", []).append(found)


def _on_retail(runs: Runs, data: Path, folder: Path) -> None:
    """Ours evaluate themselves; peers forecast a matrix, which is scored here as `evaluate` does."""
    from ipybatch.forecast.models.matrix import series_of
    from ipybatch.forecast.models.series_models import imapa

    path, given = folder / "retail.parquet", folder / "retail.npz"
    demand = weekly(data)
    demand.to_parquet(path)
    series = series_of(demand, "W")
    length = series.values.shape[1]
    cuts = [length - HORIZON * number for number in range(ORIGINS, 0, -1)]
    np.savez(given, values=series.values, dates=series.dates.to_numpy(), horizon=HORIZON, cuts=cuts)
    for name in (OURS, OURS_IMAPA, *_present(RETAIL)):
        _say(f"{RETAIL}: {name}")
        key, out = f"{RETAIL}: {name}", folder / "said.npy"
        peer = [str(peers.python()), peers.__file__, "matrix", name, str(given), str(out)]
        found = watched(_own(key) if key in CASES else peer, path)
        if found is not None:
            scores = {} if key in CASES else _scored(series.values, cuts, np.load(out))
            runs[key] = [{**found, **scores}]
    said = [imapa(series.values[:, :cut], HORIZON, 52) for cut in cuts]
    runs[PROOF] = [_scored(series.values, cuts, said)]


PROOF = "retail: our imapa, scored as the peers are"


def _scored(values: Any, cuts: Iterable[int], said: Iterable[Any]) -> Figures:
    """Return what `evaluate` would, for forecasts from each origin: means over the origins."""
    from ipybatch.forecast.models import matrix

    found = []
    for cut, forecasts in zip(cuts, said, strict=True):
        rows = (values[:, :cut] > 0).sum(axis=1) >= 2
        past, actual, made = values[rows, :cut], values[rows, cut : cut + HORIZON], forecasts[rows]
        scores = (matrix.rmsse(past, actual, made), matrix.bias(actual, made), matrix.pooled_rmse(actual, made))
        found.append(scores)
    return dict(zip(SCORES, np.mean(found, axis=0).tolist(), strict=True))


def _own(case: str) -> list[str]:
    return [sys.executable, "-m", f"{__package__}.measure", "forecasting", case, "0"]


def _present(size: str) -> tuple[str, ...]:
    if peers.python().exists():
        return BESIDE[size]
    _say(f"no statsforecast, no mlforecast at {peers.python()}. Run: python -m {peers.__name__}")
    return ()


def _say(words: str) -> None:
    print(f"  forecasting: {words}", file=sys.stderr, flush=True)


def watched(command: list[str], path: Path) -> Figures | None:
    """Run one case in a process of its own, and return its figures and the most memory of all its processes.

    None: it took longer than a run may.
    """
    with tempfile.TemporaryDirectory(prefix="ipybatch-bench-") as folder:
        files = {TABLE: str(path), OUT: f"{folder}/out.parquet"}
        place = {"IPYBATCH_JOURNAL": f"{folder}/journal.db", **files, "OMP_NUM_THREADS": "1"}
        env = {**os.environ, **BYTE_CODE, **place, "PYTHONWARNINGS": "ignore"}
        with (Path(folder) / "said").open("w+", encoding="utf-8") as said:
            used_s = _ended_s()
            process = psutil.Popen(command, cwd=ROOT, env=env, stdout=said)
            most, until_s = 0.0, time.monotonic() + LIMIT_S
            while process.poll() is None:
                most = max(most, _held(process))
                if time.monotonic() > until_s:
                    _end(process)
                    _say(f"took longer than {LIMIT_S} s, left out: {command}")
                    return None
                time.sleep(0.1)
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command)
            said.seek(0)
            figures: Figures = json.loads(said.read().splitlines()[-1])
    return {**figures, "mb": most / MB, "whole_s": _ended_s() - used_s, "load": os.getloadavg()[0]}


def _ended_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _held(process: psutil.Process) -> float:
    """Return the bytes that a process and all below it hold; what they share counts once, where the system tells."""
    held = 0.0
    for one in _family(process):
        try:
            memory = one.memory_full_info()
            held += getattr(memory, "pss", memory.rss)
        except psutil.Error:  # it has ended
            continue
    return held


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _end(process: psutil.Process) -> None:
    for one in _family(process):
        try:
            one.kill()
        except psutil.Error:
            continue
    process.wait()


def check(runs: Runs, n: int) -> None:
    """Everybody forecast every series for every day, and ours is scored alike whichever way."""
    for size in (SMALL, LARGE, HUGE):
        rows = {
            figures["rows"]
            for name, all_ in runs.items()
            if name.startswith(size)
            for figures in all_
            if "rows" in figures
        }
        assert len(rows) <= 1, rows
        assert all(count > 0 and count % AHEAD[size] == 0 for count in rows)
    if PROOF in runs:
        (by_them,), (by_us,) = runs[PROOF], runs[f"{RETAIL}: {OURS_IMAPA}"]
        assert all(np.isclose(by_them[score], by_us[score]) for score in SCORES), (by_them, by_us)


def rows(runs: Runs, n: int) -> list[Row]:
    """Return time, CPU and memory on the tables; scores and CPU on retail."""
    words = {
        "wall_s": "wall s",
        "cpu_s": "CPU s",
        "whole_s": "CPU s, imports and reading included",
        "mb": "MB at most, all processes",
    }
    titles = {SMALL: f"{ROWS:,} rows", LARGE: f"{n:,} rows, 1 run", HUGE: f"{10 * n:,} rows, 1 run"}
    made = [row for size, title in titles.items() for row in _of(runs, size, f"forecasting, {title}", words)]
    scores = {"rmsse": "RMSSE", "bias": "bias", "pooled_rmse": "pooled RMSE", "cpu_s": "CPU s"}
    return made + _of(runs, RETAIL, "forecasting, retail by week, 1 run", scores)


def _of(runs: Runs, size: str, title: str, words: dict[str, str]) -> list[Row]:
    names = [OURS, OURS_IMAPA, *BESIDE[size], FOREST]
    named = {name: runs[f"{size}: {name}"] for name in names if f"{size}: {name}" in runs}
    made = []
    for key, word in words.items():
        values = {name: [figures[key] for figures in all_ if key in figures] for name, all_ in named.items()}
        base = values.get(OURS, ()) if key in ("cpu_s", "whole_s", "mb") else ()
        made += [
            Row(
                what=f"{title}: {word}",
                name=name,
                values=found,
                ours=() if name == OURS else base,
                goal=GOALS[size].get(key) if name == OURS else None,
                note=f"reckoned from {named[name][0]['trees']:.0f} of {TREES} trees" if name == FOREST else "",
            )
            for name, found in values.items()
            if found
        ]
    return made


def main() -> None:
    """Ask this question alone."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.forecasting", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each case on the small table (default 3)")
    parser.add_argument("--data", type=Path, help="the daily Online Retail table, .parquet or .csv")
    parser.add_argument("--peers", type=Path, help=f"the peers' environment (default {peers.PLACE})")
    parser.add_argument("--no-large", action="store_true", help="leave the large table out")
    parser.add_argument("--huge", action="store_true", help="measure ten million rows too; takes minutes")
    asked = parser.parse_args()
    os.environ["BENCH_HUGE"] = "1" if asked.huge else "0"
    given = {"BENCH_DATA": asked.data, "BENCH_PEERS": asked.peers, "BENCH_LARGE": "0" if asked.no_large else None}
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})
    runs, n = ask(asked.rounds, 1.0)
    check(runs, n)
    load = [figures["load"] for of_case in runs.values() for figures in of_case if "load" in figures]
    print(table(rows(runs, n), rounds=asked.rounds, scale=1.0, load=load))


if __name__ == "__main__":
    main()
