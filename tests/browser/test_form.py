"""The forecast form in a real JupyterLab: from a path to a file among the downloads, without a cell in between."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from playwright.sync_api import expect

from ipybatch.simulators import demand

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Locator

    from tests.browser.lab import Notebook

FORM = """
from ipybatch.forecast import ForecastForm

form = ForecastForm(models=["naive", "ses"], name="NAME")
form
"""
FREE = "print('the kernel is free while the form says', form.status.value)"
LARGE = r"form.download.offer('large.csv', b'site,part\n' * 4_500_000)"
LOAD_S = 90


def open_form(open_notebook: Callable[..., Notebook], name: str, *cells: str) -> tuple[Notebook, Locator]:
    notebook = open_notebook([FORM.replace("NAME", name), *cells])
    notebook.run(0)
    form = notebook.output(0)
    expect(form.get_by_role("button", name="Analyze")).to_be_visible(timeout=LOAD_S * 1000)
    return notebook, form


def write(notebook: Notebook, table: pd.DataFrame) -> str:
    path = notebook.path.with_suffix(".csv")
    table.to_csv(path, index=False)
    return path.name


def test_from_a_path_to_a_download(open_notebook: Callable[..., Notebook], tmp_path: Path) -> None:
    """Columns that are not recognised are asked for beside the table; then the card, the panel, the file."""
    notebook, form = open_form(open_notebook, "form", FREE)
    table = demand(300, 3, parts=60)
    written = table.rename(columns={"date": "wann"}).assign(bis="2025-07-01")  # either may be the date
    form.get_by_label("Table").fill(write(notebook, written))
    form.get_by_label("Periods ahead").fill("5")
    form.get_by_label("Periods ahead").press("Tab")
    analyze = form.get_by_role("button", name="Analyze")
    analyze.click()
    expect(form).to_contain_text("choose which column is the date", timeout=LOAD_S * 1000)
    form.get_by_label("Date").select_option("wann")
    analyze.click()
    expect(form).to_contain_text("analyzing…")
    notebook.run(1)
    notebook.wait_output(1, "the kernel is free while the form says analyzing…")
    expect(form).to_contain_text("300 rows, 3 sites", timeout=LOAD_S * 1000)
    expect(form.get_by_role("button", name="Download CSV")).to_be_disabled()
    form.get_by_role("button", name="Run", exact=True).click()
    expect(form.locator(".ipybatch .ib-state")).to_contain_text("completed", timeout=LOAD_S * 1000)
    with notebook.page.expect_download() as download:
        form.get_by_role("button", name="Download CSV").click()
    assert download.value.suggested_filename == "form.csv"
    download.value.save_as(tmp_path / "form.csv")
    saved = pd.read_csv(tmp_path / "form.csv")
    assert len(saved) == 5 * len(table[["site", "part"]].drop_duplicates())
    assert set(saved["site"]) == set(table["site"])
    expect(form).to_contain_text(re.compile(r"form\.csv, \d+\.\d MB"))


def test_a_large_file_comes_whole(open_notebook: Callable[..., Notebook]) -> None:
    """45 MB, which no link could hold."""
    notebook, _ = open_form(open_notebook, "large", LARGE)
    with notebook.page.expect_download(timeout=LOAD_S * 1000) as download:
        notebook.run(1)
    assert download.value.suggested_filename == "large.csv"
    assert download.value.path().stat().st_size == 45_000_000
