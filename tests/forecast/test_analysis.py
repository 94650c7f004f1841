"""An analysis: what a forecast would be, how long it would take here, whether batch mode pays; and how it is shown."""

import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import InputError
from ipybatch.engine.data import masking
from ipybatch.forecast.analysis import Timing, analyze, line, sample, time_it
from ipybatch.forecast.data.partitions import ADVICE, SIZES
from ipybatch.forecast.data.table import read_table
from ipybatch.forecast.settings import Settings
from ipybatch.simulators import demand


def looked(table=None, **given):
    return analyze(demand() if table is None else table, timed=False, **given)


def test_the_described_table_is_described():
    """11,919 rows, 13 sites, 2,070 parts, 13 partitions: batch mode pays."""
    found = looked()
    assert (found.rows, found.sites, found.parts, len(found.partitions)) == (11_919, 13, 2_070, 13)
    assert found.pays
    assert found.why == "11,919 rows are more than 5,000, 13 sites are 5 or more, 2,070 parts are 500 or more"
    assert "days without a row count as zero from 2025-07-01 on, the table's start, for every series" in found.notes


@pytest.mark.parametrize(
    ("rows", "sites", "parts", "pays"),
    [
        (5000, 4, 499, False),
        (5001, 4, 499, True),
        (1000, 5, 100, True),
        (1000, 4, 500, True),
        (1000, 4, 499, False),
    ],
)
def test_batch_mode_pays_for_large_tables(rows, sites, parts, pays):
    """Above 5,000 rows, or from 5 sites or 500 parts on."""
    found = looked(demand(rows, sites, parts=parts))
    assert found.pays is pays
    assert ("at most" in found.why) is not pays


def test_seconds_are_reckoned_from_what_was_measured():
    """Two workers share 13 partitions; one job trains all series after the same start."""
    found = looked(workers=2)
    assert (found.seconds, found.normal_s, found.speed_up) == (None, None, None)
    measured = Timing(start_s=2.0, fixed_s=0.5, per_series_s=0.001, samples=((50, 0.55), (1000, 1.5)))
    timed = type(found)(**{**{name: getattr(found, name) for name in found.__slots__}, "timing": measured})
    assert timed.normal_s == pytest.approx(2 + 0.5 + 6.39)
    assert 2 + (6.5 + 6.39) / 2 <= timed.seconds < timed.normal_s
    assert timed.speed_up == timed.normal_s / timed.seconds
    assert timed.to_frame()["seconds"].iloc[0] == measured.alone_s(timed.series_of[0])


def test_a_machine_is_measured():
    found = analyze(demand(300), horizon=5, models=["naive"])
    assert found.timing is not None
    assert found.seconds > 0


def test_a_model_that_fails_leaves_only_the_seconds_unknown():
    class Broken:
        def fit(self, *_):
            raise ValueError("boom")

        def predict(self, *_):
            raise ValueError("boom")

    found = analyze(demand(300), horizon=5, models=[Broken()])
    assert found.seconds is None
    assert found.notes[-1].startswith("how long it takes is not known: a sample could not be trained: ")


def test_the_frame_has_a_row_for_each_partition():
    frame = looked().to_frame()
    assert list(frame.columns) == ["partition", "name", "sites", "parts", "series", "rows", "seconds", "problems"]
    assert frame["rows"].sum() == 11_919
    assert frame["series"].sum() == looked().series


def test_every_problem_is_told_and_nothing_raised():
    """That is what an analysis is for; a run refuses what belongs to no partition."""
    frame = demand().astype({"date": str})
    frame.loc[6000, "date"] = "31/13/2025"
    frame.loc[7, "site"] = None
    found = looked(frame)
    assert [str(problem) for problem in found.problems] == [
        "Missing site in row 7",
        "Invalid date format '31/13/2025' in row 6000",
    ]
    assert found.rows == 11_917
    assert found.to_frame()["problems"].sum() == 1


@pytest.mark.parametrize("repair", [(), {"drop_bad_rows"}])
def test_all_bad_rows_are_a_frame(repair):
    """Also those that are dropped: they are what to correct at the source."""
    frame = demand().astype({"date": str, "quantity": object})
    frame.loc[6000, "date"] = "31/13/2025"
    frame.loc[7, "quantity"] = -2
    rows = looked(frame, repair=repair).bad_rows()
    assert list(rows.columns) == ["row", "column", "value", "reason", "site", "part"]
    assert rows[["row", "column", "value", "reason"]].to_numpy().tolist() == [
        [7, "quantity", "-2", "Negative quantity -2"],
        [6000, "date", "31/13/2025", "Invalid date format '31/13/2025'"],
    ]
    assert rows["site"].tolist() == frame["site"][[7, 6000]].tolist()


def test_normal_mode_is_analyzed_as_what_is_asked_for():
    found = looked(by=None, sites=["Sofifi"])
    assert (found.rows, found.sites, len(found.partitions), found.workers) == (1295, 1, 1, 1)


def test_the_size_table_holds():
    """What the card promises is what a cut by size makes."""
    for rows, told in SIZES:
        low, high = _range(told)
        assert low <= len(looked(demand(rows), by="size").partitions) <= high


def _range(told):
    numbers = [int(word) for word in told.split() if word.isdigit()]
    return numbers[0], numbers[-1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workers": 0}, "workers must be a whole number >= 1, got 0"),
        ({"horizon": 0}, "horizon must be a whole number >= 1, got 0"),
        ({"max_rows": 0}, "max_rows must be a whole number >= 1, got 0"),
        ({"columns": {"site": "x"}}, "must be a column of demand"),
        ({"models": ["prophet"]}, "models must be one of"),
    ],
)
def test_bad_arguments_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        looked(**given)


def test_empty_is_refused():
    with pytest.raises(InputError, match="must have rows, got none"):
        looked(pd.DataFrame(columns=["site", "part", "date", "quantity"]))


TAGS = {"div", "span", "b", "table", "colgroup", "col", "thead", "tbody", "tr", "th", "td", "details", "summary"}


class Seen(HTMLParser):
    """Collect tags, attributes and text; tags must close in order."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.open, self.words = set(), set(), [], []
        self.feed(source)
        self.close()
        assert self.open == []
        self.text = "".join(self.words)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "col":  # it holds nothing, and is not closed
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def found(table=None, timing=None, **given):
    made = analyze(demand() if table is None else table, timed=False, workers=2, **given)
    return type(made)(**{**{name: getattr(made, name) for name in made.__slots__}, "timing": timing})


MEASURED = Timing(start_s=1.0, fixed_s=0.5, per_series_s=0.01, samples=((51, 1.0), (1065, 11.1)))


def test_the_card_says_what_is_known():
    """Rows, sites, parts, partitions, seconds, speed-up, whether it pays, the size table and the advice."""
    said = Seen(found(timing=MEASURED)._repr_html_()).text
    for words in (
        "11,919 rows, 13 sites, 2,070 parts",
        "Batch mode pays: 11,919 rows are more than 5,000",
        "read site from 'site', part from 'part', date from 'date', quantity from 'quantity'",
        "daily, as the dates lie, 2025-07-01 to 2025-08-31",
        "6,390 series; 13 partitions, the largest of 3,336 rows; 2 at a time",
        "as one job 65.4 s: 1.8 times as fast (measured here with 1,065 series)",
        "3 (Sofifi)",
        "5,000 rows: about 3; 20,000 rows: 10 to 15; 50,000 rows: 20 partitions",
        ADVICE["timeout"],
        ADVICE["out_of_memory"],
        ADVICE["bad_row"],
    ):
        assert words in said


def test_a_small_table_needs_no_batch_mode():
    assert "One job will do (by=None): at most 5,000 rows" in Seen(found(demand(100, 2, parts=20))._repr_html_()).text


def test_batch_mode_that_is_no_quicker_is_told_so():
    slow = Timing(start_s=1.0, fixed_s=5.0, per_series_s=0.0, samples=((51, 5.0), (1065, 5.0)))
    assert "no quicker here, but one that fails harms no other" in repr(found(timing=slow))


def test_what_was_not_measured_is_not_told():
    assert "estimated" not in repr(found()).lower()
    assert "Estimated" not in found()._repr_html_()


def test_problems_are_told_once_by_kind():
    """How many, a line for each kind, and what helps: not twenty like lines, nor the same once more in a note."""
    frame = demand().astype({"date": str})
    frame.loc[6000:6019, "date"] = "31/13/2025"
    frame.loc[7, "quantity"] = -3
    analysis = found(frame)
    kind = "Invalid date format in 20 rows of site Sofifi: row 6000 (31/13/2025), row 6001 (31/13/2025)"
    for said in (Seen(analysis._repr_html_()).text, repr(analysis)):
        assert said.count("21 rows cannot be used") == 1
        assert said.count(kind) == said.count("Negative quantity -3 in row 7") == 1
        assert said.count("drop them with repair={'drop_bad_rows'}, or net returns with repair={'net_returns'}") == 1
    assert Seen(analysis._repr_html_()).text.count("20 rows cannot be used") == 1, "of the partition"
    assert "dropped: " in repr(found(frame, repair={"drop_bad_rows"}))


def test_many_partitions_are_not_all_listed():
    assert "and 1 smaller ones" not in found(max_partitions=13)._repr_html_()
    table = Seen(found(demand(3000, 30), max_partitions=30)._repr_html_()).text
    assert "and 10 smaller ones" in table


@pytest.mark.parametrize("attack", ["<img src=x onerror=alert(1)>", "</td></table><script>alert(1)</script>", "$x$"])
def test_text_from_outside_is_text(attack):
    """The names of sites, and cells that cannot be read, come to the card as they are."""
    frame = demand(200, 2).astype({"date": str})
    frame["site"] = frame["site"].replace("Makassar", attack)
    frame.loc[0, "date"] = attack
    source = found(frame)._repr_html_()
    seen = Seen(source)
    assert seen.tags <= TAGS
    assert seen.attributes <= {"style", "align", "nowrap", "title"}
    assert attack in seen.text
    assert not re.search(r"\$[^<]", re.sub(r"<span>\$</span>|title=\"[^\"]*\"", "", source))


def test_secrets_are_masked(monkeypatch):
    monkeypatch.setattr(masking, "_secrets", ())
    masking.register("hunter2secret")
    frame = demand(200, 2)
    frame["site"] = frame["site"].replace("Makassar", "hunter2secret")
    made = found(frame, by="site")
    assert "hunter2" not in made._repr_html_() + repr(made)


def test_a_cell_that_ends_in_it_shows_the_card():
    made = found(demand(200, 2))
    assert "<b>200 rows, 2 sites, " in made._repr_html_()
    assert repr(made).startswith("200 rows, 2 sites, ")


def timing(**fields):
    return Timing(**{"start_s": 0.0, "fixed_s": 1.0, "per_series_s": 0.01, "samples": (), **fields})


def test_the_line_goes_through_both_samples():
    made = line([(50, 1.5), (1000, 11.0)], 2.0)
    assert (made.alone_s(50), made.alone_s(1000), made.start_s) == (pytest.approx(1.5), pytest.approx(11.0), 2.0)


def test_noise_makes_nothing_negative():
    """A second sample that was quicker than the first says only that series cost little."""
    made = line([(50, 1.5), (1000, 1.0)], -0.2)
    assert (made.per_series_s, made.fixed_s, made.start_s) == (0.0, 1.5, 0.0)
    assert line([(50, 0.1), (1000, 9.0)], 0.0).fixed_s == 0.0


def test_a_small_table_has_one_sample():
    assert line([(7, 0.5), (7, 0.6)], 0.0).alone_s(7) == 0.5


def test_each_partition_goes_to_the_first_worker_that_is_free():
    """5 and 4 seconds begin; 3 follows the 4: 7 seconds, and the start before."""
    assert timing(start_s=2.0).all_s([400, 300, 200], 2) == pytest.approx(2 + 7)
    assert timing().all_s([400, 300, 200], 1) == pytest.approx(12)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=20), st.integers(1, 8))
def test_the_estimate_is_within_what_is_possible(series, workers):
    """No longer than one after the other, no shorter than shared out evenly or than the longest alone."""
    made = timing(start_s=0.5)
    alone = [made.alone_s(count) for count in series]
    total = made.all_s(series, workers) - 0.5
    assert max(*alone, sum(alone) / workers) <= total + 1e-9
    assert total <= sum(alone) + 1e-9


def test_a_sample_is_whole_series_from_all_over():
    frame = read_table(demand()).frame
    some = sample(frame, 50)
    lengths = some.groupby(["site", "part"], observed=True).size()
    assert 40 <= len(lengths) <= 60
    assert some["site"].nunique() > 8
    assert (lengths == frame.groupby(["site", "part"], observed=True).size()[lengths.index]).all()
    assert sample(some, 1000).equals(some)


def test_training_is_tried_in_the_processes_that_a_run_uses():
    """And what was tried is told: the samples, with positive times."""
    table = read_table(demand(400))
    made = time_it(table.frame, Settings(horizon=7, models=("naive", "ses")))
    assert [series for series, _ in made.samples] == [sample_size(table.frame, count) for count in (50, 1000)]
    assert all(seconds > 0 for _, seconds in made.samples)


def sample_size(frame, series):
    return sample(frame, series).groupby(["site", "part"]).ngroups
