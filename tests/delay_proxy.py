"""A network of a longer way: carries what comes on a loopback port to another one, each way half a round trip later.

    with delay_proxy(server.port, round_trip_s=0.010) as port: Limits(store=f"redis://127.0.0.1:{port}/0")

python -m tests.delay_proxy PORT ROUND_TRIP_S    is the process that does so; it tells its port
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def delay_proxy(port: int, *, round_trip_s: float) -> Iterator[int]:
    """Start it, give its port, and end it."""
    process = subprocess.Popen(
        [sys.executable, "-m", __spec__.name, str(port), str(round_trip_s)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way_s: float) -> None:
    """Carry one way, until it is closed."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            loop.call_later(way_s, writer.write, data)
    loop.call_later(way_s, writer.close)


async def serve(port: int, round_trip_s: float) -> None:
    """Carry until it is killed."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            writer.close()
            return
        ways = ((reader, far_writer), (far_reader, writer))
        await asyncio.gather(*(carry(*way, round_trip_s / 2) for way in ways))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
