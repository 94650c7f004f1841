from __future__ import annotations

import pytest

from ipybatch import InputError, Limits
from ipybatch.library import Character, Guild
from ipybatch.library.refreshed import COLUMNS

from .conftest import Azeroth, Shop

GUILDS = [Guild("Aerie Peak", name) for name in ("Wolves", "Bears")]
CHARACTERS = [Character("Kel'Thuzad", name) for name in ("Thrall", "Jaina", "Ghosta")]


def test_a_summary_tells_kinds_apart(azeroth: Azeroth) -> None:
    azeroth.own(CHARACTERS[0], days=0)
    summary = azeroth.run(GUILDS + CHARACTERS).summary
    table = summary.by("kind")
    assert list(table.columns) == list(COLUMNS)
    assert table.index.tolist() == ["guild", "character"]
    assert table.loc["guild", ["total", "completed", "failed", "skipped"]].tolist() == [2, 2, 0, 0]
    assert table.loc["character", ["total", "completed", "failed", "skipped"]].tolist() == [3, 1, 1, 1]
    assert table.to_numpy().dtype.kind == "i"


def test_members_that_joined_are_counted(azeroth: Azeroth) -> None:
    session = azeroth.run(GUILDS, expand="roster")
    table = session.summary.by("kind")
    assert table.loc["guild", "completed"] == 2
    assert table.loc["character", "completed"] == session.counts.completed - 2 > 0


def test_before_it_runs_everything_is_pending(azeroth: Azeroth) -> None:
    table = azeroth.session(GUILDS).summary.by("kind")
    assert table.loc["guild", ["total", "pending"]].tolist() == [2, 2]


def test_nothing_is_an_empty_table(azeroth: Azeroth) -> None:
    assert azeroth.run([]).summary.by("kind").shape == (0, len(COLUMNS))


def test_other_sources_have_it_too(shop: Shop) -> None:
    summary = shop.run([1, 2], limits=Limits(concurrency=1)).summary
    assert summary.by("kind").loc["game", "completed"] == 2
    assert str(summary) == "steam refresh completed: 2/2 successful, 0 failed, 0 skipped"


def test_another_column_is_refused(azeroth: Azeroth) -> None:
    with pytest.raises(InputError, match="column must be 'kind', got 'realm'"):
        azeroth.session(GUILDS).summary.by("realm")
