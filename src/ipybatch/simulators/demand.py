"""Demand for spare parts: a seeded table of any size for the forecasting workload.

The default has 11,919 rows for 13 sites and 2,070 parts in July and August, and is heavy-tailed like real ones: a few
parts have demand every other day, and the median series has a single row.

A row is a day with demand for a part at a site: (site, part, date) is unique, and a day without demand has no row.

Only uniform numbers are drawn, and all others are computed from them: numpy guarantees only those across versions
(https://numpy.org/doc/stable/reference/random/compatibility.html, 2026-11-22).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .faults import check

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SITES = (
    "Makassar", "Manado", "Sofifi", "Ambon", "Kendari", "Palu", "Ternate",
    "Gorontalo", "Bitung", "Luwuk", "Baubau", "Tual", "Tobelo",
)  # fmt: skip
SITE_ROWS = (3336, 2291, 1295, 1163, 842, 701, 588, 476, 391, 318, 245, 168, 105)
ROWS, PARTS, DAYS = sum(SITE_ROWS), 2070, 62
_WEEK = (1.0, 1.1, 1.0, 1.0, 0.9, 0.5, 0.25)  # Monday to Sunday
_FULLEST = 0.5  # of all cells part x day: above, hardly a draw is new


def demand(
    rows: int = ROWS,
    sites: int = len(SITES),
    *,
    parts: int | None = None,
    days: int = DAYS,
    start: str = "2025-07-01",
    seed: int = 0,
) -> pd.DataFrame:
    """Return the demand table: site, part, date, quantity; one row per (site, part, date), sorted.

    Args:
        rows: How many rows, >= sites.
        sites: How many sites, >= 1; the first has most rows.
        parts: How many parts, 1 to rows; by default in proportion to the default table.
        days: Length in days, from ``start``, >= 1.
        start: The first day.
        seed: Same seed, same table.

    Raises:
        ValueError: A value is outside its range, or there are more rows than the parts and days allow.
    """
    import numpy as np
    import pandas as pd

    parts = max(1, round(rows * PARTS / ROWS)) if parts is None else parts
    check("sites", sites >= 1, ">= 1", sites)
    check("rows", rows >= sites, f">= sites ({sites})", rows)
    check("parts", 1 <= parts <= rows, f"in [1, rows ({rows})]", parts)
    check("days", days >= 1, ">= 1", days)
    rng = np.random.default_rng(seed)
    counts = _site_rows(rows, sites)
    most = int(_FULLEST * parts * days * rows / max(counts))
    check("rows", max(counts) <= _FULLEST * parts * days, f"<= {most} for {parts} parts", rows)
    dates = pd.date_range(start, periods=days, freq="D")
    cells = _cells(rng, counts, parts, np.array([_WEEK[date.weekday()] for date in dates]))
    site, cell = np.repeat(np.arange(sites), counts), np.concatenate(cells)
    part = cell // days
    steep = 1.1 + 1.6 * rng.random(parts)
    # mostly ones and twos, now and then hundreds: Pareto's law, steeper or flatter by part
    quantities: Any = np.minimum((1 - rng.random(len(part))) ** (-1 / steep[part]), 5000)
    names = np.array([site_name(number) for number in range(sites)], dtype=object)
    table = {
        "site": names[site],
        "part": np.array([f"P{number:05d}" for number in range(1, parts + 1)], dtype=object)[part],
        "date": dates[cell % days],
        "quantity": quantities.astype(np.int64),
    }
    return pd.DataFrame(table)


def site_name(number: int) -> str:
    """Return the name of a site, by its number from 0."""
    again, at = divmod(number, len(SITES))
    return f"{SITES[at]} {again + 1}" if again else SITES[at]


def _site_rows(rows: int, sites: int) -> list[int]:
    """Share the rows out as the default table does; every site has one at least."""
    weights = [SITE_ROWS[at] if at < len(SITE_ROWS) else SITE_ROWS[-1] * 13 / at for at in range(sites)]
    spare = rows - sites
    shares = [spare * weight / sum(weights) for weight in weights]
    if rows == ROWS and sites == len(SITES):
        return list(SITE_ROWS)
    counts = [1 + int(share) for share in shares]
    for at in sorted(range(sites), key=lambda at: int(shares[at]) - shares[at])[: rows - sum(counts)]:
        counts[at] += 1
    return counts


def _cells(rng: np.random.Generator, counts: list[int], parts: int, week: Any) -> list[Any]:
    """Return for each site the cells (part x day) in which there is demand, sorted; every part is wanted somewhere."""
    import numpy as np

    days = np.cumsum(week) / week.sum()
    popular = np.cumsum(1 / (np.arange(parts) + 8.0))  # Zipf's law, with a head that is not one part alone
    popular /= popular[-1]
    shuffled = np.argsort(rng.random(parts))
    slots = np.repeat(np.arange(len(counts)), counts)
    home = slots[np.argsort(rng.random(len(slots)))[:parts]]  # of each part: no more to a site than it has rows
    found = []
    for site, count in enumerate(counts):
        own = np.flatnonzero(home == site)
        cells = own * len(week) + _draw(rng, days, len(own))
        while len(cells) < count:
            more = shuffled[_draw(rng, popular, 2 * count)] * len(week) + _draw(rng, days, 2 * count)
            fresh = more[np.sort(np.unique(more, return_index=True)[1])]  # in the order drawn: else low numbers win
            cells = np.concatenate([cells, fresh[~np.isin(fresh, cells)][: count - len(cells)]])
        found.append(np.sort(cells))
    return found


def _draw(rng: np.random.Generator, cumulated: Any, size: int) -> Any:
    import numpy as np

    return np.minimum(np.searchsorted(cumulated, rng.random(size), side="right"), len(cumulated) - 1)
