"""A redis-server of the tests' own: on a free loopback port, started, harmed and ended by them.

    with RedisServer(tmp_path) as server:
        Limits(store=server.url)
        server.kill()                  # SIGKILL: what was not saved is lost
        server.start(empty=True)       # on the same port, with nothing; start() has what `save` wrote
        server.flush()                 # FLUSHALL
        server.stop(); server.go_on()  # SIGSTOP, SIGCONT: it is there and does not answer

It saves nothing by itself.  Its files lie in the folder that it is given.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import redis

PROGRAM = shutil.which("redis-server")
CERTIFICATE = Path(__file__).parent / "engine" / "rules" / "self_signed.pem"
STARTS_WITHIN_S = 20.0


class RedisServer:
    """One redis-server process at a time, always on the same port.

    Args:
        folder: Where its files lie.
        password: What a client must tell; "" for nothing.
        tls: Whether it speaks TLS only, with the tests' self-signed certificate.
        options: More of the command line, such as ``("--maxmemory", "2mb")``.

    Attributes:
        port: Where it listens.
        process: The running one; None while there is none.
    """

    def __init__(self, folder: Path, *, password: str = "", tls: bool = False, options: tuple[str, ...] = ()) -> None:
        self.folder, self.password, self.tls, self.options = Path(folder), password, tls, options
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """Its address as `Limits` takes it, with password and certificate."""
        secret = f":{self.password}@" if self.password else ""
        query = f"?ssl_ca_certs={CERTIFICATE}" if self.tls else ""
        return f"{'rediss' if self.tls else 'redis'}://{secret}127.0.0.1:{self.port}/0{query}"

    @property
    def unix_url(self) -> str:
        """Its address as a socket in the file system."""
        secret = f":{self.password}@" if self.password else ""
        return f"unix://{secret}{self.folder / 'redis.sock'}"

    def start(self, *, empty: bool = False) -> None:
        """Start it, and wait until it answers.

        Args:
            empty: Without what `save` wrote.
        """
        assert PROGRAM is not None, "no redis-server: on Debian, apt-get install redis-server"
        assert self.process is None, "it runs"
        self.folder.mkdir(parents=True, exist_ok=True)
        if empty:
            (self.folder / "dump.rdb").unlink(missing_ok=True)
        log = self.folder / "redis.log"
        for _ in range(5):
            with log.open("ab") as out:
                self.process = subprocess.Popen([PROGRAM, *self._arguments()], stdout=out, stderr=out, cwd=self.folder)
            if self._answers():
                return
            self.process.wait()
            self.process, self.port = None, _free_port()  # another program was quicker
        raise AssertionError(log.read_text())

    def kill(self) -> None:
        """End it at once, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.process = None

    def save(self) -> None:
        """Write what it holds, for the next start."""
        with self.client() as client:
            client.save()

    def flush(self) -> None:
        """Let it forget everything, as an administrator may."""
        with self.client() as client:
            client.flushall()

    def stop(self) -> None:
        """Let it stand still."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on where it stood."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def client(self, **options):
        """A client of its own, beside those that are tested."""
        with contextlib.closing(redis.Redis.from_url(self.unix_url, **{"decode_responses": True, **options})) as client:
            yield client

    def _arguments(self) -> list[str]:
        values = {
            "bind": "127.0.0.1",
            "port": "0" if self.tls else str(self.port),
            "unixsocket": str(self.folder / "redis.sock"),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
        }
        if self.password:
            values["requirepass"] = self.password
        if self.tls:
            files = dict.fromkeys(("tls-cert-file", "tls-key-file", "tls-ca-cert-file"), str(CERTIFICATE))
            values |= {"tls-port": str(self.port), "tls-auth-clients": "no", **files}
        return [*(text for name, value in values.items() for text in (f"--{name}", value)), *self.options]

    def _answers(self) -> bool:
        """Wait until it answers; say whether it does, and has not ended."""
        assert self.process is not None
        ends_s = time.monotonic() + STARTS_WITHIN_S
        while self.process.poll() is None:
            with contextlib.suppress(redis.RedisError), self.client() as client:
                client.ping()
                return self.process.poll() is None
            assert time.monotonic() < ends_s, "redis-server does not answer"
            time.sleep(0.005)
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
