"""What the pages show of Gemini runs as it stands there, in the order of the page, against the simulator."""

import re
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("google.genai")
import ipybatch
from ipybatch import BatchSession
from ipybatch.gemini import Batch, GeminiBatches
from tests.gemini.conftest import KEY, names

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("docs/gemini.md", "docs/from-concurrent-gemini.md")


def snippets(place):
    """Each block of Python of a page, at its own line."""
    text = (ROOT / place).read_text(encoding="utf-8")
    for found in re.finditer(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        yield compile("\n" * text.count("\n", 0, found.start(1)) + found[1], place, "exec")


@pytest.fixture
def page(desk, journal, tmp_path, monkeypatch):
    """What a reader has: a key in the environment, some prompts and rows, a folder; and a service in no time."""
    desk.open(batch_delay_s=0, latency_s=0)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", desk.server.url)
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(journal))
    monkeypatch.setitem(Batch.__init__.__kwdefaults__, "poll_s", 0.05)
    monkeypatch.setattr(GeminiBatches.wait, "__defaults__", (0.05, 10.0))
    monkeypatch.chdir(tmp_path)
    made = []
    init = BatchSession.__init__

    def note(session, *args, **named):
        init(session, *args, **named)
        made.append(session)

    monkeypatch.setattr(BatchSession, "__init__", note)
    rows = [{"id": number, "prompt": prompt} for number, prompt in enumerate(names(4))]
    given = {"prompts": names(5), "rows": rows, "requests": rows, "on_progress": lambda done, total: None}
    yield {"ipybatch": ipybatch, "pd": pd, **given}
    for session in made:
        session.cancel()


@pytest.mark.parametrize("place", PAGES)
def test_every_snippet_runs(page, desk, place):
    found = list(snippets(place))
    assert found
    for snippet in found:
        exec(snippet, page)
    assert desk.stats["requests"] > 0
