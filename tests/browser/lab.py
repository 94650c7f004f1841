"""A real JupyterLab on loopback and a notebook in it, driven through Chromium.

Commands go through the application object (`--expose-app-in-browser`) where a test only needs them done, and
through real clicks where the click is what is tested. Nothing sleeps: each wait is for something seen on the page.
"""

from __future__ import annotations

import copy
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal
from urllib.error import URLError
from urllib.request import Request, urlopen

import nbformat
from playwright.sync_api import expect, sync_playwright

from tools.chromium import ensure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from re import Pattern

    from playwright.sync_api import Browser, Locator, Page

CHECKOUT = Path(__file__).parents[2]
START_S = 60.0
CHROMIUM_ARGS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-domain-reliability",
    "--disable-sync",
    "--no-first-run",
    # Offline: whatever is not loopback does not exist.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
# No news, no extension manager, no completions' language servers: nothing that asks the network or covers a cell.
DISABLED = (
    "@jupyterlab/apputils-extension:announcements",
    "@jupyterlab/extensionmanager-extension",
    "@jupyterlab/lsp-extension",
)
# The module that serves the pages, and its options.
JUPYTERLAB = (
    "jupyterlab",
    "--LabApp.expose_app_in_browser=True",
    "--LabApp.extension_manager=readonly",
    "--LabApp.news_url=",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the machine's browser, and end it."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=ensure(), args=list(CHROMIUM_ARGS))
        yield started
        started.close()


def free_port() -> int:
    """Ask the system for a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def install_extension(data: Path, config: Path) -> None:
    """Put both halves of the extension where a wheel would, as they are in this checkout."""
    front = data / "labextensions" / "@ipybatch" / "lab"
    front.parent.mkdir(parents=True)
    front.symlink_to(CHECKOUT / "src" / "ipybatch" / "labextension", target_is_directory=True)
    shutil.copytree(CHECKOUT / "jupyter-config" / "server-config", config / "jupyter_server_config.d")


@dataclass(kw_only=True)
class Lab:
    """A JupyterLab server of our own: its port, token, folders and settings end with it."""

    root: Path
    port: int
    token: str
    process: subprocess.Popen[bytes]

    @classmethod
    def start(
        cls, folder: Path, environment: dict[str, str] | None = None, application: Sequence[str] = JUPYTERLAB
    ) -> Lab:
        """Start the server in `folder` and return once it answers; `environment` is added to its kernels'."""
        root = folder / "notebooks"
        config = folder / "config"
        (config / "labconfig").mkdir(parents=True)
        root.mkdir()
        page_config = {"disabledExtensions": dict.fromkeys(DISABLED, True)}
        (config / "labconfig" / "page_config.json").write_text(json.dumps(page_config))
        install_extension(folder / "data", config)
        port, token = free_port(), secrets.token_hex(16)
        command = [
            *(sys.executable, "-m", *application, "--no-browser", "--allow-root", "--ip=127.0.0.1"),
            *(f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"),
            f"--ServerApp.root_dir={root}",
        ]
        own: dict[str, Any] = {
            "JUPYTER_CONFIG_DIR": config,
            "JUPYTER_DATA_DIR": folder / "data",
            "JUPYTER_PREFER_ENV_PATH": 0,  # or the environment's copy of the extension would be before ours
            "JUPYTER_RUNTIME_DIR": folder / "runtime",
            "JUPYTERLAB_SETTINGS_DIR": folder / "settings",
            "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
            "IPYTHONDIR": folder / "ipython",
            "IPYBATCH_JOURNAL": folder / "journal.db",
            "IPYBATCH_CONFIG": folder / "settings-of-ipybatch",
            "XDG_RUNTIME_DIR": folder / "run",  # where journals are registered: the side bar lists them all
        }
        own["XDG_RUNTIME_DIR"].mkdir(mode=0o700)
        with (folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=root,
                env=os.environ | {name: str(path) for name, path in own.items()} | (environment or {}),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        lab = cls(root=root, port=port, token=token, process=process)
        lab.wait_until_up(folder / "server.log")
        return lab

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def folder(self) -> Path:
        """Where its notebooks, settings, kernels and log lie."""
        return self.root.parent

    def wait_until_up(self, log: Path) -> None:
        """Return when the server answers; raise with its log when it ended or takes too long."""
        deadline_s = time.monotonic() + START_S
        while self.process.poll() is None and time.monotonic() < deadline_s:
            try:
                with urlopen(f"{self.url}/api?token={self.token}", timeout=5):
                    return
            except (URLError, OSError):
                # A server that is still importing offers nothing to wait on but its port.
                time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"JupyterLab did not start:\n{log.read_text(errors='replace')[-4000:]}")

    def end_kernels(self) -> None:
        """End all that runs; nobody waits for it."""
        for session in self._ask("GET", "sessions") or ():
            Thread(target=self._ask, args=("DELETE", f"sessions/{session['id']}"), daemon=True).start()

    def _ask(self, method: str, path: str) -> Any:
        request = Request(f"{self.url}/api/{path}", method=method, headers={"Authorization": f"token {self.token}"})
        with suppress(OSError), urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def stop(self) -> None:
        """End the server by its pid; it ends its kernels."""
        self.process.terminate()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def clear(page: Page) -> None:
    """Close all that is open in a page of JupyterLab, unsaved, and leave its theme as it is."""
    page.evaluate("() => { for (const open of [...(window.jupyterapp?.shell.widgets('main') ?? [])]) open.dispose(); }")


class Notebook:
    """One notebook open in a page.

    Attributes:
        page: Playwright's page, for what is not wrapped here.
        path: The notebook's file, on disk.
        lab: The server.
    """

    def __init__(self, page: Page, lab: Lab, name: str, sources: Sequence[str], kernel: str = "python3") -> None:
        """Write a notebook of these cells, open it alone in a fresh workspace, and wait for its kernel."""
        self.page = page
        self.path = lab.root / f"{name}.ipynb"
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        metadata = {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), self.path)
        self.lab = lab
        if page.url.startswith(f"{lab.url}/lab"):
            self.open()
        else:
            self.go(name)

    def go(self, workspace: str) -> None:
        """Bring the page to the notebook."""
        self.page.goto(f"{self.lab.url}/{self.route(workspace)}?token={self.lab.token}")
        self.wait_kernel()
        self.call("if (!app.shell.leftCollapsed) app.shell.collapseLeft()")

    def open(self) -> None:
        """Open the notebook in a page that has this JupyterLab already."""
        self.call(
            "const opened = await app.commands.execute('docmanager:open', {path: argument});"
            "await opened.context.ready; app.shell.activateById(opened.id); return null",
            self.path.name,
        )
        self.wait_kernel()

    def reload(self) -> None:
        """Save, and load the page anew."""
        self.save()
        self.go(self.path.stem)

    def show_in(self, page: Page) -> Notebook:
        """Save, and open the same notebook, with the same kernel, in another page too."""
        self.save()
        second = copy.copy(self)
        second.page = page
        second.go(f"{self.path.stem}-second")
        return second

    def save(self) -> None:
        """Save the notebook with its outputs."""
        self.call("await panel.context.save(); return null")

    def route(self, name: str) -> str:
        """Return the part of the address that shows the notebook alone."""
        return f"lab/workspaces/{name}/tree/{self.path.name}"

    def call(self, script: str, argument: Any = None) -> Any:
        """Run JavaScript with `app`, JupyterLab's application, `panel`, the notebook's panel, and `argument`."""
        body = f"async (argument) => {{ const app = window.jupyterapp, panel = app.shell.currentWidget; {script} }}"
        return self.page.evaluate(body, argument)

    def wait_kernel(self, timeout_s: float = 60) -> None:
        """Wait until the notebook is shown and its kernel is idle."""
        idle = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        self.page.wait_for_function(idle, timeout=timeout_s * 1000)
        expect(self.page.locator(".jp-Notebook .jp-Cell").first).to_be_visible()
        self.wait_splash()

    def wait_splash(self) -> None:
        """Wait until the moons, which cover the page while it or a theme loads, are gone."""
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0, timeout=30_000)

    def cell(self, index: int) -> Locator:
        """Find the cell at `index`, from 0."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    def output(self, index: int) -> Locator:
        """Find what the cell at `index` shows below its source."""
        return self.cell(index).locator(".jp-Cell-outputArea")

    def run(self, index: int) -> None:
        """Start the cell at `index` and return at once."""
        self.call(
            "panel.content.deselectAll(); panel.content.activeCellIndex = argument;"
            "(window.runs ??= {})[argument] = app.commands.execute('notebook:run-cell'); return null",
            index,
        )

    def wait_done(self, index: int, timeout_s: float = 60) -> None:
        """Wait until the run of the cell at `index` has ended, well or not."""
        self.call(
            "const late = new Promise((_, reject) => setTimeout(reject, argument.ms, new Error(argument.error)));"
            "await Promise.race([window.runs[argument.index], late]); return null",
            {"index": index, "ms": timeout_s * 1000, "error": f"cell {index} still runs after {timeout_s} s"},
        )

    def wait_output(self, index: int, text: str | Pattern[str], timeout_s: float = 30) -> Locator:
        """Wait until the cell at `index` shows `text`, and return its output."""
        output = self.output(index)
        expect(output).to_contain_text(text, timeout=timeout_s * 1000)
        return output

    def set_theme(self, theme: Literal["light", "dark"]) -> None:
        """Change JupyterLab's theme and wait until the page wears it."""
        self.call("await app.commands.execute('apputils:change-theme', {theme: argument})", THEMES[theme])
        is_light = str(theme == "light").lower()
        expect(self.page.locator("body")).to_have_attribute("data-jp-theme-light", is_light)
        self.wait_splash()

    def screenshot(self, path: Path, index: int | None = None) -> None:
        """Save a picture of the page, or of the cell at `index` alone."""
        (self.page if index is None else self.cell(index)).screenshot(path=path)

    def restart_kernel(self) -> None:
        """Restart the kernel without the question, and wait until it is idle."""
        self.call("await panel.sessionContext.session.kernel.restart(); return null")
        self.wait_kernel()
