"""The page "From tqdm": what it shows runs, before and after, one block after the other."""

import ast
import asyncio
import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

import ipybatch

PAGE = Path(__file__).parents[1] / "docs" / "from-tqdm.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


class Client:
    """A service that answers with the name of what it was asked for."""

    async def get(self, path):
        number = path.rpartition("/")[2]
        return SimpleNamespace(raise_for_status=lambda: None, json=lambda: {"name": f"game {number}"})


async def run(block, space):
    code = compile(block, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    waiting = eval(code, space)
    if asyncio.iscoroutine(waiting):
        await waiting


def test_every_block_of_the_page_runs(journal, monkeypatch):
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(journal))
    df = pd.DataFrame({"text": ["good game", "bad", "good game"]})
    space = {"client": Client(), "app_ids": [440, 570], "df": df, "classify": len}

    async def run_all():
        for block in BLOCKS:
            await run(block, space)
        return await space["session"]

    summary = asyncio.run(run_all())
    assert len(BLOCKS) == 10
    assert space["games"] == ["game 440", "game 570"]
    assert df["label"].tolist() == [9, 3, 9]
    assert space["told"]["words"].tolist() == [2, 1, 2]
    assert ipybatch.history()["state"].tolist() == ["completed"] * 5
    assert summary.counts.completed == 2
