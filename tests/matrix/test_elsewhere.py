"""A session is cancelled from another process while its kernel blocks in a cell of others, on every ipykernel."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from ipybatch import BatchSession
from tests.matrix.measured import BAR_MS, Case
from tests.matrix.setups import NEWEST, PACKAGES, SETUPS, first

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jupyter_client.blocking import BlockingKernelClient

SESSION = """
import asyncio, time
import ipykernel
from ipybatch import BatchSession, Limits

async def fetch(item):
    await asyncio.sleep(0.2)

session = BatchSession("night", fetch, list(range(4000)), limits=Limits(concurrency=4))
session.start()
print(ipykernel.__version__)
"""
FOREIGN = "time.sleep(20)"
START_S = 60


@pytest.fixture(params=["6.31", NEWEST])
def kernel(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, BlockingKernelClient]]:
    """A kernel of that version, and its client."""
    folder = PACKAGES / f"ipykernel=={request.param}"
    path = {"PYTHONPATH": first(folder)} if request.param != NEWEST else {}
    manager = KernelManager(kernel_name="python3")
    manager._kernel_spec = KernelSpec(argv=manager.kernel_spec.argv, env=path, language="python")
    manager.start_kernel(env={**os.environ, **path, "IPYBATCH_JOURNAL": str(tmp_path / "journal.db")})
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=START_S)
    yield request.param, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def printed(client: BlockingKernelClient, cell: str) -> str:
    """Run a cell and return what it prints."""
    said: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        said.append(message["content"].get("text", ""))

    client.execute_interactive(cell, timeout=START_S, output_hook=hear)
    return "".join(said)


def test_commands_act_while_a_foreign_cell_blocks(
    kernel: tuple[str, BlockingKernelClient], tmp_path: Path, cases: list[Case]
) -> None:
    """Pause and Cancel within a second, as from the panel; the cell is not interrupted."""
    version, client = kernel
    assert printed(client, SESSION).startswith(version)
    setup = next(str(setup) for setup in SETUPS if setup.ipykernel == version)
    session = BatchSession.open("night", journal=tmp_path / "journal.db")
    cell = client.execute(FOREIGN)
    for verb, state in (("pause", "paused"), ("cancel", "cancelled")):
        begun_s = time.perf_counter()
        assert getattr(session, verb)() == "done"
        assert session.state == state
        acted_ms = (time.perf_counter() - begun_s) * 1000
        press = f"{verb.capitalize()} from another process"
        doing = "`time.sleep` in a cell"
        cases.append(Case(setup=setup, doing=doing, press=press, said_ms=acted_ms, acted_ms=acted_ms))
        print(f"{setup}, {press}: {acted_ms:.0f} ms")
        assert acted_ms <= BAR_MS
    reply = client.get_shell_msg(timeout=START_S)
    assert reply["parent_header"]["msg_id"] == cell
    assert reply["content"]["status"] == "ok"
