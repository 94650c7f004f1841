"""What the columns of any frame have in common: their different values."""

import numpy as np
import pandas as pd
import pytest

from ipybatch.forecast.data.frame import distinct_of


@pytest.mark.parametrize("kind", [object, pd.CategoricalDtype(["a\0c", "a\0d", "b"])], ids=["object", "category"])
def test_each_different_value_has_a_number(kind):
    """What stands behind a NUL counts."""
    codes, found = distinct_of(pd.Series(["b", "a\0c", None, "b", "a\0d"], dtype=object).astype(kind))
    assert codes.tolist() == [0, 1, -1, 0, 2]
    assert found.tolist() == ["b", "a\0c", "a\0d"]


def test_values_of_several_kinds_stay_what_they_are():
    codes, found = distinct_of(pd.Series([1.5, "1.5", np.nan, 1.5], dtype=object))
    assert codes.tolist() == [0, 1, -1, 0]
    assert found.tolist() == [1.5, "1.5"]
