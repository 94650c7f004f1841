"""What a notebook run without a browser saves: each panel as it was when the cell that waited for it ended."""

import asyncio
import os

import nbformat
import pytest
from nbclient import NotebookClient

MADE = """
import asyncio
import ipybatch.jupyter.publisher as turns
from ipybatch import BatchSession

turns.INTERVAL_S = turns.RESTING_S = 3600  # no turn of the publisher comes to the rescue
go_on = asyncio.Event()
loop = asyncio.get_running_loop()

async def work(item):
    await asyncio.to_thread(asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result)

session = BatchSession("saved", work, [1, 2])
session.start()
session
"""


def ran(sources, folder):
    """The cells of a notebook, run as nbconvert and nbval do."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    client = NotebookClient(book, timeout=60, kernel_name="python3", extra_arguments=["--log-level=ERROR"])
    asyncio.run(client.async_execute(env=os.environ | {"IPYBATCH_JOURNAL": str(folder / "journal.db")}))
    return book.cells


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_panel_above_shows_the_end_when_await_returns(tmp_path):
    """However soon the next cell begins; without a browser there is no other moment to tell it."""
    panel, *_ = ran([MADE, "go_on.set()\nprint(await session)", "1 + 1"], tmp_path)
    (shown,) = panel.outputs
    assert shown.data["text/plain"] == "saved completed: 2/2 successful, 0 failed, 0 skipped"
    assert "✓</span> completed" in shown.data["text/html"]
