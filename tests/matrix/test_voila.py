"""A notebook served as an application by Voila: its panel follows the session, and its buttons act on it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import pytest
from playwright.sync_api import expect

from tests.browser.lab import START_S, free_port
from tests.matrix.measured import BAR_MS, Case
from tests.matrix.setups import PACKAGES, VOILA, first
from tests.matrix.test_buttons import LOAD_S, SESSION, press

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a notebook that starts a session and shows it; each page that asks runs it anew."""
    notebook, port = tmp_path / "app.ipynb", free_port()
    cell = nbformat.v4.new_code_cell(SESSION.replace("NAME", "served"))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), notebook)
    folder = next(PACKAGES.glob("voila==*"))
    own = {
        "PYTHONPATH": first(folder),
        "JUPYTER_PATH": folder / "share" / "jupyter",
        "JUPYTER_CONFIG_DIR": tmp_path / "config",
        "JUPYTER_DATA_DIR": tmp_path / "data",
        "JUPYTER_RUNTIME_DIR": tmp_path / "runtime",
        "IPYTHONDIR": tmp_path / "ipython",
        "IPYBATCH_JOURNAL": tmp_path / "journal.db",
    }
    command = [sys.executable, "-m", "voila", str(notebook), "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"]
    with (tmp_path / "voila.log").open("wb") as log:
        environment = os.environ | {name: str(value) for name, value in own.items()}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    deadline_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline_s:
        try:
            urlopen(f"{address}/voila/static/", timeout=5).close()
        except URLError as error:
            if hasattr(error, "code"):  # it answers
                break
            time.sleep(0.05)
    yield address
    process.terminate()
    process.wait(timeout=15)


def test_press_in_voila(served: str, page: Page, cases: list[Case]) -> None:
    page.goto(served, timeout=LOAD_S * 1000)
    panel = page.locator(".ipybatch")
    expect(panel.locator(".ib-state").first).to_contain_text("running", timeout=LOAD_S * 1000)
    for number, button in enumerate(("pause", "cancel")):
        said_ms, acted_ms = press(panel, button)
        words = f"{button.capitalize()}{' after Pause' if number else ''}"
        cases.append(Case(setup=VOILA, doing="idle", press=words, said_ms=said_ms, acted_ms=acted_ms))
        print(f"{VOILA}, {words}: {acted_ms:.0f} ms")
    assert [case.acted_ms for case in cases[-2:] if case.acted_ms > BAR_MS] == []
