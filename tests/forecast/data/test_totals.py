"""Totals among sites and parts: left out where they are exactly that, and told."""

import io

import pandas as pd
import pytest

from ipybatch.forecast import analyze

SITES, PARTS = ("Bitung", "Namlea", "Tual"), ("A-1", "A-2")
DAYS = pd.date_range("2025-05-01", periods=9)
SALES = pd.DataFrame(
    [(site, part, day, 3.0 + at) for site in SITES for part in PARTS for at, day in enumerate(DAYS)],
    columns=["site", "part", "date", "quantity"],
)


def summed(name, ours, off=0.0):
    """The sales with totals of all sites or parts, as a pivot table exports them."""
    other = "part" if ours == "site" else "site"
    totals = SALES.groupby([other, "date"], as_index=False)["quantity"].sum()
    totals["quantity"] += off
    return pd.concat([SALES, totals.assign(**{ours: name})])


@pytest.mark.parametrize("ours", ["site", "part"])
@pytest.mark.parametrize("name", ["Total", "ALL", "Grand total", "Gesamt", "Semua", "Jumlah"])
def test_a_total_is_left_out_and_told(ours, name):
    made = analyze(summed(name, ours), timed=False)
    assert made.table.frame["quantity"].sum() == SALES["quantity"].sum()
    assert name not in set(made.table.frame[ours].cat.categories)
    assert any(f"of the {ours} {name!r} were left out" in note for note in made.notes)
    assert name not in made.to_frame()["name"].to_list()


def test_totals_of_both_are_left_out():
    both = summed("Total", "site")
    totals = both.groupby(["site", "date"], as_index=False)["quantity"].sum().assign(part="Total")
    made = analyze(io.BytesIO(pd.concat([both, totals]).to_csv(index=False).encode()), timed=False)
    assert made.rows == len(SALES)
    assert made.table.frame["quantity"].sum() == SALES["quantity"].sum()


@pytest.mark.parametrize(
    "table",
    [
        summed("Total", "site", off=1.0),
        summed("Surabaya", "site"),
        SALES.replace({"site": {"Tual": "Total Energies"}}),
    ],
    ids=["with quantities of its own", "of a name that says nothing", "a shop"],
)
def test_a_name_with_quantities_of_its_own_is_kept(table):
    made = analyze(table, timed=False)
    assert made.table.frame["quantity"].sum() == table["quantity"].sum()
    assert not any("were left out" in note for note in made.notes)
