"""A table is cut into partitions, none of its rows lost, and what the cut costs is said."""

import subprocess
import sys

import msgspec
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipybatch import InputError
from ipybatch.forecast.data.partitions import Partition, cut, partition
from ipybatch.forecast.data.table import read_table
from ipybatch.simulators.demand import SITE_ROWS, demand

TABLE = read_table(demand())


def series_of(frame):
    return set(zip(frame["site"], frame["part"], strict=True))


def test_a_site_is_a_partition():
    """The default: one a site, the largest first, called as in the panel."""
    made = partition(TABLE)
    assert tuple(one.rows for one in made.partitions) == SITE_ROWS
    assert made.partitions[2].title == "Partition 3 (Sofifi)"
    assert made.partitions[2].sites == ("Sofifi",)
    assert (made.notes, made.unplaced) == ([], [])


def test_what_is_recorded_of_a_partition_holds_no_rows():
    """Its frame is beside it; a hash stands for it."""
    one = partition(TABLE).partitions[2]
    assert len(one.frame) == one.rows == 1295
    recorded = msgspec.json.decode(msgspec.json.encode(one), type=Partition)
    assert recorded == one
    assert "frame" not in recorded.__dict__


def test_a_partition_is_known_by_its_rows():
    """Its hash is that of its rows alone: one more elsewhere, and it need not be trained again."""
    before = {one.name: one._ipybatch_sent_ for one in partition(TABLE).partitions}
    frame = demand()
    frame.loc[frame["site"] == "Ambon", "quantity"] += 1
    grown = pd.concat(
        [frame, pd.DataFrame({"site": "New", "part": "P1", "date": frame["date"].unique(), "quantity": 1})]
    )
    after = {
        one.name: one._ipybatch_sent_ for one in partition(read_table(grown.sample(frac=1, random_state=1))).partitions
    }
    assert {name for name in before if before[name] != after[name]} == {"Ambon"}


@pytest.mark.parametrize(("rows", "low", "high"), [(5_000, 3, 3), (11_919, 6, 7), (20_000, 10, 15), (50_000, 20, 20)])
def test_a_size_makes_so_many_partitions(rows, low, high):
    """The table of sizes: 5,000 rows about 3 partitions, 20,000 10 to 15, 50,000 20."""
    made = partition(read_table(demand(rows)), by="size")
    assert low <= len(made.partitions) <= high
    assert sum(one.rows for one in made.partitions) == rows
    sizes = [one.rows for one in made.partitions]
    assert max(sizes) < 1.1 * min(sizes)


@given(
    rows=st.integers(20, 600),
    sites=st.integers(1, 20),
    max_rows=st.integers(1, 300),
    most=st.integers(1, 25),
    by=st.sampled_from(["site", "size", "part", lambda frame: frame["part"].str[-1]]),
)
def test_every_row_is_in_one_partition(rows, sites, max_rows, most, by):
    """However it is cut: no row is lost or doubled, names differ, there are not too many, and series stay whole."""
    table = read_table(demand(rows, sites, parts=max(1, rows // 3)))
    made = partition(table, by=by, max_rows=max_rows, max_partitions=most).partitions
    together = pd.concat([one.frame for one in made]).sort_values(["site", "part", "date"], ignore_index=True)
    assert together.equals(table.frame)
    assert len({one.name for one in made}) == len(made) <= most
    assert [one.number for one in made] == list(range(1, len(made) + 1))
    assert [one.rows for one in made] == sorted((one.rows for one in made), reverse=True)
    assert sum(len(series_of(one.frame)) for one in made) == len(series_of(table.frame))
    if by == "size" and len(made) < most:
        longest = int(table.frame.groupby(["site", "part"]).size().max())
        assert made[0].rows <= max(max_rows, longest)


def test_sites_that_are_cut_are_told():
    notes = partition(TABLE, by="size").notes
    assert notes[0].startswith("5 sites lie in several partitions, which learn nothing of each other: Makassar (2)")


def test_a_long_series_is_not_cut_unless_asked():
    long = pd.DataFrame({"site": "a", "part": "p", "date": pd.date_range("2025-01-01", periods=90), "quantity": 1})
    table = read_table(long)
    whole = partition(table, by="size", max_rows=30)
    assert [one.rows for one in whole.partitions] == [90]
    assert whole.notes == ["partitions have up to 90 rows, more than max_rows=30: a series is not cut"]
    pieces = partition(table, by="size", max_rows=30, split_series=True)
    assert [one.rows for one in pieces.partitions] == [30, 30, 30]
    assert "2 series are cut too" in pieces.notes[1]


def test_too_many_partitions_put_the_smallest_together():
    made = partition(TABLE, max_partitions=11)
    assert [one.rows for one in made.partitions] == [*SITE_ROWS[:7], 518, 476, 391, 318]
    assert made.partitions[7].name == "Baubau and 2 more"
    assert made.partitions[7].sites == ("Baubau", "Tobelo", "Tual")
    assert made.notes == ["3 small partitions were put together: max_partitions=11 allows no more"]


def test_partitions_too_large_for_their_number_are_told():
    assert "max_partitions=2 allows no more of them" in partition(TABLE, by="size", max_partitions=2).notes[-1]


def test_any_column_cuts():
    frame = demand().assign(region=lambda rows: rows["site"].str[0])
    made = partition(read_table(frame), by="region")
    assert {one.name for one in made.partitions} == set(frame["region"])
    assert made.notes == []


def test_a_column_that_cuts_sites_is_told():
    assert "13 sites lie in several partitions" in partition(TABLE, by=lambda rows: rows["part"].str[-1]).notes[0]


def test_normal_mode_is_one_job_of_what_is_asked_for():
    made = partition(TABLE, by=None, sites=["Sofifi", "Ambon"], parts=["P00004"])
    (one,) = made.partitions
    assert (one.name, one.sites, one.parts, made.notes) == ("all", ("Ambon", "Sofifi"), 1, [])
    assert partition(TABLE, by=None, sites="Sofifi").partitions[0].rows == 1295
    assert partition(TABLE, by=None).partitions[0].rows == 11_919


def test_batch_mode_ignores_filters_and_says_so():
    made = partition(TABLE, sites=["Sofifi"], parts=["P00004"])
    assert sum(one.rows for one in made.partitions) == 11_919
    assert made.notes == ["sites= and parts= ignored: batch mode takes all; use by=None to filter"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"by": "nowhere"}, r"by must be 'site', 'size', None, a function or a column \('site', .*got 'nowhere'"),
        ({"by": 5}, "got 5"),
        ({"by": lambda rows: [1, 2]}, "by must return a label for each of 11,919 rows, got 2"),
        (
            {"by": lambda rows: rows["part"].where(rows["site"] != "Tual")},
            "every row a label, got none for site 'Tual'",
        ),
        ({"max_rows": 0}, "max_rows must be a whole number >= 1, got 0"),
        ({"max_partitions": 2.5}, "max_partitions must be a whole number >= 1, got 2.5"),
        ({"by": None, "sites": ["Sofifi", "Nowhere"]}, r"sites must be sites that have demand \(.*\), got Nowhere"),
        ({"by": None, "sites": ["Tobelo"], "parts": ["P00002"]}, "sites and parts must leave some rows, got none"),
        ({"by": None, "sites": []}, "sites and parts must leave some rows"),
    ],
)
def test_what_cannot_be_cut_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        partition(TABLE, **given)


def spoilt(**cells):
    """The table as text, with a wrong cell in one row of Sofifi."""
    frame = demand().astype({"date": str, "quantity": object})
    for column, value in cells.items():
        frame.loc[6000, column] = value
    return read_table(frame)


@pytest.mark.parametrize("by", ["site", "size", None])
def test_a_row_that_cannot_be_used_fails_its_own_partition(by):
    """Not its neighbours: it is told there, by its row."""
    table = spoilt(date="31/13/2025")
    troubled = [one for one in partition(table, by=by).partitions if one.problems]
    assert [one.problems for one in troubled] == ["Invalid date format '31/13/2025' in row 6000"]
    assert "Sofifi" in troubled[0].sites
    assert len(troubled[0].frame) == troubled[0].rows


def test_normal_mode_is_spared_the_problems_of_others():
    assert partition(spoilt(date="soon"), by=None, sites=["Ambon"]).partitions[0].problems == ""


def test_correcting_a_row_makes_another_partition():
    """So that what failed for it runs again."""
    wrong, right = (partition(read_table(t)).partitions[2] for t in (spoilt(date="soon"), demand()))
    assert wrong._ipybatch_sent_ != right._ipybatch_sent_


def test_a_row_that_belongs_nowhere_is_refused_before_anything_starts():
    table = spoilt(site=None)
    with pytest.raises(InputError, match="got Missing site in row 6000: correct these rows, or drop"):
        partition(table)
    assert [problem.row for problem in cut(table, "site", 2000, 20).unplaced] == [6000]


def test_a_partition_holds_no_rows_of_its_own():
    """They are the table's: twenty partitions of ten million rows take no more memory than the table."""
    made = partition(TABLE, max_partitions=11).partitions
    (held,) = {id(one.__dict__["rows_of"][0]) for one in made}
    assert held == id(TABLE.frame)
    at = [one.__dict__["rows_of"][1] for one in made]
    assert [isinstance(rows, slice) for rows in at].count(False) == 1  # the three that were put together
    assert all(one.frame.index.equals(pd.RangeIndex(one.rows)) for one in made)


def test_a_function_is_given_names_and_not_categories():
    made = partition(TABLE, by=lambda rows: rows["site"].str[0] + rows["part"].str[-1])
    assert {len(one.name) for one in made.partitions if " and " not in one.name} == {2}


@pytest.mark.parametrize("dtype", ["category", object, "str", "string[pyarrow]"])
def test_the_carrier_of_the_same_rows_makes_no_other_partition(dtype):
    """It is known by its rows: what is trained stays trained when tomorrow's table is held in another way."""
    frame = demand().astype({"site": dtype, "part": dtype, "quantity": "float32"})
    ours, others = ([one.digest for one in partition(read_table(given)).partitions] for given in (demand(), frame))
    assert ours == others


def sites(**rows_of):
    """A clean table with so many rows for each site."""
    rows = [
        (site.replace("_", " "), "P1", day, 1)
        for site, count in rows_of.items()
        for day in pd.date_range("2025-01-01", periods=count)
    ]
    return read_table(pd.DataFrame(rows, columns=["site", "part", "date", "quantity"]))


@pytest.mark.parametrize(
    ("table", "given", "names"),
    [
        (sites(B_and_C=50, D=40, B=9, C=8), {"max_partitions": 3}, {"B and C", "D", "'B' and 'C'"}),
        (sites(A_and_2_more=50, D=40, A=9, B=8, C=7), {"max_partitions": 3}, {"A and 2 more", "D", "'A' and 2 more"}),
        (sites(B=9, C=8, D=40), {"max_partitions": 2}, {"D", "B and C"}),
        (sites(A_1=50, A=100), {"by": "size", "max_rows": 50, "split_series": True}, {"A 1", "A 2", "A 3"}),
    ],
)
def test_names_of_partitions_are_told_from_each_other(table, given, names):
    """Whatever sites are called: a name is a key, and rows of two partitions never become one."""
    made = partition(table, **given).partitions
    assert len({one.name for one in made}) == len(made) == len(names)
    assert {one.name for one in made} == names
    assert sum(one.rows for one in made) == len(table.frame)


def test_sites_are_asked_for_as_they_are_read():
    """Also by a name as the file has it."""
    table = sites(Kendari=9, Palu=9)
    assert partition(table, by=None, sites=["Kendari\u00a0"]).partitions[0].sites == ("Kendari",)


DIGESTS = """
import pandas as pd
from ipybatch.forecast.data.partitions import partition
from ipybatch.forecast.data.table import read_table
days = pd.date_range("2025-01-01", periods=6)
frame = pd.DataFrame({"site": ["a", "b"] * 3, "part": "p", "date": days, "quantity": 1, "flag": True})
frame["count"] = pd.array([1, None, 3, 4, 5, 6], dtype="Int64")
frame["at"] = pd.date_range("2025-01-01", periods=6, tz="Asia/Makassar")
frame["kind"], frame["note"] = pd.Categorical(list("xyxyxy")), list("uvuvu") + [None]
print([one.digest for one in partition(read_table(frame)).partitions])
"""


def test_a_partition_is_known_by_its_rows_in_every_process():
    """Whatever types the user's other columns have: else all would be trained again after a restart."""
    ran = [subprocess.run([sys.executable, "-c", DIGESTS], capture_output=True, check=True) for _ in range(2)]
    first, second = (one.stdout.decode() for one in ran)
    assert first == second
    assert len(first.split(",")) == 2


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("pqr"), st.integers(1, 9)), min_size=1, unique=True))
@settings(deadline=None)
def test_series_are_counted_in_each_partition(rows):
    frame = pd.DataFrame(rows, columns=["site", "part", "day"]).assign(quantity=1)
    frame["date"] = pd.Timestamp("2025-01-01") + pd.to_timedelta(frame.pop("day"), unit="D")
    frame["colour"] = frame["part"].map({"p": "red", "q": "red", "r": "blue"})
    for by in ("site", "size", "colour", None):
        for one in partition(read_table(frame), by=by, max_rows=3).partitions:
            assert one.series == len(series_of(one.frame))
