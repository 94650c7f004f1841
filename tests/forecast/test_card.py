"""The card of an analysis: whole without its styles, and safe."""

import re
from html.parser import HTMLParser

import pytest

from ipybatch.engine.data import masking
from ipybatch.forecast import card
from ipybatch.forecast.analysis import analyze
from ipybatch.forecast.remedies import REMEDIES
from ipybatch.forecast.timing import Timing
from ipybatch.simulators.demand import demand

TAGS = {"div", "span", "b", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"}


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
    """Rows, sites, parts, partitions, seconds, speed-up, whether it pays, the size table and the remedies."""
    said = Seen(card.html(found(timing=MEASURED))).text
    for words in (
        "11,919 rows, 13 sites, 2,070 parts",
        "Batch mode pays: 11,919 rows are more than 5,000",
        "daily, 2025-07-01 to 2025-08-31; 6,390 series",
        "13 partitions, the largest of 3,336 rows; 2 at a time",
        "as one job 65.4 s: 1.8 times as fast (measured here with 1,065 series)",
        "3 (Sofifi)",
        "5,000 rows: about 3; 20,000 rows: 10 to 15; 50,000 rows: 20 partitions",
        REMEDIES["timeout"],
        REMEDIES["memory"],
        REMEDIES["row"],
    ):
        assert words in said


def test_a_small_table_needs_no_batch_mode():
    assert "One job will do (by=None): at most 5,000 rows" in Seen(card.html(found(demand(100, 2, parts=20)))).text


def test_batch_mode_that_is_no_quicker_is_told_so():
    slow = Timing(start_s=1.0, fixed_s=5.0, per_series_s=0.0, samples=((51, 5.0), (1065, 5.0)))
    assert "no quicker here, but one that fails harms no other" in card.text(found(timing=slow))


def test_what_was_not_measured_is_not_told():
    assert "estimated" not in card.text(found()).lower()
    assert "Estimated" not in card.html(found())


def test_problems_are_told_by_column_row_and_value():
    frame = demand().astype({"date": str})
    frame.loc[6000:6019, "date"] = "31/13/2025"
    said = Seen(card.html(found(frame))).text
    assert "20 problems" in said
    assert "Invalid date format '31/13/2025' in row 6000, column date, site Sofifi" in said
    assert "and 12 more" in said


def test_many_partitions_are_not_all_listed():
    assert "and 1 smaller ones" not in card.html(found(max_partitions=13))
    table = Seen(card.html(found(demand(3000, 30), max_partitions=30))).text
    assert "and 10 smaller ones" in table


@pytest.mark.parametrize("attack", ["<img src=x onerror=alert(1)>", "</td></table><script>alert(1)</script>", "$x$"])
def test_text_from_outside_is_text(attack):
    """The names of sites, and cells that cannot be read, come to the card as they are."""
    frame = demand(200, 2).astype({"date": str})
    frame["site"] = frame["site"].replace("Makassar", attack)
    frame.loc[0, "date"] = attack
    source = card.html(found(frame))
    seen = Seen(source)
    assert seen.tags <= TAGS
    assert seen.attributes <= {"style", "align"}
    assert attack in seen.text
    assert not re.search(r"\$[^<]", re.sub(r"<span>\$</span>", "", source))


def test_secrets_are_masked(monkeypatch):
    monkeypatch.setattr(masking, "_secrets", ())
    masking.register("hunter2secret")
    frame = demand(200, 2)
    frame["site"] = frame["site"].replace("Makassar", "hunter2secret")
    made = found(frame, by="site")
    assert "hunter2" not in card.html(made) + card.text(made)


def test_a_cell_that_ends_in_it_shows_the_card():
    made = found(demand(200, 2))
    assert made._repr_html_() == card.html(made)
    assert repr(made) == card.text(made)
    assert repr(made).startswith("200 rows, 2 sites, ")
