"""The template "forecast", on uploaded tables."""

import pytest

pytest.importorskip("sklearn")
import numpy as np
import pandas as pd

from ipybatch.forecast import analysis
from ipybatch.forecast.analysis import Timing
from ipybatch.server import upload_store
from ipybatch.server.templates import TEMPLATES, WrongField
from ipybatch.server.templates.demand import read_arguments
from ipybatch.simulators.demand import demand

QUICK = {"horizon": 3, "models": ["naive"]}


def upload(frame):
    """Keep a table as the server does."""
    draft = upload_store.Draft()
    draft.write(frame.to_csv(index=False).encode())
    draft.end()
    return draft.keep(upload_store.describe(draft.path, "csv"))


def test_a_table_is_quoted_and_forecast(desk, monkeypatch):
    timing = Timing(start_s=1.0, fixed_s=0.5, per_series_s=0.001, samples=((50, 0.1), (1000, 0.9)))
    monkeypatch.setattr(analysis, "time_it", lambda *_: timing)  # which takes seconds
    monkeypatch.setattr(upload_store, "run_apart", lambda work, *arguments: work(*arguments))
    kept = upload(demand(300, 3))
    given = {"upload": kept.id, "partition_strategy": "auto", "max_rows_per_partition": 150, **QUICK}
    quote = desk.quote("forecast", **given)
    assert quote.request_count == 3
    *partitions, whole = quote.quote
    assert sum(row["rows"] for row in partitions) == whole["rows"] == 300
    assert quote.seconds[0] == whole["seconds"] > 1.0
    session = desk.session("forecast", **given)
    assert session.run().counts.completed == 3
    assert TEMPLATES["forecast"].used(session) == 0
    assert len(session.results()) == 3 * whole["series"]


def test_a_table_is_checked_in_a_process_of_its_own(desk):
    kept = upload(demand(60, 2))
    assert desk.check("forecast", upload=kept.id, **QUICK).requests == 2


def test_a_bad_row_rolls_all_back_by_default(desk):
    frame = demand(60, 2).astype({"date": str})
    frame.loc[7, "date"] = "31/13/2025"
    kept = upload(frame)
    assert kept.analysis["problems"] == ["Invalid date format '31/13/2025' in row 9"]
    session = desk.session("forecast", upload=kept.id, **QUICK)
    assert session.run().state == "rolled_back"
    assert "Invalid date format '31/13/2025'" in session.reason


def test_the_names_of_the_other_system_are_ours(desk):
    params = {"partition_strategy": "site", "max_rows_per_partition": 5, "max_execution_time": 9, "max_partitions": 2}
    assert read_arguments(params) == {"by": "site", "max_rows": 5, "timeout_s": 9, "max_partitions": 2}
    assert read_arguments({"repair": ["net_returns"]}) == {"repair": ["net_returns"]}


WRONG = [
    ({"upload": None}, "upload"),
    ({"upload": "0" * 32}, "upload"),
    ({"upload": "../journal"}, "upload"),
    ({"requests": ["a"]}, "requests"),
    ({"horizon": "x"}, "params.horizon"),
    ({"horizons": 3}, "params.horizons"),
    ({"max_rows": 5, "max_rows_per_partition": 5}, "params.max_rows_per_partition"),
    ({"repair": ["clean"]}, "params.repair[0]"),
    ({"partition_strategy": "random"}, "params.partition_strategy"),
    ({"output": "/tmp/out.csv"}, "params.output"),
]
WRONG_TABLE = [
    ({"horizon": 0}, "params.horizon"),
    ({"columns": {"site": "nowhere"}}, "params.columns"),
    ({"models": ["oracle"]}, "params.models"),
    ({"max_partitions": 0}, "params.max_partitions"),
]


@pytest.mark.parametrize(("given", "field"), WRONG)
def test_what_is_wrong_is_named(desk, given, field, monkeypatch):
    monkeypatch.setattr(upload_store, "run_apart", None)  # the table is not read for that
    error = desk.refused("forecast", **{"upload": "0" * 32, **given})
    assert isinstance(error, WrongField)
    assert error.field == field


@pytest.mark.parametrize(("given", "field"), WRONG_TABLE)
def test_what_does_not_fit_the_table_is_named(desk, given, field, monkeypatch):
    monkeypatch.setattr(upload_store, "run_apart", lambda work, *arguments: work(*arguments))
    frame = pd.DataFrame({"site": "a", "part": "p", "date": pd.date_range("2025-01-01", periods=9), "quantity": 1})
    kept = upload(frame.assign(weight=np.arange(9)))
    error = desk.refused("forecast", upload=kept.id, **given)
    assert isinstance(error, WrongField)
    assert error.field == field
