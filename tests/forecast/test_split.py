"""Split: workers read the files of a table, and what comes of it is what the session would have read."""

import asyncio
import re
import shutil
import signal
import threading

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipybatch import InputError
from ipybatch.backends import OutOfMemory, Processes
from ipybatch.errors import MissingExtra
from ipybatch.forecast import forecast
from ipybatch.forecast.data import blocks, pieces, sources, summaries
from ipybatch.forecast.data.blocks import Stored
from ipybatch.forecast.data.problems import BadRows
from ipybatch.forecast.data.sources import pieces_of
from ipybatch.forecast.data.table import read_table
from ipybatch.forecast.data.understanding import Undecided
from ipybatch.forecast.split import split_table
from ipybatch.forecast.storage import Folder, storage_of
from ipybatch.simulators.demand import demand
from tests.forecast.test_storage import Here

OURS = ["site", "part", "date", "quantity"]


def dealt(folder, table, count=6, kind="parquet", **written):
    """Write a table's rows into files, one row after the other to the next file."""
    folder.mkdir(exist_ok=True)
    for at in range(count):
        rows = table.iloc[at::count]
        if kind == "parquet":
            rows.to_parquet(folder / f"part-{at}.parquet", index=False, **written)
        else:
            rows.to_csv(folder / f"part-{at}.csv", index=False, **written)
    return folder


def split(given, storage, backend=None, **arguments):
    return split_table(pieces_of(given), storage, backend or Here(), 2, **arguments)


def rows_of(table):
    return Stored(table.storage, table.ranges()).frame()


def assert_the_same(folder, tmp_path, **arguments):
    """What workers read is what the session reads: rows, problems, period, and what is told of it."""
    found = split(folder, Folder(tmp_path / "split"), **arguments)
    whole = read_table(folder, **arguments)
    pd.testing.assert_frame_equal(rows_of(found), whole.frame[OURS], check_categorical=False, rtol=1e-12)
    for field in ("freq", "start", "end", "rows", "columns"):
        assert getattr(found, field) == getattr(whole, field)
    told = [(one.column, one.value[:10], one.reason, one.site, one.part) for one in found.problems]
    assert sorted(told, key=str) == sorted(
        [(one.column, one.value[:10], one.reason, one.site, one.part) for one in whole.problems], key=str
    )
    return found, whole


@pytest.fixture
def shuffled():
    """Some rows of which come twice, in other files."""
    table = demand(rows=3000, sites=5, seed=3)
    table = pd.concat([table, table.head(200).assign(quantity=2)])
    return table.sample(frac=1, random_state=1)


@pytest.fixture(params=["parquet", "csv"])
def folder(request, tmp_path, shuffled):
    if request.param == "csv":
        shuffled["date"] = pd.to_datetime(shuffled["date"]).dt.strftime("%d/%m/%Y")
        return dealt(tmp_path / "in", shuffled, kind="csv", sep=";", decimal=",")
    return dealt(tmp_path / "in", shuffled)


def test_workers_read_what_the_session_would(folder, tmp_path):
    found, whole = assert_the_same(folder, tmp_path)
    assert "200 of 3,200 rows repeat a site, part and date: their quantities were summed" in found.notes
    assert found.understood.lines()[:3] == whole.understood.lines()[:3]


def test_large_files_and_sites_are_cut(shuffled, tmp_path, monkeypatch):
    """Between row groups, and between parts: then rows of a batch are of several."""
    monkeypatch.setattr(sources, "_PIECE", 300)
    monkeypatch.setattr(summaries, "_BLOCK", 700)
    for module in (pieces, blocks):
        monkeypatch.setattr(module, "BATCH", 64)
    folder = dealt(tmp_path / "in", shuffled, row_group_size=100)
    assert len(pieces_of(folder)) == 12
    found, _ = assert_the_same(folder, tmp_path)
    assert len(found.held) > 5
    assert max(len(block) for _, block in found.held) > 1


CUTS = [
    {"by": "site"},
    {"by": "site", "max_partitions": 3},
    {"by": "size", "max_rows": 700},
    {"by": "size", "max_rows": 90, "split_series": True, "max_partitions": 60},
    {"by": "size", "max_rows": 100, "max_partitions": 4},
    {"by": None},
    {"by": None, "sites": ["Makassar", "Ambon"], "parts": ["P0001", "P0007"]},
]


@pytest.fixture(scope="module")
def forecasts(tmp_path_factory):
    """A folder of six files, and what the session makes of it when it reads them itself."""
    place = tmp_path_factory.mktemp("forecasts")
    table = demand(rows=2500, sites=5, parts=120, seed=3)
    table["part"] = [f"P{int(name[-4:]):04}" if name[-4:].isdigit() else name for name in table["part"]]
    folder = dealt(place / "in", table.sample(frac=1, random_state=1))
    return place, folder, table


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_the_forecast_is_the_one_of_the_table_in_memory(forecasts, journal, tmp_path, cut):
    _, folder, table = forecasts
    if "parts" in cut:
        cut = {**cut, "parts": table[table["site"] == "Ambon"]["part"].unique()[:3].tolist()}
    arguments = {"horizon": 5, "models": ["naive", "ses"], "journal": journal, "workers": 2, **cut}
    held = forecast(folder, name="held", backend=Here(), **arguments)
    found = forecast(folder, name="found", backend=Here(), storage=tmp_path / "shared", **arguments)
    assert (held.run().state, found.run().state) == ("completed", "completed")
    figures = ["key", "rows", "series", "coverage"]
    pd.testing.assert_frame_equal(found.partitions()[figures], held.partitions()[figures])
    pd.testing.assert_frame_equal(found.results(), held.results(), check_categorical=False, rtol=1e-9)
    assert set(held.table_notes) < set(found.table_notes)


def test_small_partitions_borrow_the_same(forecasts, journal, tmp_path):
    """What is drawn from all partitions is drawn by a worker, and is the same."""
    _, folder, _ = forecasts
    arguments = {"horizon": 5, "models": ["ses", "gradient_boosting"], "journal": journal, "workers": 2}
    held = forecast(folder, name="held", backend=Processes(2), **arguments)
    found = forecast(folder, name="found", backend=(here := Here()), storage=tmp_path / "shared", **arguments)
    assert (held.run().state, found.run().state) == ("completed", "completed")
    assert here.ran.count("draw") == 1
    assert here.ran.count("learn") == 2
    pd.testing.assert_frame_equal(found.results(), held.results(), check_categorical=False, rtol=1e-9)
    assert not list((tmp_path / "shared").rglob("*.sample.arrow"))


def test_places_of_fsspec_are_read_and_written(shuffled, journal, tmp_path):
    at = f"memory://{tmp_path}"
    dealt(tmp_path / "in", shuffled)
    files = storage_of(f"{at}/in")
    for path in (tmp_path / "in").iterdir():
        with files.writing(path.name) as file:
            file.write(path.read_bytes())
    arguments = {"horizon": 5, "models": ["naive"], "journal": journal, "workers": 2}
    held = forecast(tmp_path / "in", name="held", backend=Here(), **arguments)
    found = forecast(f"{at}/in", name="found", backend=Here(), storage=f"{at}/run", **arguments)
    assert (held.run().state, found.run().state) == ("completed", "completed")
    pd.testing.assert_frame_equal(found.results(), held.results(), check_categorical=False)
    found.forget()
    assert [storage_of(f"{at}/run").below(name).names() for name in storage_of(f"{at}/run").names()] == []


def test_what_is_there_is_not_read_again(shuffled, tmp_path):
    """After a kernel has died, too: a file of the user's that is as it was is read once."""
    folder, storage = dealt(tmp_path / "in", shuffled), Folder(tmp_path / "split")
    first, second, third = Here(), Here(), Here()
    split(folder, storage, first)
    rows = rows_of(split(folder, storage, second))
    shuffled.iloc[:5].to_parquet(folder / "part-6.parquet", index=False)
    split(folder, storage, third)
    assert [one.ran.count("split") for one in (first, second, third)] == [6, 0, 1]
    assert [one.ran.count("gather") > 0 for one in (first, second, third)] == [True, False, True]
    (folder / "part-6.parquet").unlink()
    pd.testing.assert_frame_equal(rows_of(found := split(folder, storage)), rows)
    found.clear_up()
    assert len([name for name in storage.names() if name.endswith(".summary.arrow")]) == 6


def test_only_partitions_whose_rows_changed_are_trained_again(shuffled, journal, tmp_path):
    """In whichever files they lie now."""

    def run(folder):
        here = Here()
        made = forecast(folder, horizon=5, models=["naive"], journal=journal, storage=tmp_path / "shared", backend=here)
        assert made.run().state == "completed"
        return here.ran.count("train")

    assert run(dealt(tmp_path / "in", shuffled)) == 5
    assert run(dealt(tmp_path / "other", shuffled, count=4)) == 0
    shuffled.loc[shuffled["site"] == "Ambon", "quantity"] += 1
    assert run(dealt(tmp_path / "in", shuffled)) == 1


def test_another_call_leaves_the_rows_of_a_forecast_alone(shuffled, journal, tmp_path):
    """Until it runs; then the forecast that was made before it says so, before anything is trained."""
    arguments = {"horizon": 5, "models": ["naive"], "journal": journal, "storage": tmp_path / "shared"}
    first = forecast(dealt(tmp_path / "in", shuffled), backend=Here(), **arguments)
    other = forecast(dealt(tmp_path / "other", shuffled.head(900)), backend=(here := Here()), **arguments)
    assert first.run().state == "completed", first.reason
    assert other.run().state == "rolled_back"
    assert re.search(r"storage must keep what workers read of demand, got \d+ of \d+ files gone", other.reason)
    assert "train" not in here.ran


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_file_that_changes_while_it_is_read_is_refused_by_name(shuffled, tmp_path, kind):
    class Meanwhile(Here):
        async def run(self, work, arguments):
            made = await super().run(work, arguments)
            if work.__name__ == "split" and "part-4" in arguments[0].path:
                dealt(tmp_path / "in", shuffled.head(950), kind=kind)
            return made

    folder, storage = dealt(tmp_path / "in", shuffled, kind=kind), Folder(tmp_path / "split")
    with pytest.raises(InputError, match=rf"got 'part-0.{kind}', which changed: run the same call again"):
        split(folder, storage, Meanwhile())
    assert split(folder, storage).rows == 950


def changed(table, at, **values):
    for name, value in values.items():
        table[name] = table[name].astype(object)
        table.iloc[at, list(table.columns).index(name)] = value
    return table


def test_rows_that_cannot_be_used_are_told_by_file_and_row(tmp_path, journal):
    table = demand(rows=600, sites=3, seed=1).reset_index(drop=True)
    table["date"] = pd.to_datetime(table["date"]).dt.strftime("%Y-%m-%d")
    changed(table, 10, quantity=-3)
    changed(table, 14, date="2025-13-45")
    changed(table, 301, site="")
    folder = dealt(tmp_path / "in", table, kind="csv")
    found, _ = assert_the_same(folder, tmp_path)
    assert [str(problem) for problem in found.problems] == [
        "Missing site in row 52 of part-1.csv",
        "Invalid date format '2025-13-45' in row 4 of part-2.csv",
        "Negative quantity -3 in row 3 of part-4.csv",
    ]
    with pytest.raises(BadRows, match=r"got Missing site in row 52 of part-1.csv: correct"):
        forecast(folder, horizon=5, journal=journal, storage=tmp_path / "shared", backend=Here())
    found, _ = assert_the_same(folder, tmp_path, repair={"drop_bad_rows"})
    assert len(found.dropped) == 3


def test_a_file_of_many_bad_rows_is_refused_by_name_or_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "_MOST_PROBLEMS", 5)
    table = demand(rows=600, sites=3, seed=1)
    table.iloc[:100, list(table.columns).index("quantity")] = -1
    folder = dealt(tmp_path / "in", table)
    with pytest.raises(BadRows, match=r"got 1[67] in 'part-0.parquet', of the first 5: Negative quantity in 5 rows"):
        split(folder, Folder(tmp_path / "split"))
    found = split(folder, Folder(tmp_path / "split"), repair={"drop_bad_rows"})
    assert "70 rows more that cannot be used were dropped: of a file the first are told" in found.notes
    assert len(rows_of(found)) == 500


def test_a_mistyped_year_is_told_by_file_and_row(tmp_path):
    table = demand(rows=900, sites=3, seed=1)
    table["date"] = pd.to_datetime(table["date"])
    table.iloc[8, list(table.columns).index("date")] = pd.Timestamp("2052-08-01")
    found, whole = assert_the_same(dealt(tmp_path / "in", table), tmp_path)
    assert [problem.place for problem in found.problems] == ["row 1 of part-2.parquet"]
    assert found.end == whole.end < pd.Timestamp("2026-01-01")


def test_returns_are_netted_over_all_files(tmp_path):
    table = demand(rows=900, sites=3, parts=40, seed=1)
    chance = np.random.default_rng(2)
    back = table.sample(120, random_state=4).assign(quantity=-chance.integers(1, 4, 120))
    folder = dealt(tmp_path / "in", pd.concat([table, back]))
    found, whole = assert_the_same(folder, tmp_path, repair={"net_returns"})
    told = [note for note in whole.notes if "returns were" in note]
    assert len(told) == 2
    assert [note.partition(", the first in row")[0] for note in told] == [
        note for note in found.notes if "returns were" in note
    ]


@pytest.mark.parametrize("repair", [None, {"merge_near_duplicates"}])
def test_names_are_those_of_the_whole_table(tmp_path, repair):
    """A number in one file is text in another; 123.0 is 123 unless a decimal counts; KENDARI may be Kendari."""
    days = pd.date_range("2025-07-01", periods=30).strftime("%Y-%m-%d")
    rows = [("Kendari", "123.0"), (" Kendari", "0123"), ("KENDARI", "123"), ("Palu", "77"), ("Palu", "A-1")]
    table = pd.DataFrame([(site, part, day, 1) for site, part in rows for day in days], columns=OURS)
    folder = tmp_path / "in"
    folder.mkdir()
    for at, (_, each) in enumerate(table.groupby(["site", "part"])):
        each.to_csv(folder / f"{at}.csv", index=False)
    found, whole = assert_the_same(folder, tmp_path, repair=repair)
    assert set(whole.notes[1:]) <= set(found.notes) | {whole.notes[0]}


def test_numbers_stay_numbers(tmp_path):
    table = demand(rows=600, sites=3, seed=1)
    table["site"] = pd.factorize(table["site"])[0] + 9
    table["part"] = pd.factorize(table["part"])[0]
    found, _ = assert_the_same(dealt(tmp_path / "in", table), tmp_path)
    assert [one.site for _, held in found.held for one in held] == [9, 10, 11]


def test_columns_may_be_the_names_of_folders(tmp_path, shuffled):
    for site, rows in shuffled.groupby("site"):
        (tmp_path / "in" / f"site={site}").mkdir(parents=True)
        rows.drop(columns="site").to_parquet(tmp_path / "in" / f"site={site}" / "0.parquet", index=False)
    assert_the_same(tmp_path / "in", tmp_path)


def test_what_is_known_ahead_is_checked_against_all_series(forecasts, journal, tmp_path):
    _, folder, table = forecasts
    days = pd.date_range(table["date"].min(), pd.to_datetime(table["date"]).max() + pd.Timedelta(days=5))
    known = pd.DataFrame({"date": days, "holiday": (days.day_of_week == 6).astype(float)})
    arguments = {"horizon": 5, "models": ["ses"], "journal": journal, "known": known}
    held = forecast(folder, name="held", backend=Here(), **arguments)
    found = forecast(folder, name="found", backend=Here(), storage=tmp_path / "shared", **arguments)
    assert (held.run().state, found.run().state) == ("completed", "completed")
    pd.testing.assert_frame_equal(found.results(), held.results(), check_categorical=False, rtol=1e-9)


def text(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["site,part,date,quantity", *rows]) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("rows", "error", "said"),
    [
        ([["a,b,2025-07-01,'1.234'"], ["a,b,2025-07-02,x"]], InputError, "quantity"),
        ([["a,b,03/04/2025,1"], ["a,b,05/04/2025,1"]], Undecided, "dates that read in one way in 'date'"),
        ([["a,b,2025-07-01,1"], []], None, ""),
    ],
    ids=["no number", "day or month", "an empty file"],
)
def test_what_the_first_rows_leave_open_is_asked_before_anything_is_read(tmp_path, rows, error, said):
    for at, each in enumerate(rows):
        text(tmp_path / "in" / f"{at}.csv", each)
    here = Here()
    if error is None:
        assert split(tmp_path / "in", Folder(tmp_path / "split"), here).rows == 1
        return
    with pytest.raises(error, match=said):
        split(tmp_path / "in", Folder(tmp_path / "split"), here)


def test_files_that_are_written_in_different_ways_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_LOOKED_AT", 1)
    monkeypatch.setattr(sources, "_FURTHER", 0)
    days = pd.date_range("2025-07-13", periods=15)
    text(tmp_path / "in" / "0.csv", [f"a,b,{day:%Y-%m-%d},7" for day in days])
    text(tmp_path / "in" / "1.csv", [f"a,b,{day:%d/%m/%Y},7" for day in days])
    text(tmp_path / "in" / "2.csv", [f"a,c,{day:%m/%d/%Y},7" for day in days])
    with pytest.raises(InputError, match=r"got 'DMY' in '1.csv' and 'MDY' in '2.csv': say date_format="):
        split(tmp_path / "in", Folder(tmp_path / "split"))


@pytest.mark.parametrize(
    ("form", "others", "said"),
    [
        ("%d/%m/%Y", "%m/%d/%Y", "month, day, year"),
        ("%d/%m/%y", "%y/%m/%d", "year, month, day"),
    ],
)
def test_a_file_that_nobody_looked_at_may_not_tell_another_order(tmp_path, monkeypatch, form, others, said):
    """Some of its dates would be read as other days, and nobody would know."""
    monkeypatch.setattr(sources, "_LOOKED_AT", 1)
    monkeypatch.setattr(sources, "_FURTHER", 0)
    days = pd.date_range("2025-07-01", periods=60)
    text(tmp_path / "in" / "0.csv", [f"a,b,{day:{form}},7" for day in days])
    text(tmp_path / "in" / "1.csv", [f"a,c,{day:{form}},7" for day in days[:9]])
    assert split(tmp_path / "in", Folder(tmp_path / "split")).rows == 69
    text(tmp_path / "in" / "2.csv", [f"a,c,{day:{others}},7" for day in days])
    with pytest.raises(InputError, match=rf"2.csv: .* dates of one order in date, got '.*' \({said}\), where"):
        split(tmp_path / "in", Folder(tmp_path / "split"))


def test_a_file_that_cannot_be_read_is_named(tmp_path, shuffled):
    folder = dealt(tmp_path / "in", shuffled)
    table = pd.read_parquet(folder / "part-3.parquet").rename(columns={"part": "article"})
    table.to_parquet(folder / "part-3.parquet", index=False)
    with pytest.raises(InputError, match=r"'part-0.parquet' and 'part-3.parquet': article, part is not in both"):
        split(folder, Folder(tmp_path / "split"))


@pytest.mark.parametrize("at", [0, 3])
def test_a_file_without_rows_is_no_other_table(tmp_path, shuffled, at):
    folder = dealt(tmp_path / "in", shuffled)
    shuffled.head(0).to_parquet(folder / f"part-{at}.parquet", index=False)
    assert_the_same(folder, tmp_path)


@pytest.mark.parametrize(
    ("column", "others"),
    [
        ("part", lambda rows: [f"00{number % 5}" for number in range(len(rows))]),
        ("date", lambda rows: pd.to_datetime(rows["date"]).dt.tz_localize("Asia/Jakarta")),
        ("date", lambda rows: pd.to_datetime(rows["date"]).dt.strftime("%Y%m%d").astype(int)),
        ("quantity", lambda rows: rows["quantity"] + 0.5),
        ("quantity", lambda rows: (rows["quantity"] + 0.5).astype(str)),
    ],
)
def test_columns_of_other_types_are_read_as_they_are(tmp_path, shuffled, column, others):
    """The types of the first file would make 007 a 7, and 20250701 a moment of 1970."""
    shuffled["part"] = np.arange(len(shuffled)) % 5
    folder = dealt(tmp_path / "in", shuffled)
    rows = pd.read_parquet(folder / "part-3.parquet")
    rows.assign(**{column: others(rows)}).to_parquet(folder / "part-3.parquet", index=False)
    found, _ = assert_the_same(folder, tmp_path)
    assert (found.start.year, len(found.keys()["part"].unique())) == (2025, 10 if column == "part" else 5)


@pytest.mark.parametrize("looked_at", [20_000, 1])
def test_text_of_other_columns_is_refused_by_name(tmp_path, shuffled, monkeypatch, looked_at):
    """Whether the session looks at the file or only a worker reads it."""
    monkeypatch.setattr(sources, "_LOOKED_AT", looked_at)
    monkeypatch.setattr(sources, "_FURTHER", 0)
    folder = dealt(tmp_path / "in", shuffled, kind="csv")
    table = pd.read_csv(folder / "part-3.csv")
    for other, odd in (("part", "article, part"), ("quantity", "article, quantity")):
        table.rename(columns={other: "article"}).to_csv(folder / "part-3.csv", index=False)
        with pytest.raises(InputError, match=rf"of the same columns, got .* and 'part-3.csv': {odd} is not in both"):
            split(folder, Folder(tmp_path / "split"))


def test_what_takes_the_whole_table_is_refused(tmp_path, shuffled, journal):
    folder = dealt(tmp_path / "in", shuffled)
    with pytest.raises(InputError, match=r"by must be 'site', 'size' or None where workers read"):
        forecast(folder, by="part", journal=journal, storage=tmp_path / "shared", backend=Here())
    wide = shuffled.pivot_table(index=["site", "part"], columns="date", values="quantity", aggfunc="sum").reset_index()
    wide.columns = [str(name)[:10] for name in wide.columns]
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="a column for each date: melt it"):
        split(dealt(folder, wide), Folder(tmp_path / "split"))


def test_spreadsheets_and_frames_are_read_by_the_session(tmp_path, shuffled, journal):
    assert pieces_of(shuffled) is None
    shuffled.head(9).to_excel(tmp_path / "table.xlsx", index=False)
    assert pieces_of(tmp_path / "table.xlsx") is None
    made = forecast(
        tmp_path / "table.xlsx", horizon=2, models=["naive"], journal=journal, storage=tmp_path / "at", backend=Here()
    )
    assert made.run().state == "completed"


def test_ctrl_c_ends_the_reading(tmp_path, shuffled):
    class Interrupted(Here):
        has_ended = is_closed = False

        async def run(self, work, arguments):
            if work.__name__ != "split":
                return await super().run(work, arguments)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            try:
                await asyncio.Event().wait()
            finally:
                self.has_ended = True

        async def close(self):
            self.is_closed = True

    here = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        split(dealt(tmp_path / "in", shuffled), Folder(tmp_path / "split"), here)
    assert (here.has_ended, here.is_closed) == (True, True)


@pytest.mark.parametrize(
    ("failure", "error", "said"),
    [
        (OutOfMemory("Out of memory"), InputError, "files that a worker can read, got 'part-4.parquet': Out of memory"),
        (MissingExtra("forecast"), MissingExtra, "Run: pip install"),
        (OSError("no space left"), OSError, "no space left"),
    ],
)
def test_a_worker_that_fails_names_the_file(tmp_path, shuffled, failure, error, said):
    class Fails(Here):
        async def run(self, work, arguments):
            if work.__name__ == "split" and "part-4" in arguments[0].path:
                raise failure
            return await super().run(work, arguments)

    folder = dealt(tmp_path / "in", shuffled)
    with pytest.raises(error, match=said):
        split(folder, Folder(tmp_path / "split"), Fails())


@pytest.mark.parametrize("ours", ["site", "part"])
def test_totals_are_left_out(tmp_path, shuffled, ours):
    """What sums all others up would count every piece twice; a name that only says so is one like any other."""
    other = "part" if ours == "site" else "site"
    sums = shuffled.groupby([other, "date"], as_index=False)["quantity"].sum().assign(**{ours: "TOTAL"})
    folder = dealt(tmp_path / "in", pd.concat([shuffled, sums])[OURS])
    found, whole = assert_the_same(folder, tmp_path)
    (told,) = [note for note in whole.notes if "were left out: they are the sums" in note]
    assert told in found.notes
    found, _ = assert_the_same(dealt(tmp_path / "in", pd.concat([shuffled, sums.assign(quantity=3)])[OURS]), tmp_path)
    assert not [note for note in found.notes if "they are the sums" in note]


names = st.sampled_from(["a", "b ", " b", "7", "7.0", "10", "é"])
cells = st.tuples(names, names, st.integers(0, 40), st.integers(-2, 9))


@settings(deadline=None, max_examples=40)
@given(st.lists(cells, min_size=1, max_size=60), st.integers(1, 4), st.sampled_from([None, {"net_returns"}]))
def test_however_a_table_is_dealt_over_files_its_rows_are_the_same(tmp_path_factory, rows, count, repair):
    place = tmp_path_factory.mktemp("dealt")
    days = pd.date_range("2025-07-01", periods=41)
    table = pd.DataFrame([(site, part, days[day], float(quantity)) for site, part, day, quantity in rows], columns=OURS)
    folder = dealt(place / "in", table, count=min(count, len(rows)))
    try:
        read_table(folder, repair=repair)
    except BadRows:
        with pytest.raises(BadRows):
            split(folder, Folder(place / "split"), repair=repair)
    else:
        assert_the_same(folder, place, repair=repair)
