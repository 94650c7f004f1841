"""Build the demo without a server, a JupyterLite, or bring the Pyodide that its test runs in.

    python -m tools.lite               what `make lite` does: out/lite, a folder of static files for any web server
    python -m tools.lite --pyodide     what `make pyodide` does: out/pyodide, from npm and PyPI

JupyterLite has an environment of its own, out/lite-env: its kernel's extension would show up in a real JupyterLab.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "out"
NOTEBOOKS = ["00_first_session.ipynb"]  # 01 needs loopback HTTP and a process to kill
INSTALL = "%pip install -q ipybatch ipywidgets anywidget aiolimiter pandas"
PYODIDE = "314.0.7"  # Python 3.14
PLATFORM = "pyemscripten_2026_0_wasm32"
# pip reads the conditions of requirements for the machine it runs on, so what only a browser needs is named.
WHEELS = [
    "msgspec",
    "httpx2",
    "httpx2-jsfetch>=1",
    "platformdirs",
    "tqdm",
    "cronsim",
    "tomli-w",
    "tzlocal",
    "tzdata",
    "anywidget",
]


def build() -> Path:
    """Build out/lite anew: the wheel of this source, and the notebooks with a first cell that installs it."""
    env, contents, wheels = OUT / "lite-env", OUT / "lite-contents", OUT / "lite-wheels"
    bin_folder = env / ("Scripts" if sys.platform == "win32" else "bin")
    if not (bin_folder / "jupyter-lite").exists():
        _run(sys.executable, "-m", "venv", "--clear", str(env))
        pins = str(ROOT / "constraints.txt")
        _run(str(bin_folder / "pip"), "install", "--quiet", "--constraint", pins, f"{ROOT}[lite]")
    for folder in (contents, wheels, OUT / "lite"):
        shutil.rmtree(folder, ignore_errors=True)
    _run(str(bin_folder / "pip"), "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
    contents.mkdir(parents=True)
    for name in NOTEBOOKS:
        notebook = json.loads((ROOT / "notebooks" / name).read_text(encoding="utf-8"))
        (contents / name).write_text(json.dumps(for_browser(notebook), ensure_ascii=False, indent=1), encoding="utf-8")
    (wheel,) = wheels.glob("ipybatch-*.whl")
    _run(
        str(bin_folder / "jupyter-lite"), "build", "--apps", "lab", "--contents", str(contents),
        "--piplite-wheels", str(wheel), "--output-dir", str(OUT / "lite"), cwd=OUT,
    )  # fmt: skip
    return OUT / "lite"


def for_browser(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook with a first code cell that installs what it needs, on the kernel of JupyterLite."""
    first = next(at for at, cell in enumerate(notebook["cells"]) if cell["cell_type"] == "code")
    cell: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "id": "install",
        "metadata": {},
        "outputs": [],
        "source": INSTALL,
    }
    kernel = {"kernelspec": {"display_name": "Python (Pyodide)", "language": "python", "name": "python"}}
    cells = [*notebook["cells"][:first], cell, *notebook["cells"][first:]]
    return {**notebook, "cells": cells, "metadata": {**notebook["metadata"], **kernel}}


def bring_pyodide() -> Path:
    """Bring Pyodide and the wheels that `tests/lite` needs into out/pyodide."""
    folder = OUT / "pyodide"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _run("npm", "install", "--silent", "--no-save", "--prefix", str(folder), f"pyodide@{PYODIDE}")
    _run(
        sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder / "wheels"), "--only-binary", ":all:",
        "--platform", PLATFORM, "--platform", "any", "--python-version", "3.14", "--implementation", "cp",
        "--abi", "cp314", "--abi", "none", *WHEELS,
    )  # fmt: skip
    return folder


def _run(*command: str, cwd: Path = ROOT) -> None:
    subprocess.run(command, cwd=cwd, check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pyodide", action="store_true", help="bring Pyodide instead")
    print((bring_pyodide if parser.parse_args().pyodide else build)())
