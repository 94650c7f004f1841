"""Names of sites and parts stay what they are."""

import pandas as pd
import pytest

from ipybatch.forecast.data.table import read_table


@pytest.mark.parametrize("parts", [[22423, 7], [22423.0, 7.0], pd.array([22423, 7], dtype="Int64")])
def test_whole_numbers_stay_numbers(parts):
    """So that the forecast can be joined to the user's table."""
    frame = pd.DataFrame({"site": "a", "part": parts, "date": "2025-07-01", "quantity": 1})
    assert read_table(frame).frame["part"].tolist() == [7, 22423]


def test_numbers_beside_texts_are_texts():
    frame = pd.DataFrame({"site": "a", "part": [22423, "15056BL"], "date": "2025-07-01", "quantity": 1})
    assert read_table(frame).frame["part"].tolist() == ["15056BL", "22423"]
