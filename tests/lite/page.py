"""The demo that `make lite` built, on loopback, and a notebook of it in Chromium: nothing else can be reached there.

numpy and pandas lie on Pyodide's server.  Where they were not brought, a package that cannot be imported stands in for
pandas, so that the first cell can install, and `without_frames` takes out of a notebook what makes frames.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.browser.lab import Notebook

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "out" / "lite"
START_S = 120.0
_LOCK = "static/pyodide/pyodide-lock.json"
_FRAMES = {"pd", "results", "save", "history", "log", "by", "to_frame", "absent"}


class Demo:
    """A web server for the built demo.

    Attributes:
        url: Its address.
        asked: Paths that were asked for and are not there.
        has_pandas: Whether pandas was brought.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        lock = json.loads((BUILT / _LOCK).read_text(encoding="utf-8"))
        self.has_pandas = all("://" not in lock["packages"][name]["file_name"] for name in ("numpy", "pandas"))
        if not self.has_pandas:
            self._stand_in_for_pandas(lock)
        settings = json.loads((BUILT / "jupyter-lite.json").read_text(encoding="utf-8"))
        settings["jupyter-config-data"]["exposeAppInBrowser"] = True
        self.files["jupyter-lite.json"] = json.dumps(settings).encode()
        handler = partial(_Handler, demo=self, directory=str(BUILT))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def offer(self, name: str, sources: list[str]) -> None:
        """Offer the built notebook of this name, with these cells of code at its end."""
        notebook = json.loads((BUILT / "files" / name).read_text(encoding="utf-8"))
        for number, source in enumerate(sources):
            cell = {"cell_type": "code", "execution_count": None, "id": f"more-{number}", "metadata": {}, "outputs": []}
            notebook["cells"].append({**cell, "source": source})
        if not self.has_pandas:
            codes = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
            for cell, source in zip(codes, without_frames([cell["source"] for cell in codes]), strict=True):
                cell["source"] = source
        self.files[f"files/{name}"] = json.dumps(notebook).encode()

    def _stand_in_for_pandas(self, lock: dict[str, Any]) -> None:
        entry = lock["packages"]["pandas"]
        info = f"pandas-{entry['version']}.dist-info"
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as wheel:
            wheel.writestr("pandas/__init__.py", 'raise ImportError("pandas was not brought")\n')
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: pandas\nVersion: {entry['version']}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        entry["file_name"] = f"pandas-{entry['version']}-py3-none-any.whl"
        entry |= {"depends": [], "sha256": hashlib.sha256(packed.getvalue()).hexdigest()}
        self.files[f"static/pyodide/{entry['file_name']}"] = packed.getvalue()
        self.files[_LOCK] = json.dumps(lock).encode()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, demo: Demo, **options: Any) -> None:
        self._demo = demo
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        """Answer with a file of the test's own, or with the built one."""
        name = self.path.partition("?")[0].lstrip("/")
        content = self._demo.files.get(name)
        if content is None:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(name))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def send_error(self, code: int, *args: Any, **options: Any) -> None:
        """Keep what is not there."""
        self._demo.asked.append(self.path)
        super().send_error(code, *args, **options)

    def log_message(self, *args: Any) -> None:
        """Print nothing."""


class DemoNotebook(Notebook):
    """A notebook of the demo, open in a page; what Jupyter's own tests do with one, they do with this one."""

    def __init__(self, page: Page, demo: Demo, name: str) -> None:
        """Open it, and wait for its kernel: for Python itself, above all."""
        self.page = page
        page.goto(f"{demo.url}/lab/index.html?path={name}")
        self.wait_kernel(START_S)

    def index(self, text: str) -> int:
        """Return the number of the cell that has this text."""
        sources: list[str] = self.call("return panel.content.widgets.map((cell) => cell.model.sharedModel.source)")
        (number,) = [at for at, source in enumerate(sources) if text in source]
        return number

    def run_all(self, texts: list[str], timeout_s: float = 60) -> list[str]:
        """Run the cells that have these texts, one after the other; return what each shows."""
        return [self.run_to_end(text, timeout_s) for text in texts]

    def run_to_end(self, text: str, timeout_s: float = 60) -> str:
        """Run the cell that has this text, and return what it shows."""
        number = self.index(text)
        self.run(number)
        self.wait_done(number, timeout_s)
        return self.output(number).inner_text()


def without_frames(sources: list[str]) -> list[str]:
    """Return cells of code without the statements that make frames, or use what only such statements made."""
    gone: set[str] = set()
    return [_without_frames(source, gone) for source in sources]


def _without_frames(source: str, gone: set[str]) -> str:
    if source.startswith("%"):
        return source
    lines = source.splitlines()
    for statement in ast.parse(source).body:
        inside = list(ast.walk(statement))
        made = {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        named = {node.id for node in inside if isinstance(node, ast.Name)} - made
        named |= {node.attr for node in inside if isinstance(node, ast.Attribute)}
        named |= {node.asname or node.name for node in inside if isinstance(node, ast.alias)}
        if named & (_FRAMES | gone) or made & _FRAMES:
            gone |= made
            first, last = statement.lineno - 1, statement.end_lineno or statement.lineno
            lines[first:last] = [""] * (last - first)
        else:
            gone -= made
    return "\n".join(lines)
