"""The form: a forecast without code does what the functions do, and tells what goes wrong where it is seen."""

import functools
import io
import subprocess
import sys
import threading
import warnings

import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from ipybatch.backends import Threads
from ipybatch.forecast import analyze
from ipybatch.simulators import demand
from tests.forecast.data.spreadsheet import xlsx

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ipybatch.forecast import ForecastForm


class Held(Ridge):
    """A model that never comes back."""

    def fit(self, *_):
        while True:
            pass


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


@pytest.fixture
def untimed(monkeypatch):
    """Say of a table what is in it, and not how long it takes: that starts a process."""
    monkeypatch.setattr("ipybatch.forecast.form.analyze", functools.partial(analyze, timed=False))


def typed(form, tmp_path, text):
    """The path of a table in the form's field."""
    path = tmp_path / "demand.csv"
    path.write_text(text)
    form._demand = None
    form.path.value = str(path)
    return path


def press(button, form):
    """Press a button and wait for what it does."""
    button.click()
    form.wait(60)


def downloaded(form):
    """What the browser is handed: name and table."""
    name, data = handed(form, form.download_button)
    return name, pd.read_csv(io.BytesIO(data))


def handed(form, button):
    """What the browser is handed when a button is pressed: name and bytes."""
    offered = []
    form.download.offer = lambda name, data: offered.append((name, data))
    press(button, form)
    ((name, data),) = offered
    return name, data


def shown(field):
    return field.layout.display != "none"


def test_a_forecast_is_run_and_downloaded(form):
    """Run shows the panel and starts; Download hands out the combined forecast of all partitions."""
    made = form()
    press(made.run_button, made)
    assert made.status.value == ""
    assert [type(child).__name__ for child in made.panel.children] == ["Panel"]
    assert str(made.session.run()) == "forecast completed: 3/3 successful, 0 failed, 0 skipped"
    name, table = downloaded(made)
    assert name == "forecast.csv"
    assert table["site"].nunique() == 3
    assert len(table) == len(made.session.results())
    assert made.status.value == "forecast.csv, 0.1 MB"


def test_analyze_shows_the_card(form):
    made = form()
    press(made.analyze_button, made)
    assert made.status.value == ""
    assert made.analysis.rows == 300
    assert made.card.value == made.analysis._repr_html_()
    assert "estimated" in made.card.value


def test_the_strategy_is_that_of_the_form(form, untimed):
    made = form()
    made.strategy.value = "size"
    made.max_rows.value = 100
    press(made.analyze_button, made)
    assert len(made.analysis.partitions) >= 3
    assert made.analysis.by == "size"


def test_without_batch_mode_one_job_trains_what_is_named(form):
    made = form(backend=Threads())
    made.batch.value = False
    made.sites.value = "Manado, Sofifi"
    press(made.run_button, made)
    assert made.session.run().counts.total == 1
    assert set(made.session.results()["site"]) == {"Manado", "Sofifi"}


def test_the_fields_of_the_mode_are_shown(form):
    """Sites and parts filter one job only; a size belongs to its strategy. The switch explains itself."""
    made = form()
    assert [shown(field) for field in (made.cut_row, made.max_rows, made.filter_row)] == [1, 0, 0]
    made.strategy.value = "size"
    assert shown(made.max_rows)
    made.batch.value = False
    assert [shown(field) for field in (made.cut_row, made.filter_row)] == [0, 1]
    texts = [row.value for row in made.children if isinstance(getattr(row, "value", None), str)]
    assert any("Batch mode trains each partition by itself" in text for text in texts)


def test_a_table_comes_by_its_path(form, tmp_path, untimed):
    made = form()
    typed(made, tmp_path, demand(120, 2, parts=20).to_csv(index=False))
    press(made.analyze_button, made)
    assert (made.status.value, made.analysis.rows) == ("", 120)


def csv_of(frame):
    return frame.to_csv(index=False).encode()


def sheet_of(frame):
    return xlsx({"Data": [list(frame.columns), *(list(row) for row in frame.itertuples(index=False))]})


@pytest.mark.parametrize("write", [csv_of, sheet_of, lambda frame: frame.to_parquet()])
def test_a_table_is_uploaded(form, untimed, write):
    """Again and again: it can be analyzed, and then run. It takes the place of a path."""
    made = form()
    made._demand, made.path.value = None, "no such file.csv"
    content = write(demand(120, 2, parts=20))
    made.upload.value = (
        {
            "name": "mine.csv",
            "type": "text/csv",
            "size": len(content),
            "content": content,
            "last_modified": pd.Timestamp(0, tz="UTC").to_pydatetime(),
        },
    )
    press(made.analyze_button, made)
    assert (made.status.value, made.analysis.rows) == ("", 120)
    assert made._table().read() == content


def test_what_goes_wrong_is_told_beside_its_field(form, tmp_path, untimed):
    """As text: the file's own words cannot become markup. The form stays ready, and a next try clears it."""
    made = form()
    typed(made, tmp_path, "site,part,<b>when</b>,qty\na,1,soon,1\n")
    press(made.run_button, made)
    assert "choose which column is the date" in made.errors["columns"].value
    typed(made, tmp_path, "site,part,date,qty\na,1,<b>when</b>,1\n")
    press(made.run_button, made)
    assert "dates that can be read in &#x27;date&#x27;, got &#x27;&lt;b&gt;when" in made.errors["reading"].value
    assert shown(made.reading["date_format"])
    assert (made.run_button.disabled, made.session, made.status.value) == (False, None, "")
    made.path.value = ""
    press(made.analyze_button, made)
    assert "demand must be a file, got none" in made.errors["table"].value
    made._demand, made.batch.value, made.sites.value = demand(120, 2, parts=20), False, "Atlantis"
    press(made.analyze_button, made)
    assert "sites must be sites that have demand" in made.errors["filter"].value
    assert made.errors["table"].value == ""


def test_columns_that_are_not_recognised_are_asked_for(form, tmp_path, untimed):
    """Those that are found are chosen already; another table is asked about anew."""
    made = form()
    table = demand(120, 2, parts=20).rename(columns={"part": "was", "date": "wann"}).assign(bis="2025-07-01")
    typed(made, tmp_path, table.to_csv(index=False))
    assert not shown(made.columns_row)
    press(made.analyze_button, made)
    assert shown(made.columns_row)
    assert "choose which column is the part and the date" in made.errors["columns"].value
    assert {ours: choice.value for ours, choice in made.columns.items()} == {
        "site": "site",
        "part": "",
        "date": "",
        "quantity": "quantity",
    }
    made.columns["part"].value = made.columns["date"].value = "was"
    press(made.analyze_button, made)
    assert "columns must name a column once" in made.errors["columns"].value
    made.columns["date"].value = "wann"
    press(made.analyze_button, made)
    assert made.analysis.rows == 120
    assert {error.value for error in made.errors.values()} == {""}
    typed(made, tmp_path, "a\n")
    made.path.value = "elsewhere.csv"
    assert not shown(made.columns_row)


NUMBERS = "site,part,date,qty\n" + "".join(f"a;p{day};2025-07-{day:02};1.{day:03}\n" for day in range(1, 4)).replace(
    ";", ","
)


def test_what_the_table_leaves_open_is_asked_and_the_answer_can_be_changed(form, tmp_path, untimed):
    """Both readings of a cell are there to choose from; the choice is passed on, and another table is asked anew."""
    made = form()
    typed(made, tmp_path, NUMBERS)
    assert not shown(made.reading_row)
    press(made.analyze_button, made)
    assert "&#x27;1.00" in made.errors["reading"].value
    assert shown(made.question)
    labels = [label for label, _ in made.question.options]
    assert labels[0] == "choose …"
    assert any(label.startswith("1,00") and "thousands='.'" in label for label in labels)
    made.question.value = ("thousands", ".")
    assert (made.reading["thousands"].value, shown(made.reading["thousands"])) == (".", True)
    assert not shown(made.reading["sheet"])
    press(made.analyze_button, made)
    assert made.analysis.table.frame["quantity"].sum() == 3006
    made.reading["thousands"].value, made.reading["decimal"].value = "", "."
    press(made.analyze_button, made)
    assert made.analysis.table.frame["quantity"].sum() == pytest.approx(3.006)
    made.path.value = "elsewhere.csv"
    assert not shown(made.reading_row)
    assert made.reading["decimal"].value == ""


def test_an_argument_that_a_message_asks_for_has_its_field(form, tmp_path, untimed):
    made = form()
    path = typed(made, tmp_path, "")
    path.write_bytes("site,part,date,qty\nCaf\u00e9,1,2025-07-01,1\nCaf\u00e9,1,2025-07-02,1\n".encode("latin-1"))
    press(made.analyze_button, made)
    if made.analysis is None:  # unless its bytes tell which it is
        assert shown(made.reading["encoding"])
        assert "encoding=" in made.errors["reading"].value
        made.reading["encoding"].value = "latin-1"
        press(made.analyze_button, made)
    assert list(made.analysis.table.frame["site"].unique()) == ["Caf\u00e9"]


def test_repairs_are_offered_where_there_is_something_to_repair(form, untimed):
    table = demand(300, 3, parts=60)
    table.loc[5, "quantity"] = -1
    made = form(table, backend=Threads())
    assert not shown(made.repair_row)
    press(made.analyze_button, made)
    assert shown(made.repair_row)
    name, data = handed(made, made.bad_rows_button)
    assert (name, len(pd.read_csv(io.BytesIO(data)))) == ("bad rows.csv", 1)
    made.repair["drop_bad_rows"].value = True
    press(made.analyze_button, made)
    assert made.analysis.problems == ()
    assert shown(made.repair_row)
    press(made.run_button, made)
    assert made.session.run().state == "completed"


@pytest.mark.parametrize("kind", ["csv", "xlsx", "parquet"])
def test_a_forecast_is_downloaded_as(form, kind):
    made = form(backend=Threads())
    assert made.download_buttons[f".{kind}"].disabled
    press(made.run_button, made)
    made.session.run()
    name, data = handed(made, made.download_buttons[f".{kind}"])
    assert name == f"forecast.{kind}"
    read = {"csv": pd.read_csv, "xlsx": functools.partial(pd.read_excel, engine="calamine"), "parquet": pd.read_parquet}
    assert len(read[kind](io.BytesIO(data))) == len(made.session.results())


def test_how_good_it_would_have_been_is_shown_with_the_worst_series(form):
    made = form(demand(300, 3, parts=20))
    press(made.evaluate_button, made)
    assert (made.status.value, list(made.evaluation.index[:2])) == ("", ["chosen", "naive"])
    figures, worst = made.score.children
    _, chart = worst.children
    assert f"{made.evaluation.loc['chosen', 'rmsse']:.3f}" in figures.value
    assert len({axis for axis in chart.layout if axis.startswith("xaxis")}) == 5


@pytest.mark.parametrize("backend", [None, Threads()], ids=["processes", "threads"])
def test_an_evaluation_is_cancelled(form, backend):
    """By a button that is there while it runs; then the form is as before, and the next one is measured."""
    made = form(demand(300, 3, parts=20), models=[Held()], workers=1, backend=backend)
    is_running = threading.Event()
    made.status.observe(lambda change: is_running.set() if "measured 0" in change.new else None, "value")
    watch = made._watch
    made._watch = lambda session: (watch(session), session.on(lambda event: is_running.set()))
    assert not shown(made.cancel_button)
    made.evaluate_button.click()
    assert is_running.wait(60)
    assert shown(made.cancel_button)
    made.cancel_button.click()
    made.wait(60)
    assert made.status.value == "The evaluation was cancelled"
    assert (made.evaluation, made.score.children) == (None, ())
    assert not shown(made.cancel_button)
    assert not made.evaluate_button.disabled
    made._arguments["models"] = ["ses"]
    press(made.evaluate_button, made)
    assert made.evaluation is not None


@pytest.mark.parametrize("moment", ["before its session", "before it runs"])
def test_an_evaluation_is_cancelled_before_it_began(form, moment):
    made = form(demand(300, 3, parts=20), models=[Held()], workers=1)
    watch = made._watch

    def press_cancel(session):
        if moment == "before its session":
            made.cancel_button.click()
        watch(session)
        made.cancel_button.click()

    made._watch = press_cancel
    press(made.evaluate_button, made)
    assert made.status.value == "The evaluation was cancelled"


def test_what_cannot_be_measured_has_a_dash_that_is_explained(form):
    days = pd.date_range("2025-06-02", periods=60)
    made = form(pd.DataFrame({"site": "a", "part": "p", "date": days, "quantity": 3}))
    made.horizon.value = 5
    press(made.evaluate_button, made)
    figures, worst = made.score.children
    assert "nan" not in figures.value
    assert "\u2013 is not measured: no series moved" in figures.value
    assert "never moved, so that it has no RMSSE" in worst.children[1].layout.annotations[0].text


def test_without_plotly_a_sentence_takes_the_charts_place(form, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    made = form(demand(300, 3, parts=20))
    press(made.evaluate_button, made)
    assert "No chart of the series that were forecast worst" in made.score.children[1].value


def test_the_kernel_is_free_while_it_analyzes(form, monkeypatch):
    """A press returns at once; meanwhile the form says what it does, and no button does anything."""
    made, go_on, begun = form(), threading.Event(), []

    def analyze(**given):
        begun.append(made.status.value)
        go_on.wait(20)
        msg = "horizon must be a number"
        raise ValueError(msg)

    monkeypatch.setattr("ipybatch.forecast.form.analyze", analyze)
    made.analyze_button.click()
    made.analyze_button.click()
    made.run_button.click()
    assert (made.analyze_button.disabled, made.run_button.disabled) == (True, True)
    assert made.status.value == "analyzing…"
    go_on.set()
    made.wait(20)
    assert begun == ["analyzing…"]
    assert (made.analyze_button.disabled, made.run_button.disabled, made.status.value) == (False, False, "")
    assert "horizon must be a number" in made.errors["horizon"].value


def test_a_forecast_that_failed_is_not_downloaded(form):
    """The reason is told in its line, beside the button that stays grey; the next run clears it."""
    table = demand(300, 3, parts=60).astype({"date": str})
    good, table.loc[5, "date"] = table.loc[5, "date"], "31/13/2025"
    made = form(table, backend=Threads())
    press(made.run_button, made)
    assert made.session.run().state == "rolled_back"
    assert made.download_button.disabled
    assert "No forecast to download: Partition" in made.status.value
    table.loc[5, "date"] = good
    press(made.run_button, made)
    assert made.session.run().state == "completed"
    assert (made.status.value, made.download_button.disabled) == ("", False)


def test_it_is_run_again_and_cancelled(form):
    """While one runs there is no second; a cancelled one is run on, its panel takes the place of the one before."""
    made = form()
    press(made.run_button, made)
    made.session.run()
    first = made.panel.children[0]
    made.horizon.value = 6
    made._arguments["models"] = [Held()]
    press(made.run_button, made)
    assert made.run_button.disabled
    made.session.cancel()
    assert made.session.run().state == "cancelled"
    assert (made.run_button.disabled, made.download_button.disabled) == (False, True)
    assert "No forecast to download: cancelled" in made.status.value
    assert first.comm is None
    assert len(made.panel.children) == 1


def test_what_is_too_large_for_a_browser_is_a_file(form, tmp_path, monkeypatch):
    """Its path is told."""
    monkeypatch.setattr("ipybatch.forecast.form._LARGEST_MB", 0.001)
    monkeypatch.chdir(tmp_path)
    made = form(backend=Threads())
    press(made.run_button, made)
    made.session.run()
    press(made.download_button, made)
    assert len(pd.read_csv(tmp_path / "forecast.csv")) == len(made.session.results())
    assert made.status.value == f"0.1 MB, saved as {tmp_path / 'forecast.csv'}"


def test_nothing_is_downloaded_before_a_run(form):
    assert form().download_button.disabled


def ran(code):
    """What a new interpreter prints."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    ("first", "later"),
    [("ipybatch.jupyter.panel", "ipybatch.forecast"), ("ipybatch.forecast", ("ipywidgets", "anywidget"))],
)
def test_views_load_no_workload_and_forecasts_load_no_widgets(first, later):
    """The form is loaded by whoever asks for it; its former name is the same class, whichever is imported first."""
    loaded = f"import sys, {first}; print([m for m in sys.modules if m.startswith({later!r})])"
    named = "from ipybatch.jupyter import ForecastForm as old; import ipybatch.forecast as f"
    said = ran(f"{loaded}; {named}; print(old is f.ForecastForm, old.__module__)")
    assert said.split() == ["[]", "True", "ipybatch.forecast.form"]


@pytest.mark.parametrize("package", ["ipybatch.forecast", "ipybatch.jupyter"])
def test_without_widgets_the_extra_is_named(package):
    code = f"import sys; sys.modules['ipywidgets'] = None; import {package} as package\ntry: package.ForecastForm"
    assert ran(f"{code}\nexcept ImportError as error: print(type(error).__name__, error.extra)").split() == [
        "MissingExtra",
        "jupyter",
    ]
