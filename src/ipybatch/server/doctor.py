"""Doctor: what is installed and where, and what keeps the side bar, the REST API or a journal from working.

    python -m ipybatch doctor

Rule: it looks and changes nothing; each finding says what to do.  It works
where Jupyter is not installed, as that may be what is wrong.  Whatever could
take long is asked in threads, and given up after `PATIENCE_S`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import msgspec

import ipybatch
from ipybatch.engine.data.masking import describe, mask
from ipybatch.engine.store import history, registration, resources, schema, sqlite_limits
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store.network_copy import home_of, place_of
from ipybatch.errors import JournalError

Verdict = Literal["ok", "wrong", "unknown"]
PATIENCE_S = 10.0  # for a kernel's Python to start, for a server to answer
EXTENSION = "ipybatch.server"
LAB_EXTENSION = Path("labextensions", "@ipybatch", "lab")
ENABLING = Path("etc", "jupyter", "jupyter_server_config.d", "ipybatch.json")

_EXTRAS = {
    "jupyter": ("jupyter_server", "anywidget", "ipywidgets"),
    "gemini": ("google-genai", "aiohttp"),
    "forecast": ("scikit-learn", "pyarrow"),
    "dask": ("distributed",),
    "redis": ("redis",),
    "notify": ("apprise", "keyring"),
}
_ASK_VERSION = "import ipybatch; print(ipybatch.__version__)"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one thing.

    Attributes:
        about: What was looked at.
        told: What was found.
        next_step: What to do; "" for nothing.
    """

    about: str
    verdict: Verdict
    told: str
    next_step: str = ""


def examine(journal: Path | None = None) -> list[Finding]:
    """Return what is found, the same things in the same order each time.

    Args:
        journal: Look at this one, instead of the default one and those that are registered.
    """
    at_once = [_python, _packages, _environment, _extension_enabled, _lab_extension, lambda: _journals(journal)]
    with ThreadPoolExecutor(2, "ipybatch-doctor") as pool:
        slow = [pool.submit(_asked, look) for look in (_kernels, _servers)]
        found = [finding for look in at_once for finding in _asked(look)]
        return [*found, *(finding for future in slow for finding in future.result())]


def _asked(look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Return what a look finds; one that fails is no reason not to look at the rest."""
    found: list[Finding] = []
    try:
        found.extend(look())
    except Exception as error:
        about = getattr(look, "__name__", "").strip("_").replace("_", " ") or "journals"
        found.append(Finding(about=about, verdict="unknown", told=describe(error)))
    return found


def _ok(about: str, told: str, next_step: str = "") -> Finding:
    return Finding(about=about, verdict="ok", told=told, next_step=next_step)


def _wrong(about: str, told: str, next_step: str) -> Finding:
    return Finding(about=about, verdict="wrong", told=told, next_step=next_step)


def _unknown(about: str, told: str, next_step: str = "") -> Finding:
    return Finding(about=about, verdict="unknown", told=told, next_step=next_step)


def _python() -> Iterator[Finding]:
    yield _ok("Python", f"{platform.python_version()} at {sys.executable}, {platform.platform()}")
    yield _ok("ipybatch", f"{ipybatch.__version__} at {Path(ipybatch.__file__).parent}")


def _packages() -> Iterator[Finding]:
    for extra, packages in _EXTRAS.items():
        found = {package: _version(package) for package in packages}
        missing = [package for package, seen in found.items() if seen is None]
        told = ", ".join(f"{package} {seen}" for package, seen in found.items() if seen is not None)
        if not missing:
            yield _ok(f"extra {extra}", told)
        elif told:
            lacks = f"{told}; {', '.join(missing)} missing"
            yield _wrong(f"extra {extra}", lacks, f'pip install "ipybatch[{extra}]"')
        else:
            yield _ok(f"extra {extra}", "not installed", f'to use it: pip install "ipybatch[{extra}]"')


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _environment() -> Iterator[Finding]:
    """Say where the JupyterLab lives that people start."""
    about = "JupyterLab"
    found = next(filter(None, map(shutil.which, ("jupyter-lab", "jupyter-server", "jupyter"))), None)
    here = _version("jupyterlab")
    if found is None:
        if here is None:
            yield _unknown(about, "not installed here, and not on PATH", 'pip install jupyterlab "ipybatch[jupyter]"')
        else:
            yield _ok(about, f"{here} here, and not on PATH: start it as {sys.executable} -m jupyterlab")
        return
    python = _interpreter(Path(found))
    prefix = python.parent.parent
    if python == Path(sys.executable) or (prefix.exists() and prefix.samefile(sys.prefix)):
        yield _ok(about, f"{here or 'not installed'}: {found} is of this environment")
        return
    lacks = [str(path) for path in (ENABLING, Path("share", "jupyter", LAB_EXTENSION)) if not (prefix / path).exists()]
    if not lacks:
        yield _ok(about, f"{found} is of another environment, which has ipybatch as well")
        return
    told = f"{found} is of another environment ({prefix}) than this Python ({sys.prefix}), and has no ipybatch"
    step = f'install it there too: {python} -m pip install "ipybatch[jupyter]=={ipybatch.__version__}"'
    yield _wrong(about, told, f"{step}; kernels may stay where they are")


def _interpreter(script: Path) -> Path:
    """Return the Python that a script is started with: pip writes it into its first line."""
    with script.open("rb") as file:
        first = file.readline(1024).decode(errors="replace").strip()
    named = Path(first.removeprefix("#!").strip())
    return named if named.is_absolute() and "python" in named.name else script.with_name("python")


def _extension_enabled() -> Iterator[Finding]:
    about = "server extension"
    if _version("jupyter_server") is None:
        yield _unknown(about, "jupyter_server is not installed here", 'pip install "ipybatch[jupyter]"')
        return
    from jupyter_core.paths import jupyter_config_path
    from jupyter_server.extension.config import ExtensionConfigManager

    known = ExtensionConfigManager(read_config_path=jupyter_config_path()).get_jpserver_extensions()  # type: ignore[no-untyped-call]
    step = f"jupyter server extension enable {EXTENSION}"
    if EXTENSION not in known:
        yield _wrong(
            about, f"{EXTENSION} is not enabled: no {ENABLING.name} in {Path(sys.prefix, ENABLING).parent}", step
        )
    elif not known[EXTENSION]:
        yield _wrong(about, f"{EXTENSION} is disabled by the configuration of Jupyter", step)
    else:
        yield _ok(about, f"{EXTENSION} is enabled")


def _lab_extension() -> Iterator[Finding]:
    about = "side bar"
    if _version("jupyterlab") is None:
        yield _unknown(about, "JupyterLab is not installed here", "")
        return
    from jupyter_core.paths import jupyter_path

    places = [Path(folder) / LAB_EXTENSION for folder in jupyter_path()]
    found = next((place for place in places if (place / "package.json").exists()), None)
    step = 'pip install --force-reinstall --no-deps "ipybatch"; it needs no Node and no build step'
    if found is None:
        yield _wrong(about, "@ipybatch/lab is in none of Jupyter's folders", step)
        return
    told = json.loads((found / "package.json").read_text(encoding="utf-8")).get("version", "")
    if told != ipybatch.__version__:
        yield _wrong(about, f"{told or 'of no version'} at {found}, and ipybatch is {ipybatch.__version__}", step)
    else:
        yield _ok(about, f"{told} at {found}; it needs no Node")


def _journals(journal: Path | None) -> Iterator[Finding]:
    yield _journal("journal" if journal else "default journal", journal or journals.default_path())
    if journal is None:
        yield from _registered()
    limits = resources.limits_of(journal)
    if not limits.exists():
        yield _ok("limits", f"{limits} is not there yet: the first session with limits makes it")
        return
    cooling = sqlite_limits.cooling(limits)
    if cooling is None:
        yield _wrong("limits", f"{limits} cannot be read", "move it away while nothing runs; it is made anew")
    elif not _can_write(limits):
        yield _wrong("limits", f"{limits} cannot be written", "make the file and its folder writable")
    else:
        names = ", ".join(cooling)
        yield _ok("limits", f"{limits}; cooling down: {names}" if cooling else str(limits))


def _registered() -> Iterator[Finding]:
    """Look at the journals that this user's processes opened; those that are well are only counted."""
    until_s = time.monotonic() + PATIENCE_S
    default = journals.resolved(journals.default_path())
    others = sorted({found.asked for found in registration.registered()} - {default})
    looked, wrong = 0, 0
    for path in others:
        if time.monotonic() > until_s:
            break
        looked += 1
        finding = _journal("registered journal", path)
        if finding.verdict != "ok":
            wrong += 1
            yield finding
    told = f"{len(others):,} opened since the machine started"
    if looked < len(others):
        yield _unknown("registered journals", f"{told}, of which {looked:,} were looked at in {PATIENCE_S:.0f} s")
    else:
        yield _ok("registered journals", f"{told}, {looked - wrong:,} of them well")


def _journal(about: str, path: Path) -> Finding:
    try:
        asked = journals.resolved(path)
        home = home_of(asked)
    except JournalError as error:
        return _wrong(about, mask(str(error)), "set IPYBATCH_JOURNAL to a file on a local disk")
    where = str(asked) if home == asked else f"{home}, as {asked} is on a network file system"
    at = place_of(asked)
    if not at.exists():
        if _can_write(home):
            return _ok(about, f"{where} is not there yet: the first session makes it")
        step = "set IPYBATCH_JOURNAL to a file in a folder of yours"
        return _wrong(about, f"{where} is not there, and its folder cannot be written", step)
    try:
        seen = history.look(path, lambda database, _: schema.version(database))
    except JournalError as error:
        return _wrong(about, mask(str(error)), "sessions can use another one by IPYBATCH_JOURNAL or journal=")
    told = f"{where}, schema {seen}"
    if seen < len(schema.STEPS):
        told = f"{told} of {len(schema.STEPS)}: the next session brings it up to date"
    if not _can_write(at):
        return _wrong(about, f"{told}; it cannot be written", "make the file and its folder writable")
    return _ok(about, told)


def _can_write(path: Path) -> bool:
    """Say whether a file and its folder can be written, or made."""
    if path.exists():
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)
    above = next(folder for folder in path.parents if folder.exists())
    return above.is_dir() and os.access(above, os.W_OK | os.X_OK)


def _kernels() -> Iterator[Finding]:
    """Ask the Python of each kernel for its ipybatch."""
    if _version("jupyter_client") is None:
        yield _unknown("kernels", "jupyter_client is not installed here", 'pip install "ipybatch[jupyter]"')
        return
    from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpecManager

    specs = KernelSpecManager().get_all_specs()
    if not specs:
        yield _wrong("kernels", "there are none", "pip install ipykernel")
    with ThreadPoolExecutor(4, "ipybatch-doctor-kernel") as pool:
        asked = {
            name: pool.submit(_kernel, name, specs[name]["spec"], is_default=name == NATIVE_KERNEL_NAME)
            for name in sorted(specs)
        }
        for future in asked.values():
            yield future.result()


def _kernel(name: str, spec: Mapping[str, Any], *, is_default: bool) -> Finding:
    about = f"kernel {name}"
    if spec.get("language", "python").lower() != "python":
        return _ok(about, f"{spec.get('language')}: sessions run in Python kernels")
    given = next(iter(spec.get("argv", ())), "")
    # Jupyter starts these with its own Python, whatever PATH says.
    own = {"python", f"python{sys.version_info.major}", f"python{sys.version_info.major}.{sys.version_info.minor}"}
    python = sys.executable if given in own else shutil.which(given)
    if python is None:
        step = f"jupyter kernelspec remove {name}, or install its environment again"
        return _wrong(about, f"its Python {given!r} is not there", step)
    try:
        asked = subprocess.run(  # noqa: S603  # what Jupyter itself would start
            [python, "-c", _ASK_VERSION],
            env={**os.environ, **spec.get("env", {})},
            cwd=tempfile.gettempdir(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _unknown(about, f"{python} did not answer within {PATIENCE_S:.0f} s", "try again when less is running")
    return _answered(about, python, asked, is_default=is_default)


def _answered(about: str, python: str, asked: subprocess.CompletedProcess[str], *, is_default: bool) -> Finding:
    seen = asked.stdout.strip()
    install = f'{python} -m pip install "ipybatch[jupyter]=={ipybatch.__version__}"'
    if asked.returncode == 0:
        if seen == ipybatch.__version__:
            return _ok(about, f"{seen} in {python}")
        return _wrong(about, f"ipybatch {seen} in {python}, and {ipybatch.__version__} here", install)
    if "No module named 'ipybatch'" not in asked.stderr:
        return _unknown(about, f"{python}: {mask(asked.stderr.strip().rpartition(chr(10))[2])}", install)
    if is_default:
        return _wrong(about, f"no ipybatch in {python}, where submissions run", install)
    return _ok(about, f"no ipybatch in {python}: no sessions can run there", f"to use it there: {install}")


def _servers() -> Iterator[Finding]:
    """Ask each running server whether it has the extension."""
    if _version("jupyter_server") is None:
        return
    from jupyter_server.serverapp import list_running_servers

    running = list(list_running_servers())
    if not running:
        yield _ok("servers", "none is running")
    with ThreadPoolExecutor(4, "ipybatch-doctor-server") as pool:
        yield from pool.map(_server, sorted(running, key=lambda info: str(info.get("url"))))


def _server(info: Mapping[str, Any]) -> Finding:
    url = str(info.get("url", ""))
    about = f"server {mask(url)}"
    if not url.startswith(("http://", "https://")):
        return _unknown(about, "it listens on a socket file, and is not asked")
    request = urllib.request.Request(f"{url}ipybatch/api/v1/", headers={"Authorization": f"token {info.get('token')}"})  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
    try:
        with closing(opener.open(request, timeout=PATIENCE_S)) as answer:
            seen = json.load(answer).get("version", "")
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404:
                told = "it runs without the extension: it was started before ipybatch was installed, or elsewhere"
                return _wrong(about, told, "restart it; if that does not help, install ipybatch where it lives")
            return _unknown(about, f"it answers {error.code}", "ask with its password or in the browser")
    except (OSError, ValueError) as error:
        return _unknown(about, f"it does not answer: {describe(error)}")
    if seen != ipybatch.__version__:
        return _wrong(about, f"it runs ipybatch {seen}, and this is {ipybatch.__version__}", "restart it")
    return _ok(about, f"ipybatch {seen}, process {info.get('pid')}")
