"""Print the path of a Chromium: an installed one, else Debian's package where it may be installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = ("chromium", "fonts-dejavu-core")  # without a font every letter is a box
HELP = (
    "No Chromium found. Install one (on Debian: apt-get install chromium fonts-dejavu-core) "
    "or name yours: export IPYBATCH_CHROMIUM=/path/to/chrome"
)


def find() -> str | None:
    """Return the path of an installed Chromium, the one named by IPYBATCH_CHROMIUM first."""
    named = os.environ.get("IPYBATCH_CHROMIUM")
    if named:
        if not os.access(named, os.X_OK):
            raise SystemExit(f"IPYBATCH_CHROMIUM must name a program that can be run, got {named!r}")
        return named
    mac = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
    return next(filter(None, map(shutil.which, NAMES)), str(mac) if mac.exists() else None)


def may_install() -> bool:
    """Say whether this is a Debian-like system and we are its administrator."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(*packages: str) -> None:
    """Install Debian's packages; apt's own words go to stderr, so stdout stays the path."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        subprocess.run(["apt-get", "-q", *arguments], check=True, env=environment, stdout=sys.stderr)


def ensure() -> str:
    """Return the path of a Chromium, installing one where that is allowed; otherwise stop and say what to do."""
    if not find() and may_install():
        install(*PACKAGES)
    path = find()
    if path is None:
        raise SystemExit(HELP)
    return path


if __name__ == "__main__":
    print(ensure())
