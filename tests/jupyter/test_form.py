"""The form: a forecast without code does what the functions do, and tells what goes wrong where it is seen."""

import base64
import io
import re
import subprocess
import sys
import warnings

import pandas as pd
import pytest

from ipybatch.simulators.demand import demand

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ipybatch.jupyter import ForecastForm


@pytest.fixture
def form(tmp_path):
    """Make a form of a small table; its models are quick."""
    made = []

    def make(table=None, **given):
        given = {"models": ["naive", "ses"], "journal": tmp_path / "journal.db", **given}
        made.append(ForecastForm(demand(300, 3, parts=60) if table is None else table, **given))
        made[-1].horizon.value = 5
        return made[-1]

    yield make
    for each in made:
        if each.session is not None:
            each.session.cancel()


def typed(form, tmp_path, text):
    """The path of a table in the form's field."""
    path = tmp_path / "demand.csv"
    path.write_text(text)
    form._demand = None
    form.path.value = str(path)
    return path


def downloaded(form):
    form.download_button.click()
    address = re.search(r'href="data:text/csv;base64,([^"]*)"', form.link.value)
    assert address is not None, form.status.value
    return pd.read_csv(io.BytesIO(base64.b64decode(address[1])))


def shown(field):
    return field.layout.display != "none"


def test_a_forecast_is_run_and_downloaded(form):
    """Run shows the panel and starts; Download hands out the combined forecast of all partitions."""
    made = form()
    made.run_button.click()
    assert made.status.value == ""
    assert [type(child).__name__ for child in made.panel.children] == ["Panel"]
    assert str(made.session.run()) == "forecast completed: 3/3 successful, 0 failed, 0 skipped"
    table = downloaded(made)
    assert table["site"].nunique() == 3
    assert len(table) == len(made.session.results())
    assert 'download="forecast.csv"' in made.link.value


def test_analyze_shows_the_card(form):
    made = form()
    made.analyze_button.click()
    assert made.status.value == ""
    assert made.analysis.rows == 300
    assert made.card.value == made.analysis._repr_html_()
    assert "estimated" in made.card.value


def test_the_strategy_is_that_of_the_form(form):
    made = form()
    made.strategy.value = "size"
    made.max_rows.value = 100
    made.analyze_button.click()
    assert len(made.analysis.partitions) >= 3
    assert made.analysis.by == "size"


def test_without_batch_mode_one_job_trains_what_is_named(form):
    made = form()
    made.batch.value = False
    made.sites.value = "Manado, Sofifi"
    made.run_button.click()
    assert made.session.run().counts.total == 1
    assert set(made.session.results()["site"]) == {"Manado", "Sofifi"}


def test_the_fields_of_the_mode_are_shown(form):
    """Sites and parts filter one job only; a size belongs to its strategy. The switch explains itself."""
    made = form()
    assert [shown(field) for field in (made.strategy, made.max_rows, made.sites, made.parts)] == [1, 0, 0, 0]
    made.strategy.value = "size"
    assert shown(made.max_rows)
    made.batch.value = False
    assert [shown(field) for field in (made.strategy, made.max_rows, made.sites, made.parts)] == [0, 0, 1, 1]
    assert any(
        "Batch mode trains each partition by itself" in getattr(row, "value", "")
        for row in made.children[:3]
        if isinstance(getattr(row, "value", ""), str)
    )


def test_a_table_comes_by_its_path(form, tmp_path):
    made = form()
    typed(made, tmp_path, demand(120, 2, parts=20).to_csv(index=False))
    made.analyze_button.click()
    assert (made.status.value, made.analysis.rows) == ("", 120)


def test_a_table_is_uploaded(form):
    """Again and again: it can be analyzed, and then run."""
    made = form()
    made._demand = None
    content = demand(120, 2, parts=20).to_csv(index=False).encode()
    made.upload.value = (
        {
            "name": "mine.csv",
            "type": "text/csv",
            "size": len(content),
            "content": content,
            "last_modified": pd.Timestamp(0, tz="UTC").to_pydatetime(),
        },
    )
    made.analyze_button.click()
    assert (made.status.value, made.analysis.rows) == ("", 120)
    assert made._table().read() == content


def test_what_goes_wrong_is_told_in_the_form(form, tmp_path):
    """As text: the file's own words cannot become markup. The form stays ready."""
    made = form()
    typed(made, tmp_path, "site,part,<b>when</b>,qty\na,1,2025-07-01,1\n")
    made.run_button.click()
    assert "must have a &#x27;date&#x27; column" in made.status.value
    assert "<b>when" not in made.status.value
    assert not made.run_button.disabled
    assert made.session is None
    made.path.value = ""
    made.analyze_button.click()
    assert "Table must be a file, got none" in made.status.value


def test_a_forecast_that_failed_is_not_downloaded(form):
    """The reason is told in its line, and what helps."""
    table = demand(300, 3, parts=60).astype({"date": str})
    table.loc[5, "date"] = "31/13/2025"
    made = form(table)
    made.run_button.click()
    assert made.session.run().state == "rolled_back"
    made.download_button.click()
    assert "There is no whole forecast" in made.status.value
    assert "What helps: correct the row or drop it" in made.status.value
    assert made.link.value == ""


def test_nothing_is_downloaded_before_a_run(form):
    assert form().download_button.disabled


def test_the_views_load_without_the_forecasts():
    """The form knows them by name only, when a button is pressed."""
    code = "import sys, ipybatch.jupyter.form; print([m for m in sys.modules if m.startswith('ipybatch.forecast')])"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
