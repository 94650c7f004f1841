"""Form: a forecast without code: which table, how it is cut, how far ahead; then the card, the panel and the CSV.

What it does is what `ipybatch.forecast.analyze` and `ipybatch.forecast.forecast` do, with the same words.
"""

from __future__ import annotations

import base64
import importlib
import io
import tempfile
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets

from ipybatch.engine import events
from ipybatch.jupyter.still import said
from ipybatch.jupyter.views import Panel

_EXPLAINED = (
    "Batch mode trains each partition by itself, in a process of its own: one that hangs or runs out of memory is ended"
    " and harms no other, and several train at once. All or nothing: when one fails, no forecast is delivered. It pays"
    " above 5,000 rows, or from 5 sites or 500 parts on. Without it one job trains the sites and parts you name."
)
_STRATEGIES = (("a partition for each site", "site"), ("partitions of a size", "size"))
_WIDE = {"description_width": "120px"}
_LARGEST_MB = 30  # as a link in the page; what is larger goes to a file


class ForecastForm(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Choose a demand table, look at its analysis, run its forecast and download it.

    Attributes:
        session: The last session that was run; None before.
        analysis: The last analysis; None before.
    """

    def __init__(self, demand: Any = None, **arguments: Any) -> None:
        """Make the form.

        Args:
            demand: A DataFrame or a path; None to upload a file, or to type its path.
            arguments: Handed on to `ipybatch.forecast.forecast`: ``name=``, ``columns=``, ``timeout_s=``, ...
        """
        self.session: Any = None
        self.analysis: Any = None
        self._demand, self._arguments = demand, arguments
        self.upload = ipywidgets.FileUpload(accept=".csv", multiple=False, description="Upload CSV")
        self.path = ipywidgets.Text(placeholder="or its path: demand.csv", description="Table", style=_WIDE)
        self.batch = ipywidgets.Checkbox(value=True, description="Batch mode", indent=False)
        self.strategy = ipywidgets.Dropdown(options=_STRATEGIES, description="Strategy", style=_WIDE)
        self.max_rows = ipywidgets.BoundedIntText(2000, min=1, max=10**9, description="Rows at most", style=_WIDE)
        self.sites = ipywidgets.Text(placeholder="all; or A, B", description="Sites", style=_WIDE)
        self.parts = ipywidgets.Text(placeholder="all; or P1, P2", description="Parts", style=_WIDE)
        self.horizon = ipywidgets.BoundedIntText(30, min=1, max=10_000, description="Periods ahead", style=_WIDE)
        self.analyze_button = _button("Analyze", self._analyze)
        self.run_button = _button("Run", self._run, "success")
        self.download_button = _button("Download CSV", self._download)
        self.download_button.disabled = True
        self.status, self.card, self.link = (ipywidgets.HTML() for _ in range(3))
        self.panel = ipywidgets.VBox()
        super().__init__(self._rows())
        for switch in (self.batch, self.strategy):
            switch.observe(self._fit, "value")
        self._fit()

    def _rows(self) -> list[Any]:
        table = [] if self._demand is not None else [ipywidgets.HBox([self.upload, self.path])]
        buttons = [self.analyze_button, self.run_button, self.download_button]
        return [
            *table,
            self.batch,
            ipywidgets.HTML(f'<div style="max-width:720px;opacity:0.7">{said(_EXPLAINED, 1000)}</div>'),
            ipywidgets.HBox([self.strategy, self.max_rows]),
            ipywidgets.HBox([self.sites, self.parts]),
            self.horizon,
            ipywidgets.HBox([*buttons, self.link]),
            self.status,
            self.card,
            self.panel,
        ]

    def _fit(self, *_: Any) -> None:
        """Show the fields that matter in this mode."""
        _show(self.strategy, self.batch.value)
        _show(self.max_rows, self.batch.value and self.strategy.value == "size")
        for field in (self.sites, self.parts):
            _show(field, not self.batch.value)

    def _asked(self) -> dict[str, Any]:
        """Return what the fields say, as arguments of `analyze` and `forecast`."""
        asked: dict[str, Any] = {"demand": self._table(), "horizon": self.horizon.value}
        if self.batch.value:
            return {**asked, "by": self.strategy.value, "max_rows": self.max_rows.value}
        return {**asked, "by": None, "sites": _words(self.sites.value), "parts": _words(self.parts.value)}

    def _table(self) -> Any:
        if self._demand is not None:
            return self._demand
        if self.upload.value:
            (uploaded,) = self.upload.value
            file = io.BytesIO(bytes(uploaded["content"]))
            file.name = uploaded["name"]  # messages name the file
            return file
        if not self.path.value.strip():
            msg = "Table must be a file, got none: upload one, or type its path"
            raise ValueError(msg)
        return self.path.value.strip()

    def _analyze(self) -> None:
        known = ("columns", "freq", "models", "workers", "max_partitions")
        given = {name: value for name, value in self._arguments.items() if name in known}
        self.card.value = ""
        self.analysis = _forecast_package().analyze(**{**given, **self._asked()})
        self.card.value = self.analysis._repr_html_()

    def _run(self) -> None:
        asked = self._asked()
        self.link.value = ""
        self.session = _forecast_package().forecast(**{**self._arguments, **asked})
        self.panel.children = (Panel(self.session),)
        self.download_button.disabled = False
        self.session.start()

    def _download(self) -> None:
        """Offer the forecast as a link; what is too large for one lies beside the notebook."""
        if self.session.state not in events.ENDED:
            self.status.value = said(f"The forecast is not finished: {self.session.summary}")
            return
        if self.session.state != "completed":
            remedy = importlib.import_module("ipybatch.forecast.remedies").remedy(self.session.reason)
            told = f"There is no whole forecast: {self.session.summary}"
            self.status.value = said(f"{told}. What helps: {remedy}" if remedy else told, 1000)
            return
        name = f"{Path(self.session.summary.name).name}.csv"
        with tempfile.TemporaryDirectory() as folder:
            data = self.session.save(Path(folder) / "forecast.csv").read_bytes()
        if len(data) > _LARGEST_MB * 1e6:
            path = self.session.save(Path.cwd() / name)
            self.link.value = said(f"saved as {path}")
            return
        address = f"data:text/csv;base64,{base64.b64encode(data).decode()}"
        self.link.value = f'<a download="{escape(name)}" href="{address}">{said(name)}</a> ({len(data) / 1e6:.1f} MB)'

    def _act(self, action: Callable[[], None]) -> None:
        """Do what a button says, and show what goes wrong in the form, not in a log nobody sees."""
        self.status.value = "…"
        buttons = (self.analyze_button, self.run_button)
        for button in buttons:
            button.disabled = True
        try:
            action()
        except Exception as error:
            self.status.value = f'<span style="color:#e5484d">✕</span> {said(str(error) or type(error).__name__)}'
        finally:
            for button in buttons:
                button.disabled = False
            if self.status.value == "…":
                self.status.value = ""


def _forecast_package() -> Any:
    # By name: the views stand below the workloads, and know them no more than this.
    return importlib.import_module("ipybatch.forecast")


def _button(words: str, action: Callable[[], None], style: str = "") -> Any:
    form: Any = action.__self__  # type: ignore[attr-defined]  # a method of the form
    button = ipywidgets.Button(description=words, button_style=style)
    button.on_click(lambda _: form._act(action))
    return button


def _show(field: Any, is_shown: bool) -> None:
    field.layout.display = None if is_shown else "none"


def _words(text: str) -> list[str] | None:
    """Return names separated by commas; None, for all, where there are none."""
    return [word.strip() for word in text.split(",") if word.strip()] or None
