"""Build the demo without a server, a JupyterLite, or bring the Pyodide that it and its tests run in.

    python -m tools.lite               what `make lite` does: out/lite, a folder of static files for any web server
    python -m tools.lite --pyodide     what `make pyodide` does: out/pyodide, from npm and PyPI

JupyterLite has an environment of its own, out/lite-env: its kernel's extension would show up in a real JupyterLab.

The page takes Pyodide and nearly all packages from its own folder.  npm has Pyodide without packages, and a list of
those that lie on Pyodide's server, pyodide-lock.json.  `write_lock` puts the wheels of out/pyodide/wheels in their
place; what is not among them, numpy and pandas above all, the browser fetches from Pyodide's server.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.lite_notebooks import NOTEBOOKS, for_browser

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "out"
PYODIDE = "314.0.7"  # Python 3.14
SERVER = f"https://cdn.jsdelivr.net/pyodide/v{PYODIDE}/full/"
PLATFORM = "pyemscripten_2026_0_wasm32"
CORE = ["pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip"]
# pip reads the conditions of requirements for the machine it runs on, so what only a browser needs is named.  The
# kernel needs micropip, ipython and jedi.
WHEELS = [
    "micropip",
    "ipython",
    "jedi",
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
    "aiolimiter",
    "plotly",
]
# The side bar comes with the package, and asks a server again and again.
SETTINGS = {"jupyter-lite-schema-version": 0, "jupyter-config-data": {"disabledExtensions": ["@ipybatch/lab"]}}
_BROWSER = {"sys_platform": "emscripten", "platform_system": "Emscripten", "os_name": "posix", "extra": ""}


def build() -> Path:
    """Build out/lite anew: Pyodide, the wheel of this source, and the notebooks with a first cell that installs it."""
    env, source = OUT / "lite-env", OUT / "lite-source"
    bin_folder = env / ("Scripts" if sys.platform == "win32" else "bin")
    if not (bin_folder / "jupyter-lite").exists():
        _run(sys.executable, "-m", "venv", "--clear", str(env))
        pins = str(ROOT / "constraints.txt")
        _run(str(bin_folder / "pip"), "install", "--quiet", "--constraint", pins, f"{ROOT}[lite]")
    pyodide = OUT / "pyodide"
    if not (pyodide / "wheels").is_dir():
        bring_pyodide()
    for folder in (source, OUT / "lite"):
        shutil.rmtree(folder, ignore_errors=True)
    _run(str(bin_folder / "pip"), "wheel", "--quiet", "--no-deps", "--wheel-dir", str(source / "pypi"), str(ROOT))
    (source / "files").mkdir()
    for name in NOTEBOOKS:
        notebook = json.loads((ROOT / "notebooks" / name).read_text(encoding="utf-8"))
        text = json.dumps(for_browser(name, notebook), ensure_ascii=False, indent=1)
        (source / "files" / name).write_text(text, encoding="utf-8")
    _lay_pyodide(pyodide, source / "static" / "pyodide")
    (source / "jupyter-lite.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    _run(
        str(bin_folder / "jupyter-lite"), "build", "--apps", "lab", "--no-sourcemaps", "--lite-dir", str(source),
        "--contents", str(source / "files"), "--output-dir", str(OUT / "lite"), cwd=source,
    )  # fmt: skip
    return OUT / "lite"


def bring_pyodide() -> Path:
    """Bring Pyodide and the wheels that the demo and `tests/lite` need into out/pyodide."""
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


def _lay_pyodide(brought: Path, folder: Path) -> None:
    """Lay Pyodide and the wheels into one folder, as JupyterLite serves it."""
    folder.mkdir(parents=True)
    packed = brought / "node_modules" / "pyodide"
    for file in [*(packed / name for name in CORE), *sorted((brought / "wheels").glob("*.whl"))]:
        shutil.copyfile(file, folder / file.name)
    given = json.loads((packed / "pyodide-lock.json").read_text(encoding="utf-8"))
    lock = write_lock(given, sorted(folder.glob("*.whl")))
    (folder / "pyodide-lock.json").write_text(json.dumps(lock, indent=1), encoding="utf-8")
    local = {file.name for file in folder.glob("*.whl")}
    left = [name for name in ("numpy", "pandas") if lock["packages"][name]["file_name"] not in local]
    if left:
        print(f"The browser will fetch {' and '.join(left)} from {SERVER}: docs/demo-without-a-server.md tells more")


def write_lock(given: dict[str, Any], wheels: list[Path]) -> dict[str, Any]:
    """Return a pyodide-lock.json in which these wheels lie beside it, and all else on Pyodide's server.

    Args:
        given: The one of Pyodide.
        wheels: Files of packages that are in it or not.

    Raises:
        ValueError: A wheel needs a package that is nowhere, or is not the file that Pyodide names so.
    """
    packages = {name: {**entry, "file_name": SERVER + entry["file_name"]} for name, entry in given["packages"].items()}
    python = given["info"]["python"]
    there = {**_BROWSER, "python_full_version": python, "python_version": python.rpartition(".")[0]}
    own = {entry["name"]: entry for entry in (_entry(wheel, there) for wheel in wheels)}
    for name, entry in own.items():
        known = given["packages"].get(name, {})
        is_pure = entry["file_name"].endswith("-none-any.whl")  # Pyodide's have no tests: other bytes, the same name
        if not is_pure and known.get("file_name") == entry["file_name"] and known["sha256"] != entry["sha256"]:
            msg = f"{entry['file_name']} is not Pyodide's: its sha256 is {entry['sha256']}, not {known['sha256']}"
            raise ValueError(msg)
        packages[name] = entry
    for entry in own.values():
        missing = [name for name in entry["depends"] if name not in packages]
        if missing:
            msg = f"{entry['name']} needs {', '.join(missing)}: name it in WHEELS of tools/lite.py"
            raise ValueError(msg)
    return {**given, "packages": packages}


def _entry(wheel: Path, there: dict[str, str]) -> dict[str, Any]:
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
        (metadata,) = [name for name in files if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        headers = HeaderParser().parsestr(archive.read(metadata).decode())
    needed = [Requirement(text) for text in headers.get_all("Requires-Dist", [])]
    roots = {name.partition("/")[0].removesuffix(".py") for name in files if name.endswith(".py")}
    return {
        "name": canonicalize_name(headers["Name"]),
        "version": headers["Version"],
        "file_name": wheel.name,
        "install_dir": "site",
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "package_type": "package",
        "imports": sorted(root for root in roots if root.isidentifier()),
        "depends": sorted(
            {canonicalize_name(one.name) for one in needed if not one.marker or one.marker.evaluate(there)}
        ),
        "unvendored_tests": False,
    }


def _run(*command: str, cwd: Path = ROOT) -> None:
    subprocess.run(command, cwd=cwd, check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pyodide", action="store_true", help="bring Pyodide instead")
    print((bring_pyodide if parser.parse_args().pyodide else build)())
