"""Write `src/ipybatch/server/openapi.json`, the REST API as OpenAPI 3.1, from the routes and their types.

python -m tools.openapi            writes the file
python -m tools.openapi --check    exits 1 when the committed file differs
"""

from __future__ import annotations

import json
import sys
from typing import Any

import ipybatch
from ipybatch.server.extension import BASE
from ipybatch.server.openapi import FILE, document
from ipybatch.server.routes import ALIASES, ROUTES
from tools.generated import write_or_check


def made() -> dict[str, Any]:
    """Return the document of all routes."""
    routes = [(f"{BASE}{pattern}", handler) for pattern, handler in ROUTES]
    aliases = [(f"/ipybatch{pattern}", handler) for pattern, handler in ALIASES]
    return document(routes, aliases, version=ipybatch.__version__)


def main(arguments: list[str]) -> int:
    """Write the file, or with ``--check`` say whether it is current."""
    text = json.dumps(made(), indent=1, ensure_ascii=False) + "\n"
    stale = "src/ipybatch/server/openapi.json is not what the routes say. Run: make openapi"
    return write_or_check(FILE, text, arguments, stale=stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
