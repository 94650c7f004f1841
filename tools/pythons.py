"""Run the Python tests on other Pythons, and with the oldest dependencies that pyproject.toml allows.

python -m tools.pythons              every Python that pyproject.toml names and this machine has, newest packages
python -m tools.pythons 3.12 3.13    these
python -m tools.pythons --oldest     the oldest Python, with the lower bound of every dependency of the package

Each gets an environment of its own in ``out/pythons``; browser and notebooks are left out. A line for each goes to
``out/pythons.md``, or ``out/oldest.md``; exits 1 when tests fail or packages cannot be installed.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUT = ROOT / "out" / "pythons"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOT_OURS = ("test", "mutants", "docs")  # extras that only we need: their bounds promise nothing to users
UNIT = ("-p", "no:nbval", "-m", "not browser and not chaos and not bench and not matrix", "-q", "--tb=short")
FORGIVING = (  # old packages beside newer ones; one test asks that nothing is forgiven
    *("-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning"),
    *("--deselect", "tests/engine/data/test_deprecation.py::test_here_they_are_errors"),
)
HEAD = "| Python | dependencies | tests | took s |\n|---|---|---|---:|"
_VERSION = re.compile(r"Programming Language :: Python :: (3\.\d+)$")
_BOUND = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?>=([\w.]+)")
_SUMMARY = re.compile(r"^\d+ (?:passed|failed|error).* in [\d.]+s", re.MULTILINE)


def supported() -> list[str]:
    """Return the Pythons that pyproject.toml names."""
    return [found[1] for line in PROJECT["classifiers"] if (found := _VERSION.search(line))]


def interpreter(version: str) -> str | None:
    """Return a Python of that version: on PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    known = [shutil.which(f"python{version}"), *map(str, sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True))]
    return next((path for path in known if path and _is(path, version)), None)


def _is(path: str, version: str) -> bool:
    """Whether a program is that Python: pyenv's shims are there for versions that cannot be started, too."""
    asked = [path, "-c", "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"]
    ended = subprocess.run(asked, capture_output=True, text=True, check=False)
    return ended.returncode == 0 and ended.stdout.strip() == version


def lower_bounds(project: dict[str, Any]) -> Iterator[str]:
    """Give the oldest version of each dependency, as a constraint; the highest where extras differ."""
    extras = project["optional-dependencies"]
    wanted = [project["dependencies"], *(lines for extra, lines in extras.items() if extra not in NOT_OURS)]
    bounds: dict[str, str] = {}
    for name, version in (found.groups() for lines in wanted for line in lines if (found := _BOUND.match(line))):
        bounds[name] = max(bounds.get(name, version), version, key=_numbers)
    return (f"{name}=={version}" for name, version in sorted(bounds.items()))


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def environment(python: str, name: str, constraints: Iterable[str]) -> Path:
    """Make an environment with the package and what its tests need; return its Python.

    Raises:
        subprocess.CalledProcessError: The packages cannot be installed together.
    """
    folder = OUT / name
    told, ours = folder / "constraints.txt", folder / "bin" / "python"
    if not ours.exists():
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    told.write_text("\n".join(constraints) + "\n", encoding="utf-8")
    install = [str(ours), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", str(told)]
    subprocess.run([*install, "--editable", f"{ROOT}[test]"], check=True)
    return ours


def tested(python: Path, arguments: Iterable[str], *, is_oldest: bool) -> tuple[bool, str]:
    """Run the tests; return whether all passed, and pytest's last word."""
    command = [
        str(python),
        "-m",
        "pytest",
        *UNIT,
        *(FORGIVING if is_oldest else ()),
        *(arguments or ["tests", "--ignore=tests/browser"]),
    ]
    env = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        said = []
        for line in running.stdout:
            print(line, end="", flush=True)
            said.append(line)
    found = _SUMMARY.findall("".join(said))
    return running.returncode == 0, found[-1] if found else f"pytest ended with {running.returncode}"


def run(version: str, arguments: list[str], *, is_oldest: bool) -> tuple[bool, str]:
    """Test one Python; return whether all went well, and a row of the table."""
    begun_s, python = time.monotonic(), interpreter(version)
    words = "oldest" if is_oldest else "newest"
    if python is None:
        return True, f"| {version} | {words} | not on this machine | |"
    try:
        ours = environment(python, f"{version}{'-oldest' * is_oldest}", lower_bounds(PROJECT) if is_oldest else ())
    except subprocess.CalledProcessError as error:
        return False, f"| {version} | {words} | cannot be installed: {error} | |"
    whole = subprocess.check_output(
        [ours, "-c", "import platform; print(platform.python_version())"], text=True
    ).strip()
    is_good, said = tested(ours, arguments, is_oldest=is_oldest)
    return is_good, f"| {whole.strip()} | {words} | {said} | {time.monotonic() - begun_s:.0f} |"


def main(arguments: list[str]) -> int:
    """Test them one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tools.pythons", description="Test on other Pythons.")
    parser.add_argument("versions", nargs="*", help="such as 3.12 (default: all that pyproject.toml names)")
    parser.add_argument("--oldest", action="store_true", help="with the lower bound of every dependency")
    parser.add_argument("--only", nargs="+", default=[], help="tests, by their paths (default: all)")
    asked = parser.parse_args(arguments)
    is_oldest, more = asked.oldest, asked.only
    versions = asked.versions or (supported()[:1] if is_oldest else supported())
    rows, is_good = [], True
    for version in versions:
        print(f"== Python {version}{', oldest dependencies' * is_oldest}", flush=True)
        went_well, row = run(version, more, is_oldest=is_oldest)
        rows.append(row)
        is_good = is_good and went_well
    text = "\n".join([f"{time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}.", "", HEAD, *rows])
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT.parent / ("oldest.md" if is_oldest else "pythons.md")).write_text(text + "\n", encoding="utf-8")
    print(text)
    return not is_good


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
