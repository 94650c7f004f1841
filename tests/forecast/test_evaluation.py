"""evaluate() measures what forecast() delivers."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from threadpoolctl import threadpool_info

from ipybatch.backends import Processes, Threads
from ipybatch.errors import InputError, ItemError
from ipybatch.forecast import forecast
from ipybatch.forecast.evaluation import CHOSEN, evaluate
from ipybatch.forecast.models import matrix as measured
from ipybatch.forecast.models.matrix import bias, rmsse, series_of
from ipybatch.forecast.models.prior import fit_trials
from ipybatch.forecast.models.series_models import naive
from ipybatch.forecast.settings import AUTO
from tests.forecast.retail import START, matrix, table

AS_BEFORE = ["mase", "rmsse", "wape", "bias", "pooled_rmse", "coverage"]
KNOWN = pd.DataFrame({"date": pd.date_range(START, periods=200), "price": np.arange(200) % 9 / 9.0})


def demand(freq="D", sites=3, parts=12, periods=60, *, is_sold=False):
    """Several sites; one part sells in every period, so that the table ends where it is cut off.

    ``is_sold``: all do at the beginning, so that all are scored.
    """
    values = np.stack([matrix(parts, periods, seed=seed) for seed in range(sites)])
    values[0, 0] = 1
    if is_sold:
        values[:, :, :2] = 1
    days = {"D": pd.date_range(START, periods=periods), "W": pd.date_range(START, periods=periods, freq="7D")}
    days["M"] = pd.date_range("2018-01-01", periods=periods, freq="MS")
    at = np.argwhere(values)
    columns = {"site": [f"s{site}" for site in at[:, 0]], "part": [f"p{part:02}" for part in at[:, 1]]}
    return pd.DataFrame({**columns, "date": days[freq][at[:, 2]], "quantity": values[tuple(at.T)]})


def by_hand(frame, place, origins, horizon, **given):
    """Forecast what was known at each origin, and score that with the measures themselves."""
    scores = []
    for origin in origins:
        day = pd.Timestamp(origin)
        past = frame[frame["date"] <= day]
        session = forecast(past, horizon=horizon, name=origin, journal=place / "j.sqlite", **given)
        assert session.run().state == "completed"
        made = session.results().astype({"site": str, "part": str}).sort_values(["site", "part", "date"])
        freq, end = given["freq"], made["date"].max()
        end += pd.offsets.MonthEnd(0) if freq == "M" else pd.Timedelta(0)
        keys = pd.MultiIndex.from_frame(made[["site", "part"]])
        rows = frame[(frame["date"] <= end) & pd.MultiIndex.from_frame(frame[["site", "part"]]).isin(keys)]
        start = frame["date"].min() - pd.Timedelta(days=6 if freq == "W" else 0)
        values = series_of(rows, freq, start=f"{start:%Y-%m-%d}", end=f"{end:%Y-%m-%d}").values
        before, came = np.split(values, [values.shape[1] - horizon], axis=1)
        told, lo, hi = (made[name].to_numpy().reshape(came.shape) for name in ("forecast", "lo", "hi"))
        rows = (before > 0).sum(axis=1) >= 2
        before, came, told, lo, hi = (some[rows] for some in (before, came, told, lo, hi))
        scaled = [measured.mase(before, came, told), measured.rmsse(before, came, told)]
        pooled = [one(came, told) for one in (measured.wape, measured.bias, measured.pooled_rmse)]
        scores.append([*scaled, *pooled, measured.coverage(came, lo, hi)])
    return np.mean(scores, axis=0)


SOME = ("ses", "tsb", "imapa", "moving_average")
CALLS = [
    ("D", {"by": "site", "models": AUTO}),
    ("D", {"by": "size", "max_rows": 200}),
    ("D", {"by": None}),
    ("D", {"by": None, "sites": ["s1", "s2"], "parts": ["p01", "p02", "p03", "p04"]}),
    ("D", {"integer": True, "level": 0.9, "models": ("naive", "ses", "tsb")}),
    ("D", {"select": "pinball"}),
    ("D", {"known": KNOWN, "by": None, "models": ("gradient_boosting", "ses")}),
    ("W", {"by": "size", "max_partitions": 2}),
    ("M", {}),
]


@pytest.mark.parametrize(("freq", "given"), CALLS)
def test_what_is_chosen_scores_as_what_a_forecast_delivers(freq, given, tmp_path):
    frame, horizon = demand(freq), {"D": 7, "W": 5, "M": 3}[freq]
    given = {"models": SOME, **given, "freq": freq, "backend": Threads()}
    found = evaluate(frame, horizon=horizon, origins=2, **given)
    expected = by_hand(frame, tmp_path, found.attrs["origins"], horizon, **given)
    assert found.loc[CHOSEN, AS_BEFORE].to_numpy(float) == pytest.approx(expected, abs=1e-6)


def test_a_return_after_an_origin_is_not_known_there(tmp_path):
    frame = demand(parts=6, is_sold=True)
    back = frame[frame["date"] > frame["date"].min()].sample(60, random_state=1)
    back = back.assign(date=back["date"] + pd.Timedelta(days=9), quantity=-back["quantity"])
    both = pd.concat([frame, back[back["date"] <= frame["date"].max()]], ignore_index=True)
    given = {"models": SOME, "freq": "D", "backend": Threads(), "repair": {"net_returns"}}
    found = evaluate(both, horizon=7, origins=2, **given).forecasts()
    for origin, rows in found.groupby("origin"):
        made = forecast(both[both["date"] <= origin], horizon=7, name=origin, journal=tmp_path / "j.sqlite", **given)
        made.run()
        keys = ["site", "part", "date"]
        delivered = made.results().astype({"site": str, "part": str}).sort_values(keys)
        assert rows.sort_values(keys)["forecast"].to_numpy() == pytest.approx(
            delivered["forecast"].to_numpy(), abs=1e-6
        )


@pytest.mark.parametrize("sites", [["s1\u00a0", "s2"], "s1 "])
def test_names_are_read_as_a_forecast_reads_them(sites):
    found = evaluate(demand(), horizon=5, by=None, sites=sites, models="ses", baselines="naive", origins=1)
    asked = [sites] if isinstance(sites, str) else sites
    assert {*found.forecasts()["site"]} == {site.strip() for site in asked}
    assert [*found.index] == [CHOSEN, "ses", "naive"]


def test_what_could_not_be_borrowed_is_told():
    class Poor(Threads):
        async def run(self, work, arguments):
            if work is fit_trials:
                raise MemoryError
            return await super().run(work, arguments)

    with pytest.warns(UserWarning, match="partitions learn from their own rows alone"):
        evaluate(demand(), horizon=5, origins=1, backend=Poor(), models=("gradient_boosting", "ses"))


def test_a_small_table_needs_no_processes_and_scores_the_same():
    frame = demand(parts=6)
    small = evaluate(frame, horizon=7, origins=1)
    apart = evaluate(frame, horizon=7, origins=1, workers=2)
    pd.testing.assert_frame_equal(small, apart, check_exact=False, rtol=1e-9)


def test_models_stand_beside_naive_and_seasonal_naive():
    found = evaluate(table(matrix(40)), horizon=5, models=("tsb", "imapa"))
    assert list(found.index) == [CHOSEN, "tsb", "imapa", "naive", "seasonal_naive"]
    assert list(found.columns) == [*AS_BEFORE, "coverage_nonzero"]
    assert found.loc["imapa", "rmsse"] < found.loc["naive", "rmsse"]
    assert found.attrs["origins"] == ["2025-08-05", "2025-08-10", "2025-08-15"]


def test_the_measures_are_the_means_over_the_origins():
    values = matrix(30)
    values[:, 0] = values[:, 1] = values[:, -1] = 1  # so that the table's span and every series are known
    found = evaluate(table(values), horizon=4, origins=2, models=("naive",))
    said = [(values[:, :cut], values[:, cut : cut + 4], naive(values[:, :cut], 4, 7)) for cut in (72, 76)]
    assert found.loc["naive", "rmsse"] == pytest.approx(np.mean([rmsse(*one) for one in said]))
    assert found.loc["naive", "bias"] == pytest.approx(np.mean([bias(*one[1:]) for one in said]))


def test_more_origins_than_the_table_holds_are_refused():
    with pytest.raises(
        InputError, match="horizon times origins must be at most 78 of the table's 80 periods, got 40 x 2"
    ):
        evaluate(table(matrix(10)), horizon=40, origins=2)


@pytest.mark.parametrize("quantity", [0, 1])
def test_a_table_of_which_no_series_can_be_scored_is_refused(quantity):
    days = pd.date_range(START, periods=30)
    frame = pd.DataFrame({"site": "a", "part": [f"p{day}" for day in range(30)], "date": days, "quantity": quantity})
    with pytest.raises(InputError, match="demand must have series that sold in two periods before an origin"):
        evaluate(frame, horizon=3, origins=2, models=("naive",))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"horizon": 7.0}, "horizon must be a whole number"),
        ({"horizon": "7"}, "horizon must be a whole number"),
        ({"horizon": 7, "origins": 2.0}, "origins must be a whole number"),
        ({"horizon": 7, "models": 5}, "models must be names or have fit and predict, got 5"),
        ({"horizon": 7, "models": LinearRegression}, "models must be objects, got the class LinearRegression"),
        ({"horizon": 7, "baselines": "prophet"}, "got 'prophet'"),
        (
            {"horizon": 20, "by": "size", "max_rows": 50, "split_series": True, "models": "naive", "origins": 1},
            "and of those that have, 1 series that lie in several partitions",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(given, words):
    sold = pd.DataFrame({"site": "a", "part": "p", "date": pd.date_range(START, periods=120), "quantity": 2})
    with pytest.raises(InputError, match=words):
        evaluate(sold, **given)


def test_an_unclean_table_is_refused():
    frame = table(matrix(10))
    frame.loc[3, "quantity"] = -1
    with pytest.raises(InputError, match="row 3"):
        evaluate(frame, horizon=2)


@pytest.mark.parametrize("repair", ["drop_bad_rows", "net_returns"])
def test_a_table_that_is_repaired_is_evaluated(repair):
    frame = table(matrix(10))
    frame.loc[3, "quantity"] = -1
    made = evaluate(frame, horizon=2, origins=1, models=["naive"], baselines=(), repair={repair})
    assert made.attrs["series"] > 0


def test_models_train_with_one_thread(tmp_path):
    """Several on busy cores take ten times as long."""
    place = tmp_path / "seen"

    class Watched(LinearRegression):
        def fit(self, rows, target):
            seen = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp"}
            place.write_text(str(seen))
            return super().fit(rows, target)

    evaluate(table(matrix(20)), horizon=5, origins=1, models=[Watched()], backend=Threads())
    assert place.read_text() == "{1}"


class Failing(LinearRegression):
    """Fails, or takes forever, where the parts of one site are trained."""

    def fit(self, rows, target):
        if len(rows) < 200:
            msg = "too few"
            raise ValueError(msg)
        return super().fit(rows, target)


def test_a_partition_that_fails_is_told_and_left_out_of_all_rows():
    frame = pd.concat([demand(sites=1, parts=30), table(matrix(3, 60), site="small")])
    with pytest.warns(UserWarning, match=r"left out of the evaluation: small, .*too few.*; small, .*too few"):
        found = evaluate(frame, horizon=7, origins=2, models=["ses", Failing()], backend=Threads())
    alone = evaluate(
        frame[frame["site"] != "small"], horizon=7, origins=2, models=["ses", Failing()], backend=Threads()
    )
    assert len(found.attrs["left_out"]) == 2
    assert not alone.attrs["left_out"]
    pd.testing.assert_frame_equal(found, alone)


def test_one_without_a_partition_that_can_be_measured_says_why():
    with pytest.raises(ItemError, match=r"no partition could be measured: .*too few"):
        evaluate(table(matrix(3, 60)), horizon=7, origins=1, models=[Failing()], backend=Threads())


def test_series_that_a_cut_spreads_are_not_scored():
    """Each of several partitions forecasts them: what is delivered has each of their dates more than once."""
    frame = demand().assign(half=lambda rows: np.where(rows["date"].dt.day % 2, "odd", "even"))
    frame.loc[frame["site"] != "s0", "half"] = "whole"
    with pytest.warns(UserWarning, match="series that lie in several partitions"):
        found = evaluate(frame, horizon=7, origins=2, by="half", models=["ses"])
    assert set(found.by_series().reset_index()["site"]) == {"s1", "s2"}


def test_parts_that_came_later_are_not_asked_for_at_earlier_origins():
    frame = demand()
    frame = frame[(frame["part"] != "p01") | (frame["date"] > frame["date"].max() - pd.Timedelta(days=10))]
    found = evaluate(frame, horizon=7, origins=2, by=None, parts=["p01", "p02"], models=["ses"])
    assert {"p01", "p02"} >= set(found.forecasts()["part"]) >= {"p02"}
    with pytest.raises(InputError, match="parts must be parts that have demand"):
        evaluate(frame, horizon=7, by=None, parts=["nowhere"])


def test_measures_are_told_by_class_partition_and_series():
    found = evaluate(demand(is_sold=True), horizon=7, models=["ses", "tsb"])
    classes, partitions, series = found.by_class(), found.by_partition("ses"), found.by_series()
    assert set(classes.index) <= {"smooth", "intermittent", "erratic", "lumpy", "new", "dead"}
    assert list(partitions.index) == ["s0", "s1", "s2"]
    assert list(classes.columns) == ["series", *found.columns] == list(partitions.columns)
    assert classes["series"].sum() >= len(series) == len(series.index.unique())
    rows = found.forecasts()
    names = ["origin", "site", "part", "date", "actual", "forecast", "lo", "hi", "model_used"]
    assert list(rows.columns) == names
    assert series["absolute_error"].sum() == pytest.approx((rows["actual"] - rows["forecast"]).abs().sum())
    with pytest.raises(InputError, match="model must be one of"):
        found.by_class("none")


def test_new_and_dead_series_are_classes_of_their_own():
    """With their coverage; they are in no other class."""
    values = matrix(12, 70, seed=1) + 1.0
    values[:4, :40] = 0.0  # begin late, and keep selling
    values[4:7, 35:] = 0.0  # have ended
    found = evaluate(table(values), horizon=7, origins=1, models=["ses", "tsb"])
    classes, series = found.by_class(), found.by_series()
    assert classes["series"].drop(["new", "dead"]).sum() == 5
    assert classes.loc[["new", "dead"], "series"].tolist() == [4, 3]
    assert classes.loc[["new", "dead"], "coverage"].between(0, 1).all()
    assert np.isnan(classes.loc["dead", "coverage_nonzero"])
    assert series["class"].value_counts()[["new", "dead"]].tolist() == [4, 3]
    assert set(found.by_class("tsb").index) == set(classes.index)
    held = [(row["actual"] >= row["lo"]) & (row["actual"] <= row["hi"]) for _, row in found.forecasts().iterrows()]
    is_new = found.forecasts()["part"].isin([f"p{number:04}" for number in range(4)])
    assert classes.loc["new", "coverage"] == pytest.approx(np.mean(np.array(held)[is_new]))


def test_coverage_is_told_of_periods_that_sold_too():
    found = evaluate(demand(is_sold=True), horizon=7, models=["ses"])
    rows = found.forecasts()
    held = (rows["actual"] >= rows["lo"]) & (rows["actual"] <= rows["hi"])
    by_origin = held[rows["actual"] > 0].groupby(rows["origin"]).mean()
    assert found.loc[CHOSEN, "coverage_nonzero"] == pytest.approx(by_origin.mean())


def test_baselines_are_named_and_unknown_ones_refused():
    found = evaluate(demand(sites=1), horizon=7, models=["ses"], baselines=["sba"])
    assert list(found.index) == [CHOSEN, "ses", "sba"]
    with pytest.raises(InputError, match="baselines must be names of models"):
        evaluate(demand(sites=1), horizon=7, baselines=["prophet"])


class Peer:
    """Looks like a model of statsforecast."""

    alias = "Peer"

    def fit(self, values):
        return self

    def forecast(self, y, h):
        return {"mean": np.full(h, y.mean())}


class BrokenPeer(Peer):
    alias = "Broken"

    def forecast(self, y, h):
        msg = "it cannot"
        raise RuntimeError(msg)


def test_a_baseline_of_another_package_that_fails_has_no_row():
    with pytest.warns(UserWarning, match="Broken: Partition .*it cannot"):
        found = evaluate(demand(), horizon=7, models=["ses"], baselines=[Peer(), BrokenPeer()], backend=Threads())
    assert list(found.index) == [CHOSEN, "ses", "Peer"]


def test_how_far_it_is_is_told():
    told = []
    evaluate(demand(), horizon=7, origins=2, models=["ses"], on_progress=lambda *counts: told.append(counts))
    assert told[-1] == (6, 6)


def test_a_partition_has_the_time_that_a_forecast_gives_it():
    class Endless(LinearRegression):
        def fit(self, rows, target):
            time.sleep(60)

    with pytest.raises(ItemError, match=r"Exceeded 0.2s"):
        evaluate(demand(sites=1), horizon=7, origins=1, models=[Endless()], timeout_s=0.2)


def test_an_interrupt_ends_it_and_its_processes(tmp_path):
    class Slow(LinearRegression):
        def fit(self, rows, target):
            (tmp_path / "pid").write_text(str(os.getpid()))
            time.sleep(60)

    def interrupt():
        while not (tmp_path / "pid").exists():
            time.sleep(0.02)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        evaluate(demand(), horizon=7, origins=2, models=[Slow()], backend=Processes(1))
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()
