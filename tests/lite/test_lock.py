"""The list of packages of the demo: what was brought lies beside it, all else on Pyodide's server."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from tools.lite import SERVER, write_lock

NUMPY = "numpy-2.4.6-cp314-cp314-pyemscripten_2026_0_wasm32.whl"
GIVEN = {
    "info": {"python": "3.14.2"},
    "packages": {
        "numpy": {"name": "numpy", "file_name": NUMPY, "sha256": "00", "depends": []},
        "tqdm": {"name": "tqdm", "file_name": "tqdm-4.67.3-py3-none-any.whl", "sha256": "01", "depends": []},
    },
}


def wheel(folder: Path, file_name: str, *needed: str) -> Path:
    """Write a wheel with one module, which needs these packages."""
    name, version, *_ = file_name.split("-")
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {a}" for a in needed)]
    with zipfile.ZipFile(folder / file_name, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "")
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines))
    return folder / file_name


def test_what_was_brought_lies_beside_it_and_all_else_on_the_server(tmp_path):
    brought = wheel(
        tmp_path,
        "tqdm-4.70.1-py3-none-any.whl",
        "Num_Py; sys_platform == 'win32'",
        "numpy>=2; sys_platform == 'emscripten' and python_version >= '3.14'",
        "typing-extensions; python_version < '3.14'",
        "rich; extra == 'rich'",
    )
    packages = write_lock(GIVEN, [brought])["packages"]
    assert packages["numpy"]["file_name"] == SERVER + NUMPY
    assert packages["tqdm"] == {
        "name": "tqdm",
        "version": "4.70.1",
        "file_name": brought.name,
        "install_dir": "site",
        "sha256": hashlib.sha256(brought.read_bytes()).hexdigest(),
        "package_type": "package",
        "imports": ["tqdm"],
        "depends": ["numpy"],
        "unvendored_tests": False,
    }


def test_a_package_that_is_nowhere_is_named(tmp_path):
    with pytest.raises(ValueError, match="tqdm needs rich: name it in WHEELS"):
        write_lock(GIVEN, [wheel(tmp_path, "tqdm-4.70.1-py3-none-any.whl", "rich")])


def test_a_compiled_package_of_pyodides_name_must_be_pyodides(tmp_path):
    with pytest.raises(ValueError, match="is not Pyodide's: its sha256 is"):
        write_lock(GIVEN, [wheel(tmp_path, NUMPY)])
