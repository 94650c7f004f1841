"""What is published: the wheel has all that is used and nothing else, and the sdist all that its tests read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import ipybatch

pytest.importorskip("hatchling")

ROOT = Path(__file__).resolve().parents[1]
DATA = f"ipybatch-{ipybatch.__version__}.data/data"
LAB = f"{DATA}/share/jupyter/labextensions/@ipybatch/lab"
NEEDED = {
    "ipybatch/py.typed",
    "ipybatch/server/openapi.json",
    "ipybatch/engine/store/redis_limits.lua",
    "ipybatch/jupyter/static/panel.js",
    "ipybatch/jupyter/static/panel.css",
    f"{LAB}/package.json",
    f"{LAB}/install.json",
    f"{LAB}/schemas/@ipybatch/lab/sessions.json",
    f"{DATA}/etc/jupyter/jupyter_server_config.d/ipybatch.json",
}
PACKAGERS_NEED = {
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CITATION.cff",
    "Makefile",
    "constraints.txt",
    "pyproject.toml",
    "docs/api.md",
    "notebooks/00_first_session.ipynb",
    "tests/conftest.py",
    "tests/test_distribution.py",
    "tools/api.py",
    "widgets/package-lock.json",
    "src/ipybatch/py.typed",
}
LEFT_OVER = re.compile(
    r"(^|/)(__pycache__|node_modules|\.venv|\.git|\.ci|out|dist|\..*_cache|\.ipynb_checkpoints)(/|$)|\.py[co]$"
)
OWN = re.compile(r"\.(db|sqlite3?)(-shm|-wal)?$|\.log$|(^|/)\.env$")


def build(source: Path, into: Path, *targets: str) -> None:
    """Build with the back end itself, in this environment: a front end would fetch it anew."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(into)]
    for target in targets:
        command += ["-t", target]
    ended = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder, "sdist", "wheel")
    return folder


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def unpacked(built, tmp_path_factory) -> Path:
    """The sdist, as a packager unpacks it."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(next(built.glob("*.tar.gz"))) as packed:
        packed.extractall(folder, filter="data")
    return folder / f"ipybatch-{ipybatch.__version__}"


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as packed:
        return set(packed.namelist())


def test_wheel_has_every_file_of_the_package(wheel):
    source = ROOT / "src"
    modules = {path.relative_to(source).as_posix() for path in (source / "ipybatch").rglob("*.py")}
    assert (modules | NEEDED) - names(wheel) == set()
    (load,) = [name for name in names(wheel) if name.startswith(f"{LAB}/static/remoteEntry.")]
    with zipfile.ZipFile(wheel) as packed:
        assert load.rpartition("/")[2] in packed.read(f"{LAB}/package.json").decode()


def test_wheel_has_nothing_else(wheel):
    """No tests, notebooks or caches; the side bar only where JupyterLab looks for it."""
    tops = {name.partition("/")[0] for name in names(wheel)}
    assert tops == {"ipybatch", f"ipybatch-{ipybatch.__version__}.data", f"ipybatch-{ipybatch.__version__}.dist-info"}
    assert [name for name in names(wheel) if LEFT_OVER.search(name) or OWN.search(name)] == []
    assert [name for name in names(wheel) if name.startswith("ipybatch/labextension")] == []
    assert [name for name in names(wheel) if name.endswith((".ipynb", ".ts", ".map"))] == []


def test_wheel_tells_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as packed:
        told = Parser().parsestr(packed.read(f"ipybatch-{ipybatch.__version__}.dist-info/METADATA").decode())
    assert (told["Name"], told["Version"]) == ("ipybatch", ipybatch.__version__)
    assert told["Requires-Python"] == ">=3.11"
    assert told["License-Expression"] == "BSD-3-Clause"
    assert {"jupyter", "gemini", "forecast", "dask", "redis", "notify", "all"} <= set(told.get_all("Provides-Extra"))


def test_sdist_has_what_a_packager_needs_and_no_more(unpacked):
    found = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert PACKAGERS_NEED - found == set()
    assert [name for name in found if LEFT_OVER.search(name) or OWN.search(name)] == []


def test_sdist_tests_pass_in_it(unpacked):
    """Those that read the project's own files, and some of the engine's."""
    tests = ["tests/test_public_surface.py", "tests/test_project.py", "tests/engine/rules/test_retry.py"]
    env = os.environ | {"PYTHONPATH": f"{unpacked / 'src'}{os.pathsep}{unpacked}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    ended = subprocess.run(command, cwd=unpacked, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:]


def test_wheel_from_the_sdist_alone_is_the_same(unpacked, wheel, tmp_path):
    build(unpacked, tmp_path, "wheel")
    (again,) = tmp_path.glob("*.whl")
    assert names(again) == names(wheel)
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(wheel) as other:
        differing = [name for name in sorted(names(wheel)) if one.read(name) != other.read(name)]
    assert differing == []


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """An empty environment with the wheel; what it depends on is lent by this one, and is there for nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=os.name != "nt")
    ours = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [sys.executable, "-m", "pip", "--python", str(ours), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*install, "--disable-pip-version-check", str(wheel)], check=True)
    lent = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}), "lent.pth")
    lent.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return ours


def ask(python: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the environment, with nothing of ours on its path."""
    hidden = ("PYTHONPATH", "JUPYTER", "VIRTUAL_ENV")
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    env |= {"HOME": str(python.parents[1]), "XDG_DATA_HOME": str(python.parents[1] / "home")}
    return subprocess.run(
        [python, *command], cwd=python.parent, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_installed_package_runs_a_session(environment, tmp_path):
    program = (
        "import ipybatch, pathlib; from ipybatch import BatchSession;"
        f"session = BatchSession('one', lambda item: item + 1, range(3), journal={str(tmp_path / 'journal.db')!r});"
        "session.run(); print(ipybatch.__version__, pathlib.Path(ipybatch.__file__).parents[1].name,"
        " session.results().result.tolist())"
    )
    ended = ask(environment, "-c", program)
    assert ended.stdout.split(maxsplit=2) == [ipybatch.__version__, "site-packages", "[1, 2, 3]\n"], ended.stderr


def test_installed_extensions_are_enabled(environment):
    """Server extension and side bar, without a command of the user's."""
    ended = ask(environment, "-m", "jupyter_server.extension.serverextension", "list")
    said = ended.stdout + ended.stderr
    assert re.search(r"ipybatch\.server.*enabled", said), said
    ended = ask(environment, "-m", "jupyterlab.labextensions", "list")
    said = ended.stdout + ended.stderr
    assert re.search(rf"@ipybatch/lab v{re.escape(ipybatch.__version__)}.*enabled.*OK", said), said


def test_installed_package_says_that_it_is_well(environment):
    ended = ask(environment, "-m", "ipybatch", "doctor")
    told = [line for line in ended.stdout.splitlines() if "extension" in line or "side bar" in line]
    assert len(told) == 2, ended.stdout + ended.stderr
    assert all(line.startswith("ok") for line in told), told
