"""What is deprecated works, and warns once, at the user's line, with what to use instead."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

import ipybatch.jupyter
from ipybatch import Limits
from ipybatch.engine.data.deprecation import FORECAST_FORM, SHARED, TABLE, Deprecated

DOCS = Path(__file__).resolve().parents[3] / "docs"


class Shared:
    async def try_acquire_async(self, name, weight):
        return True


def use_shared():
    return Limits(shared=Shared())


def use_forecast_form():
    from ipybatch.jupyter import ForecastForm

    return ForecastForm


USES = {SHARED: use_shared, FORECAST_FORM: use_forecast_form}


@pytest.fixture
def fresh(monkeypatch):
    """Nobody has used the form's old name yet."""
    monkeypatch.delitem(vars(ipybatch.jupyter), "ForecastForm", raising=False)


@pytest.mark.parametrize("deprecated", TABLE, ids=str)
def test_it_works_and_warns_once_where_it_is_used(deprecated, fresh):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert USES[deprecated]()
    assert [(one.category, str(one.message)) for one in told] == [(DeprecationWarning, str(deprecated))]
    assert told[0].filename == __file__


def test_the_old_name_is_the_same_form(fresh):
    pytest.importorskip("ipywidgets")
    from ipybatch.forecast import ForecastForm

    with pytest.warns(DeprecationWarning, match=re.escape("ipybatch.forecast.ForecastForm")):
        assert use_forecast_form() is ForecastForm


def test_a_warning_says_what_since_when_and_until_when():
    deprecated = Deprecated(old="old()", new="new()", since="0.2", until="1.0")
    assert str(deprecated) == "old() is deprecated since ipybatch 0.2 and gone in 1.0. Use new()"


def test_here_they_are_errors():
    """Our own code, tests and notebooks use nothing that is deprecated."""
    with pytest.raises(DeprecationWarning):
        use_shared()


def test_the_page_tells_all_of_them():
    rows = re.findall(
        r"^\| `(.+?)` \| (.+?) \| (\S+) \| (\S+) \|$", (DOCS / "deprecations.md").read_text(), re.MULTILINE
    )
    told = [(old, new.replace("`", ""), since, until) for old, new, since, until in rows]
    assert told == [(one.old, one.new, one.since, one.until) for one in TABLE]
