"""Files of forecasts, and the whole of them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import InputError
from ipybatch.forecast import forecast_files, worker
from ipybatch.forecast.forecast_files import COLUMNS, ForecastFiles, check_output, write

DAYS = pd.date_range("2025-09-01", periods=2, freq="D")


def forecasts(site, parts, *, models=("imapa",), reason="best at 2 origins"):
    """Return what a partition's process returns."""
    count = len(parts)
    frame = {
        "site": pd.Categorical([site] * 2 * count),
        "part": pd.Categorical(np.repeat(parts, 2)),
        "date": np.tile(DAYS.to_numpy(), count),
        "forecast": np.arange(2.0 * count),
        "lo": 0.0,
        "hi": np.arange(2.0 * count) + 1,
        "model_used": pd.Categorical([models[at % len(models)] for at in range(2 * count)]),
        "reason": pd.Categorical([reason] * 2 * count),
    }
    return pd.DataFrame(frame)


@pytest.fixture
def files(tmp_path):
    return ForecastFiles(tmp_path / "journal.db", "spare parts")


names = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=5, unique=True)


@given(st.lists(names, min_size=1, max_size=3))
def test_the_whole_is_all_partitions_one_below_the_other(tmp_path_factory, partitions):
    """Each file numbers its names by itself; in the whole they are names again."""
    files = ForecastFiles(tmp_path_factory.mktemp("files") / "journal.db", "spare parts")
    made = [forecasts(str(at), parts, reason=f"of {at}") for at, parts in enumerate(partitions)]
    whole = files.read([files.put(str(at), f"{at:012d}", frame) for at, frame in enumerate(made)])
    assert tuple(whole.columns) == COLUMNS
    expected = pd.concat([frame.astype(dict.fromkeys(("site", "part"), object)) for frame in made])
    assert whole.astype(object).to_dict("records") == expected.astype(object).to_dict("records")


def test_more_parts_than_a_byte_can_number_stand_beside_few(files):
    many = [f"P{number}" for number in range(300)]
    names = [
        files.put("many", "a" * 12, forecasts("Sofifi", many, models=[f"model {at}" for at in range(300)])),
        files.put("few", "b" * 12, forecasts("Ambon", ["P1"])),
    ]
    whole = files.read(names)
    assert list(whole["part"].unique()) == many
    assert whole["model_used"].iloc[-1] == "imapa"


def test_numbers_stay_numbers(files):
    whole = files.read([files.put("7", "a" * 12, forecasts(7, [4711]))])
    assert (whole["site"].iloc[0] + whole["part"].iloc[0]) == 4718


def test_nothing_is_a_table_with_no_rows(files):
    assert (len(files.read([])), tuple(files.read([]).columns)) == (0, COLUMNS)


def test_what_nobody_refers_to_is_cleared_away(files, tmp_path):
    one, other = (files.put(name, "a" * 12, forecasts(name, ["P1"])) for name in ("Sofifi", "Ambon"))
    files.keep([other])
    assert [path.name for path in tmp_path.rglob("*.arrow")] == [other] != [one]
    files.keep(())
    assert list(tmp_path.iterdir()) == []


def test_no_cell_of_a_written_csv_is_a_formula(tmp_path):
    """Names come from a user's table; a spreadsheet must not run them."""
    write(forecasts("=1+1", ["@P1", "P2"]), tmp_path / "out.csv")
    found = pd.read_csv(tmp_path / "out.csv")
    assert set(found["site"]) == {"'=1+1"}
    assert set(found["part"]) == {"'@P1", "P2"}


@pytest.mark.parametrize(("name", "said"), [("out.xls", "output must end in"), ("no/out.csv", "output must lie in")])
def test_an_output_that_cannot_be_written_is_refused(tmp_path, name, said):
    with pytest.raises(InputError, match=said):
        check_output(tmp_path / name)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
@pytest.mark.parametrize("count", [0, 3])
def test_the_whole_is_written_as_it_is_read(files, tmp_path, monkeypatch, suffix, count):
    """Some rows at a time, from files that number their words each by itself: the same file as of one frame."""
    monkeypatch.setattr(forecast_files, "_WRITTEN", 3)
    made = [
        forecasts("=1+1" if at else "Sofifi", [f"P{part}" for part in range(9)], models=["ses", f"m{at}"][at % 2 :])
        for at in range(count)
    ]
    names = [files.put(str(at), f"{at:012d}", frame) for at, frame in enumerate(made)]
    files.write(names, tmp_path / f"streamed{suffix}")
    write(files.read(names), tmp_path / f"whole{suffix}")
    if suffix == ".parquet":
        streamed, whole = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("streamed", "whole"))
        pd.testing.assert_frame_equal(streamed, whole, check_categorical=False)
    else:
        assert (tmp_path / f"streamed{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


def test_rows_are_there_while_a_partition_is_trained(files, tmp_path):
    """What its process reads is what the session has; nothing of it stays."""
    frame = pd.DataFrame(
        {"site": pd.Categorical(["a", "b"]), "part": pd.Categorical([1, 2]), "date": DAYS, "quantity": [1.0, 2.0]}
    )
    with files.rows("Sofifi") as name:
        worker.write_rows(frame, files.storage, name)
        pd.testing.assert_frame_equal(worker.read(files.storage, name), frame)
    assert list(tmp_path.rglob("*.arrow")) == []
