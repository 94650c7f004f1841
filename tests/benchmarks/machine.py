"""Machine: where figures were measured, and with which versions."""

from __future__ import annotations

import json
import os
import platform
import re
import sqlite3
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import msgspec
import psutil

GB = 2**30
NOT_RUN = "test|lab|mutants|notify"  # extras that no figure depends on
PEERS = ("aiolimiter", "aiometer", "pyrate-limiter", "tenacity", "jupyterlab")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a figure depends on, beside the code.

    Attributes:
        cpu: The processor's name; "" where it is not known.
        cores: As many as the system shows.
        memory_gb: Of the whole machine.
        system: The kernel, with its version, and the architecture.
    """

    cpu: str = ""
    cores: int = 0
    memory_gb: float = 0.0
    system: str = ""

    def __str__(self) -> str:
        known = [
            self.cpu,
            f"{self.cores} cores" if self.cores else "",
            f"{self.memory_gb:.0f} GB" if self.memory_gb else "",
        ]
        return ", ".join(word for word in [*known, self.system] if word)


def this_machine() -> Machine:
    """Return the machine that this runs on."""
    return Machine(
        cpu=_cpu(),
        cores=os.cpu_count() or 0,
        memory_gb=round(psutil.virtual_memory().total / GB, 1),
        system=f"{platform.system()} {_kernel()} {platform.machine()}",
    )


def versions() -> dict[str, str]:
    """Return the version of Python, of SQLite, of ipybatch, of the packages it asks for, and of the peers beside it."""
    found = {"Python": platform.python_version(), "SQLite": sqlite3.sqlite_version, "ipybatch": _ours()}
    asked = [line for line in metadata.requires("ipybatch") or () if not re.search(f"extra == .({NOT_RUN})", line)]
    for name in sorted({re.split(r"[^\w.-]", line)[0] for line in asked} - {"ipybatch"} | {*PEERS}, key=str.lower):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def installed(place: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the versions of packages in a place of their own: an environment, a folder of pip's, or of npm's."""
    found = {}
    packages = [place, *place.glob("lib/python*/site-packages"), place / "Lib" / "site-packages"]
    for name in names:
        for one in metadata.distributions(name=name, path=[str(path) for path in packages]):
            found[name] = one.version
        told = place / "node_modules" / name / "package.json"
        if told.exists():
            found[name] = json.loads(told.read_text(encoding="utf-8"))["version"]
    return found


def _ours() -> str:
    import ipybatch

    return ipybatch.__version__


def _kernel() -> str:
    """Return the version alone, without what a distribution or a host puts behind it."""
    found = re.match(r"[\d.]+", platform.release())
    return found[0] if found else ""


def _cpu() -> str:
    told = Path("/proc/cpuinfo")
    if told.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", told.read_text(encoding="utf-8"), flags=re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor()
