"""Serve a simulated service until interrupted: ``python -m ipybatch.simulators steam --port 0 --limit 40 --per-s 2``.

The first line printed is the server's address.  Every option of `ipybatch.simulators.serve` is a flag; values are
Python literals or plain words: ``--latency-s "(0.05, 0.2)" --outages "[(5, 15)]" --outage-kind drop``.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Any

from .serve import SERVICES, Server, serve

if TYPE_CHECKING:
    from collections.abc import Sequence


def start(arguments: Sequence[str]) -> Server:
    """Start the server that the command line describes; exit with a one-line message on a wrong option."""
    parser = argparse.ArgumentParser(
        prog="python -m ipybatch.simulators", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("service", choices=sorted(SERVICES))
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 for any free one")
    known, rest = parser.parse_known_args(arguments)
    flags, values = rest[::2], rest[1::2]
    if len(flags) != len(values) or not all(flag.startswith("--") for flag in flags):
        parser.error(f"options must be pairs --name value, got {' '.join(rest)}")
    options = {flag[2:].replace("-", "_"): _literal(text) for flag, text in zip(flags, values, strict=True)}
    try:
        return serve(known.service, port=known.port, **options)
    except (OSError, TypeError, ValueError) as error:
        parser.error(str(error))


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


if __name__ == "__main__":
    sys.stdout.write(f"{start(sys.argv[1:]).url}\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
