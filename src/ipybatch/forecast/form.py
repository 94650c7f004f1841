"""Form for a forecast without code: choose a table, its partitions and a horizon; then analyze, run, download.

It calls `analyze`, `evaluate` and `forecast` with the values of its fields. Slow calls run in a thread, so that cells
can run meanwhile; an error is shown beside the field that it is about. Fields that most tables do not need, how the
table is written and how its rows are repaired, come when an answer asks for them.
"""

from __future__ import annotations

import inspect
import io
import re
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets

from ipybatch.engine.data import events
from ipybatch.engine.data.fact import NONE
from ipybatch.forecast.analysis import analyze
from ipybatch.forecast.charts import told_figure
from ipybatch.forecast.data.table import READING
from ipybatch.forecast.data.understanding import Undecided
from ipybatch.forecast.evaluation import Evaluation, evaluate
from ipybatch.forecast.forecast_files import safe
from ipybatch.forecast.session import forecast
from ipybatch.jupyter.panel import Panel
from ipybatch.jupyter.static_html import Sheet, said, table

_EXPLAINED = (
    "Batch mode trains each partition by itself, in a process of its own: one that hangs or runs out of memory is ended"
    " and harms no other, and several train at once. All or nothing: when one fails, no forecast is delivered. It pays"
    " above 5,000 rows, or from 5 sites or 500 parts on. Without it one job trains the sites and parts you name."
)
_STRATEGIES = (("a partition for each site", "site"), ("partitions of a size", "size"))
_ANALYZED = (*READING, "models", "workers", "max_partitions")  # arguments that `analyze` takes too
_TYPES = {
    ".csv": "text/csv",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".parquet": "application/vnd.apache.parquet",
}  # of the files that a forecast is downloaded as
_ACCEPTED = ".csv,.tsv,.txt,.gz,.xlsx,.xls,.ods,.parquet"
_READING = {
    "decimal": ("Decimal mark", "found; or . or ,"),
    "thousands": ("Thousands mark", "found; or . or ,"),
    "date_format": ("Day format", "found; or %d/%m/%Y"),
    "encoding": ("Encoding", "found; or cp1252"),
    "sheet": ("Sheet", "found"),
}  # how a table is written: arguments of all three functions
_REPAIRS = {
    "drop_bad_rows": "Drop rows that cannot be used",
    "net_returns": "Take returns off earlier sales",
    "merge_near_duplicates": "Merge names that differ by little",
}
_WORST, _WIDTH_PX = 5, 920  # series, and how wide they are drawn: as the card
_TOLD = 5  # partitions that an evaluation left out
_LARGEST_MB = 200  # through the browser's memory; what is larger goes to a file
_LONGEST = 1000
# Of several pages that show the kernel, the visible one saves the file.
_ESM = """
export default {
  initialize({ model }) {
    const save = (_, buffers) => {
      if (document.hidden) return;
      const url = URL.createObjectURL(new Blob(buffers, { type: model.get("type") }));
      const link = document.createElement("a");
      Object.assign(link, { href: url, download: model.get("name") });
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
    };
    model.on("msg:custom", save);
    return () => model.off("msg:custom", save);
  },
  render() {},
};
"""


class Download(anywidget.AnyWidget):
    """An invisible widget that saves files among the browser's downloads, in one step and of any size.

    A link that holds its data would need a second click, and would stay in the saved notebook with the whole file.
    Widget messages have no limit of size.

    Attributes:
        name: Name of the file.
        type: Its MIME type.
    """

    _esm = _ESM
    name = traitlets.Unicode("").tag(sync=True)
    type = traitlets.Unicode("").tag(sync=True)

    def offer(self, name: str, data: bytes) -> None:
        """Save a file among the browser's downloads."""
        self.name, self.type = name, _TYPES.get(Path(name).suffix, "application/octet-stream")
        self.send({}, buffers=[data])


class ForecastForm(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Choose a demand table, see its analysis, run its forecast and download the result.

    Attributes:
        session: The last session that was run; None before.
        analysis: The last analysis; None before.
        evaluation: The last evaluation; None before.
    """

    def __init__(self, demand: Any = None, **arguments: Any) -> None:
        """Make the form.

        Args:
            demand: As for `ipybatch.forecast.forecast`; None to upload a file, or to type its path.
            arguments: As for `ipybatch.forecast.forecast`: ``name=``, ``columns=``, ``timeout_s=``, ...
        """
        self.session: Any = None
        self.analysis: Any = None
        self.evaluation: Any = None
        self._demand, self._arguments = demand, arguments
        self._thread: threading.Thread | None = None
        self._is_busy = self._is_cancelled = False
        self._measuring: Any = None
        self._make_fields()
        self.analyze_button = _button("Analyze", lambda: self._begin("analyzing…", self._analyze))
        self.run_button = _button("Run", lambda: self._begin("reading the table…", self._run), "primary")
        self.evaluate_button = _button("Evaluate", lambda: self._begin("measuring…", self._evaluate))
        self.cancel_button = _button("Cancel", self._cancel)
        self.cancel_button.tooltip = "End the evaluation"
        _show(self.cancel_button, is_shown=False)
        self.evaluate_button.tooltip = "Forecast the past, and show how good that would have been"
        self.download_buttons = {suffix: self._download_button(suffix) for suffix in _TYPES}
        self.download_button = self.download_buttons[".csv"]
        self.errors = {
            name: ipywidgets.HTML() for name in ("table", "columns", "reading", "repair", "cut", "filter", "horizon")
        }
        self.status, self.card, self.panel = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.VBox()
        self.score = ipywidgets.VBox()
        self.download = Download(layout={"display": "none"})
        super().__init__(self._rows(), layout={"grid_gap": "6px"})
        for switch in (self.batch, self.strategy):
            switch.observe(self._fit, "value")
        self.question.observe(self._answer, "value")
        self.path.observe(self._forget_columns, "value")
        self.upload.observe(self._take_upload, "value")
        self._forget_columns()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for the thread that a button started; a run itself goes on."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _make_fields(self) -> None:
        self.upload = ipywidgets.FileUpload(accept=_ACCEPTED, multiple=False, description="Upload")
        self.path = _field(
            ipywidgets.Text, "Table", placeholder="path of a file, or of a folder of them", width="420px"
        )
        self.columns = {
            ours: _field(ipywidgets.Dropdown, ours.capitalize(), options=[], width=width, label=label)
            for ours, label, width in (
                ("site", "100px", "250px"),
                ("part", "40px", "190px"),
                ("date", "40px", "190px"),
                ("quantity", "64px", "214px"),
            )
        }
        self.question = _field(ipywidgets.Dropdown, "Meant is", options=[], width="420px")
        self.reading = {
            name: _field(ipywidgets.Text, title, placeholder=hint, width="250px")
            for name, (title, hint) in _READING.items()
        }
        self.repair = {
            name: ipywidgets.Checkbox(description=title, indent=False, layout={"width": "auto", "margin": "0 16px 0 0"})
            for name, title in _REPAIRS.items()
        }
        self.bad_rows_button = _button("Download bad rows", lambda: self._begin("writing…", self._hand_out_bad_rows))
        self.batch = ipywidgets.Checkbox(value=True, description="Batch mode", indent=False)
        self.strategy = _field(ipywidgets.Dropdown, "Strategy", options=_STRATEGIES)
        self.max_rows = _field(ipywidgets.BoundedIntText, "Rows at most", value=2000, min=1, max=10**9, width="220px")
        self.sites = _field(ipywidgets.Text, "Sites", placeholder="all; or A, B")
        self.parts = _field(ipywidgets.Text, "Parts", placeholder="all; or P1, P2")
        self.horizon = _field(ipywidgets.BoundedIntText, "Periods ahead", value=30, min=1, max=10_000, width="220px")

    def _rows(self) -> list[Any]:
        errors = self.errors
        table = [] if self._demand is not None else [_row(self.path, self.upload, errors["table"])]
        self.columns_row = _row(*self.columns.values(), errors["columns"])
        self.reading_row = _row(self.question, *self.reading.values(), errors["reading"])
        title = ipywidgets.Label(
            "Repair", layout={"width": "100px", "justify_content": "flex-end", "margin": "2px 8px"}
        )
        self.repair_row = _row(title, *self.repair.values(), self.bad_rows_button, errors["repair"])
        self.cut_row = _row(self.strategy, self.max_rows, errors["cut"])
        self.filter_row = _row(self.sites, self.parts, errors["filter"])
        explained = f'<div style="max-width:720px;line-height:1.5;opacity:0.75">{said(_EXPLAINED, _LONGEST)}</div>'
        return [
            *(table or [errors["table"]]),
            self.columns_row,
            self.reading_row,
            self.repair_row,
            self.batch,
            ipywidgets.HTML(explained),
            self.cut_row,
            self.filter_row,
            _row(self.horizon, errors["horizon"]),
            _row(
                self.analyze_button,
                self.evaluate_button,
                self.run_button,
                *self.download_buttons.values(),
                self.cancel_button,
                self.status,
            ),
            self.card,
            self.score,
            self.panel,
            self.download,
        ]

    def _fit(self, *_: Any) -> None:
        """Show the fields that matter in this mode."""
        _show(self.cut_row, self.batch.value)
        _show(self.max_rows, self.strategy.value == "size")
        _show(self.filter_row, not self.batch.value)
        _show(self.columns_row, any(choice.options for choice in self.columns.values()))
        _show(self.question, bool(self.question.options))
        _show(self.reading_row, bool(self.question.options) or any(map(_is_shown, self.reading.values())))
        _show(self.bad_rows_button, bool(self.analysis is not None and self.analysis.problems))

    def _take_upload(self, *_: Any) -> None:
        self.path.value = ""  # what came last is meant
        self._forget_columns()

    def _forget_columns(self, *_: Any) -> None:
        """Another table has other columns, and is written in another way."""
        self.analysis = self.evaluation = None
        self.card.value, self.score.children = "", ()
        for choice in (*self.columns.values(), self.question):
            choice.options = []
        for field in self.reading.values():
            field.value = ""
            _show(field, is_shown=False)
        for choice in self.repair.values():
            choice.value = False
        _show(self.repair_row, is_shown=False)
        self._fit()

    def _answer(self, *_: Any) -> None:
        """Take over what was chosen of several readings, into the field where it can be changed."""
        if self.question.value:
            name, value = self.question.value
            self.reading[name].value = value
            _show(self.reading[name], is_shown=True)
            self.errors["reading"].value = ""

    def _asked(self) -> dict[str, Any]:
        """Return what the fields say, as arguments of `analyze` and `forecast`."""
        asked: dict[str, Any] = {"demand": self._table(), "horizon": self.horizon.value}
        chosen = {ours: choice.value for ours, choice in self.columns.items() if choice.value not in (None, "")}
        asked["columns"] = {**(self._arguments.get("columns") or {}), **chosen}
        asked |= {name: field.value for name, field in self.reading.items() if field.value}
        if repairs := {name for name, choice in self.repair.items() if choice.value}:
            asked["repair"] = repairs | set(self._arguments.get("repair") or ())
        if self.batch.value:
            return {**asked, "by": self.strategy.value, "max_rows": self.max_rows.value}
        return {**asked, "by": None, "sites": _words(self.sites.value), "parts": _words(self.parts.value)}

    def _table(self) -> Any:
        if self._demand is not None:
            return self._demand
        if self.path.value.strip():
            return self.path.value.strip()
        if not self.upload.value:
            msg = "demand must be a file, got none: upload one, or type its path"
            raise ValueError(msg)
        (uploaded,) = self.upload.value
        file = io.BytesIO(bytes(uploaded["content"]))
        file.name = uploaded["name"]  # messages name the file
        return file

    def _analyze(self) -> None:
        given = {name: value for name, value in self._arguments.items() if name in _ANALYZED}
        self.card.value, self.analysis = "", None
        self.analysis = analyze(**{**given, **self._asked()})
        self.card.value = self.analysis._repr_html_()
        self._ask_for_repairs(self.analysis.notes, is_asked=bool(self.analysis.problems))
        self._fit()

    def _evaluate(self) -> None:
        taken = inspect.signature(evaluate).parameters
        given = {name: value for name, value in self._arguments.items() if name in taken}
        self.score.children, self.evaluation = (), None
        watching = {"on_progress": self._tell_progress, "on_session": self._watch}
        self._is_cancelled, self._measuring = False, None
        _show(self.cancel_button, is_shown=True)
        try:
            self.evaluation = evaluate(**{**given, **self._asked(), **watching})
        except KeyboardInterrupt:
            self._say("The evaluation was cancelled")
            return
        finally:
            self._measuring = None
            _show(self.cancel_button, is_shown=False)
        notes = "".join(_bad(f"Left out: {line}") for line in self.evaluation.attrs["left_out"][:_TOLD])
        self._say("")
        self.score.children = (ipywidgets.HTML(_scores(self.evaluation) + notes), _worst(self.evaluation))

    def _watch(self, session: Any) -> None:
        if self._is_cancelled:
            msg = "the evaluation was cancelled"
            raise KeyboardInterrupt(msg)
        self._measuring = session
        session.on(self._heed_cancel)

    def _cancel(self) -> None:
        self._is_cancelled = True
        self._say("cancelling…")
        if (session := self._measuring) is not None:
            session.cancel()

    def _heed_cancel(self, _: events.Event) -> None:
        """End an evaluation that was cancelled before it could be."""
        session = self._measuring
        if self._is_cancelled and session is not None and session.cancel() == "asked":
            self._measuring = None  # once is enough

    def _tell_progress(self, done: int, total: int | None) -> None:
        if self._is_cancelled:
            return
        self._say(f"measured {done:,} of {total or done:,} partitions, those of all origins…")

    def _ask_for_repairs(self, texts: Iterable[str], *, is_asked: bool = False) -> None:
        """Offer the repairs where the table has something to repair, and leave them there."""
        if is_asked or any("repair=" in text for text in texts):
            _show(self.repair_row, is_shown=True)

    def _run(self) -> None:
        session = forecast(**{**self._arguments, **self._asked()})
        session.on(self._heard)
        session.start()
        self.session = session
        before, self.panel.children = self.panel.children, (Panel(self.session),)
        for panel in before:
            panel.close()

    def _heard(self, event: events.Event) -> None:
        if not isinstance(event, events.StateChanged):
            return
        self._settle()
        if event.state in ("failed", "rolled_back", "cancelled"):
            self.status.value = _bad(f"No forecast to download: {event.reason or event.state}")
        elif not self._is_busy:
            self._say("")

    def _download_button(self, suffix: str) -> Any:
        kind = suffix.removeprefix(".")
        words = f"Download {kind.title() if kind == 'parquet' else kind.upper()}"
        button = _button(words, lambda: self._begin("writing…", lambda: self._hand_out(suffix)))
        button.disabled = True
        return button

    def _hand_out_bad_rows(self) -> None:
        data = safe(self.analysis.bad_rows()).to_csv(index=False).encode("utf-8-sig")
        self.download.offer("bad rows.csv", data)

    def _hand_out(self, suffix: str) -> None:
        """Hand the forecast to the browser; what is too large for it lies beside the notebook."""
        name = f"{Path(self.session.name).name}{suffix}"
        with tempfile.TemporaryDirectory() as folder:
            data = self.session.save(Path(folder) / f"forecast{suffix}").read_bytes()
        size = f"{len(data) / 1e6:,.1f} MB"
        if len(data) > _LARGEST_MB * 1e6:
            self._say(f"{size}, saved as {self.session.save(Path.cwd() / name)}")
        else:
            self.download.offer(name, data)
            self._say(f"{name}, {size}")

    def _begin(self, words: str, action: Callable[[], None]) -> None:
        """Do what a button says in a thread, and show what goes wrong in the form, not in a log nobody sees."""
        if self._is_busy:
            return
        self._is_busy = True
        for error in self.errors.values():
            error.value = ""
        self._say(words)
        self._settle()
        self._thread = threading.Thread(target=self._act, args=(words, action), name="ipybatch-form", daemon=True)
        self._thread.start()

    def _act(self, words: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever it is belongs beside its field
            self._say("")
            self._tell(error)
        finally:
            self._is_busy = False
            if self.status.value == said(words):
                self._say("")
            self._settle()

    def _tell(self, error: Exception) -> None:
        names, found = getattr(error, "names", None), getattr(error, "found", {})
        if names is not None:  # of a table whose columns are not all known: the user chooses those not found
            for ours, choice in self.columns.items():
                choice.options = [("choose …", ""), *((str(name), name) for name in names)]
                choice.value = "" if found.get(ours) is None else found[ours]
            self._fit()
            lost = " and the ".join(ours for ours in self.columns if found.get(ours) is None)
            self.errors["columns"].value = _bad(f"Not found by its name: choose which column is the {lost}")
            return
        words = str(error) or type(error).__name__
        if isinstance(error, Undecided):
            self._ask(error)
            return
        self._ask_for_repairs([words])
        asked = [name for name in self.reading if re.search(rf"\b{name}=|^{name} must", words)]
        for name in asked:
            _show(self.reading[name], is_shown=True)
        self._fit()
        field = "reading" if asked else _FIELDS.get(re.split(r"\W", words, maxsplit=1)[0])
        (self.status if field is None else self.errors[field]).value = _bad(words)

    def _ask(self, error: Undecided) -> None:
        """Let the user say which of several readings is meant."""
        answers = [(str(answer), (answer.argument, answer.value)) for answer in error.answers]
        self.question.options = [("choose …", ()), *answers]
        self.question.value = ()
        self._fit()
        each = " or ".join(answer.reading for answer in error.answers)
        self.errors["reading"].value = _bad(f"{error.example!r} in the column {error.column!r} may be {each}: choose")

    def _settle(self) -> None:
        """Let the buttons that make sense now be pressed."""
        state = None if self.session is None else self.session.state
        self.analyze_button.disabled = self.evaluate_button.disabled = self._is_busy
        self.run_button.disabled = self._is_busy or state in ("running", "paused")
        for button in self.download_buttons.values():
            button.disabled = self._is_busy or state != "completed"

    def _say(self, words: str) -> None:
        self.status.value = said(words, _LONGEST)


_FIELDS = {
    "demand": "table",
    "columns": "columns",
    "repair": "repair",
    "max_rows": "cut",
    "sites": "filter",
    "parts": "filter",
    "horizon": "horizon",
}  # what a message about an argument begins with, and where the argument's field is


def _field(kind: Any, description: str, *, width: str = "330px", label: str = "100px", **given: Any) -> Any:
    layout = {"width": width, "max_width": "100%"}
    return kind(description=description, style={"description_width": label}, layout=layout, **given)


def _row(*fields: Any) -> Any:
    return ipywidgets.HBox(fields, layout={"flex_flow": "row wrap", "align_items": "center"})


def _button(words: str, press: Callable[[], None], style: str = "") -> Any:
    button = ipywidgets.Button(description=words, button_style=style)
    button.on_click(lambda _: press())
    return button


def _bad(words: str) -> str:
    mark = '<span style="color:var(--jp-error-color1,#e5484d)">✕</span>'
    return f'<div style="max-width:720px;line-height:1.5">{mark} {said(words, _LONGEST)}</div>'


def _scores(evaluation: Evaluation) -> str:
    """Return the measures as a table."""
    rows = [
        [f"<b>{said(name)}</b>" if name == "chosen" else said(name), *map(told_figure, values)]
        for name, values in zip(evaluation.index, evaluation.to_numpy(), strict=True)
    ]
    columns = [("Model", False), *((_MEASURES[name], True) for name in evaluation.columns)]
    origins = evaluation.attrs["origins"]
    told = f"The past, forecast from {', '.join(origins)}, {evaluation.attrs['horizon']:,} periods ahead"
    if any(NONE in row for row in rows):
        told += f"; {NONE} is not measured: no series moved, or nothing sold"
    return f'<div style="padding-top:6px">{said(told)}</div>{table(Sheet(columns, rows), margin="8px 0 4px 0")}'


def _worst(evaluation: Evaluation) -> Any:
    """Return the chart of the series that were forecast worst, or the sentence that says what it needs."""
    try:
        from plotly.graph_objects import FigureWidget

        figure = FigureWidget(evaluation.chart(worst=_WORST).update_layout(width=_WIDTH_PX))
        title = ipywidgets.HTML("<b>The series that were forecast worst</b>, by RMSSE")
        return ipywidgets.VBox([title, figure])
    except ImportError as error:
        return ipywidgets.HTML(said(f"No chart of the series that were forecast worst: {error}", _LONGEST))


_MEASURES = {
    "mase": "MASE",
    "rmsse": "RMSSE",
    "wape": "WAPE",
    "bias": "Bias",
    "pooled_rmse": "Pooled RMSE",
    "coverage": "Coverage",
    "coverage_nonzero": "Coverage of sales",
}


def _is_shown(field: Any) -> bool:
    return bool(field.layout.display != "none")


def _show(field: Any, is_shown: bool) -> None:
    field.layout.display = None if is_shown else "none"


def _words(text: str) -> list[str] | None:
    """Return names separated by commas; None, for all, where there are none."""
    return [word.strip() for word in text.split(",") if word.strip()] or None
