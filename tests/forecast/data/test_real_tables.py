"""Tables as people have them are understood, or asked about by name: none is silently wrong."""

import re

import pytest

from ipybatch import InputError
from ipybatch.forecast import analyze
from tests.forecast.data.real_tables import TABLES


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_real_table_is_understood_or_asked_about(table):
    if isinstance(table.expected, str):
        with pytest.raises(InputError, match=re.compile(table.expected, re.S)):
            analyze(table.carrier, timed=False, **table.arguments)
        return
    found = analyze(table.carrier, timed=False, **table.arguments)
    rows = found.table.frame
    months = rows["date"].dt.strftime("%Y-%m")
    sums = rows.groupby([rows["site"].astype(str), months])["quantity"].sum()
    assert {key: pytest.approx(total) for key, total in sums.items()} == dict(table.expected)
    assert found.problems == ()
    assert re.search(table.told, "\n".join([*found.notes, *found.table.notes]), re.S)


def test_there_are_forty_of_them_and_each_has_its_name():
    assert len({table.name for table in TABLES}) == len(TABLES) >= 39
