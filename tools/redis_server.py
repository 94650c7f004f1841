"""Print the path of a redis-server: an installed one, else Debian's package where it may be installed.

The tests that need one start it themselves, on loopback; without one they are skipped.
"""

from __future__ import annotations

import shutil
import sys

from tools.chromium import install, may_install

PACKAGE = "redis-server"


def ensure() -> str | None:
    """Return the path of a redis-server, installing one where that is allowed; None where there is none."""
    if shutil.which(PACKAGE) is None and may_install():
        install(PACKAGE)
    return shutil.which(PACKAGE)


if __name__ == "__main__":
    path = ensure()
    if path is None:
        told = "No redis-server: the tests that need one are skipped (on Debian: apt-get install redis-server)"
        print(told, file=sys.stderr)
    else:
        print(path)
