"""A server that keeps what arrives on the wire, and answers as a test says: with bytes, or by closing the line."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import ssl
import threading
from dataclasses import dataclass, field
from typing import Any

ANSWER = {"candidates": [{"content": {"parts": [{"text": "ok"}]}, "finishReason": "STOP"}], "usageMetadata": {}}


def reply(status: int = 200, body: Any = ANSWER, *headers: str, kind: str = "application/json") -> bytes:
    """Return an answer as it goes over the wire."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Said", f"Content-Type: {kind}", f"Content-Length: {len(sent)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + sent


@dataclass
class Seen:
    """One request: its line, its headers in lower case, its body, and the number of its connection."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class WireServer:
    """Keeps every request; ``answers`` gives what is sent back to the nth, b"" for none; the last holds on.

    Attributes:
        closes: Whether a connection is closed after its first answer, without a word, when the next request arrives.
    """

    answers: list[bytes] = field(default_factory=lambda: [reply()])
    closes: bool = False
    host: str = "127.0.0.1"
    certificate: str | None = None
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    def serve(self, connection: socket.socket, number: int) -> None:
        file, answered = connection.makefile("rb"), 0
        while line := file.readline().decode().strip():
            headers = dict(self._headers(file))
            body = file.read(int(headers.get("content-length", 0)))
            self.seen.append(Seen(line, headers, body, number))
            answer = self.answers[min(len(self.seen), len(self.answers)) - 1]
            if not answer or (self.closes and answered):
                break
            connection.sendall(answer)
            answered += 1
        file.close()

    @staticmethod
    def _headers(file: Any) -> Any:
        while line := file.readline().decode().strip():
            name, _, value = line.partition(":")
            yield name.lower(), value.strip()


@contextlib.contextmanager
def listening(**options: Any) -> Any:
    """Listen on a free port while the block runs."""
    server = WireServer(**options)
    count = iter(range(10_000))
    tls = None
    if server.certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(server.certificate)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(ConnectionError, ssl.SSLError), self._line() as connection:
                server.serve(connection, next(count))

        def _line(self) -> socket.socket:
            return self.request if tls is None else tls.wrap_socket(self.request, server_side=True)

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        address_family = socket.AF_INET6 if ":" in server.host else socket.AF_INET

    with Listener((server.host, 0), Handler) as listener:
        port = listener.server_address[1]
        host = f"[{server.host}]" if ":" in server.host else server.host
        server.url = f"{'http' if tls is None else 'https'}://{host}:{port}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()
