"""The notebooks of the demo: changed as they must be, and run from start to end in a Python without threads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.lite.page import without_frames
from tests.lite.test_threadless import ROOT, run
from tools.lite_notebooks import NOTEBOOKS, for_browser


def notebook(name: str) -> dict:
    return json.loads((ROOT / "notebooks" / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_nothing_in_it_needs_a_port_or_a_process(name):
    changed = for_browser(name, notebook(name))
    text = "\n".join(cell["source"] for cell in changed["cells"])
    assert changed["cells"][1]["source"].startswith("%pip install -q ipybatch")
    assert "serve(" not in text
    assert "subprocess" not in text
    assert all(not cell["outputs"] for cell in changed["cells"] if cell["cell_type"] == "code")


def test_a_notebook_that_was_changed_elsewhere_is_refused():
    given = notebook("01_library_refresh.ipynb")
    for cell in given["cells"]:
        cell["source"] = "".join(cell["source"]).replace("sound = serve(", "quiet = serve(")
    with pytest.raises(ValueError, match="must have 'sound = serve"):
        for_browser("01_library_refresh.ipynb", given)


@pytest.mark.browser  # it takes 50 seconds: `make litetest` runs it
def test_the_library_is_refreshed_in_process(tmp_path: Path):
    name = "01_library_refresh.ipynb"
    path = tmp_path / name
    path.write_text(json.dumps(for_browser(name, notebook(name))))
    printed = run(tmp_path, path)
    assert "500 games owned, 0 known" in printed
    assert "library completed: 497/500 successful, 3 failed" in printed
    assert "answers 429, too many requests: 0" in printed
    assert "at most 40 requests in any 2 s: True" in printed
    assert "wishlist cancelled: " in printed
    assert "each game recorded once: True" in printed
    assert "asked for twice, at most the three in flight: True" in printed
    assert "battlenet eu refresh completed: 428/429 successful, 1 failed" in printed
    assert "tokens that ended in mid-run, unnoticed: True" in printed
    assert "not there: {'game': 3, 'guild': 1}" in printed


def test_what_makes_frames_is_taken_out_with_all_that_needs_it():
    cells = [
        "import pandas as pd\nimport json",
        "seen = pd.Series([1])\nkept = {\n    'a': 1,\n}\nprint(seen)",
        "print(kept)\nseen = 1\nprint(seen)\nresults = 1\nsession.save('x')",
        "%pip install pandas",
    ]
    assert [cell.split() for cell in without_frames(cells)] == [
        ["import", "json"],
        ["kept", "=", "{", "'a':", "1,", "}"],
        ["print(kept)", "seen", "=", "1", "print(seen)"],
        ["%pip", "install", "pandas"],
    ]
