"""A server of faults: raw sockets on loopback; the path says how it answers.

No server library: what is played here is what none of them would send.  It never sleeps; to be slow is to say nothing
until the client has gone.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from pathlib import Path

GOOD = json.dumps({"name": "Portal"}).encode()
PAGE = b"<!DOCTYPE html><html><body><h1>The store is busy</h1></body></html>"
TLS = b"\x16\x03"  # how a client begins that speaks it
CERTIFICATE = Path(__file__).parent / "self_signed.pem"


def answer(status=200, body=GOOD, /, **headers):
    """Return a whole answer; ``Retry_After="7"`` is a header."""
    named = {"Content_Type": "application/json", "Content_Length": len(body), "Connection": "close"} | headers
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in named.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status} Told", *lines, "", ""]).encode() + body


def in_chunks(body):
    return answer(200, b"", Content_Length=None, Transfer_Encoding="chunked") + body


ANSWERS = {
    "good": answer(),
    "short": answer(200, GOOD[:8], Content_Length=len(GOOD)),
    "broken-chunk": in_chunks(b"5\r\n" + GOOD[:5] + b"\r\nzz\r\n"),
    "cut-chunk": in_chunks(b"5\r\n" + GOOD[:5] + b"\r\n9\r\n" + GOOD[5:8]),
    "gzip": answer(200, b"\x1f\x8b\x08 no gzip at all", Content_Encoding="gzip"),
    "no-http": b"220 mail.example.org ESMTP\r\n",
    "page": answer(200, PAGE, Content_Type="text/html"),
    "empty": answer(200, b""),
    "half-json": answer(200, GOOD[:12]),
    "bom": answer(200, b"\xef\xbb\xbf" + GOOD),
    "surrogate": answer(200, b'{"name": "\\ud83d"}'),
    "429-in-seconds": answer(429, Retry_After="7"),
    "429-date": answer(429, Retry_After="Tue Nov 14 22:13:27 2023", Date="Tue, 14 Nov 2023 22:13:20 GMT"),
    "429-page": answer(429, PAGE, Content_Type="text/html", Retry_After="7"),
    "429-reset": answer(429, X_RateLimit_Remaining="0", X_RateLimit_Reset="7"),
    "429-draft": answer(429, RateLimit='"default";r=0;t=7'),
    "429-ms": answer(429, retry_after_ms="7000"),
    "503-in-seconds": answer(503, Retry_After="7"),
    "403-in-seconds": answer(403, Retry_After="7"),
    "403-used-up": answer(403, X_RateLimit_Remaining="0", X_RateLimit_Reset="7"),
    "503-page": answer(503, PAGE, Content_Type="text/html"),
    "loop": answer(302, b"", Location="/loop"),
    "moved": answer(301, PAGE, Content_Type="text/html", Location="/good"),
}


def _address(listener):
    return f"127.0.0.1:{listener.getsockname()[1]}"


class FaultServer:
    """Answers on two ports of loopback, one of them with a certificate that nobody signed."""

    def __init__(self):
        self._plain, self._secure = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.dead = f"http://{_address(free)}/good"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(CERTIFICATE)

    def __enter__(self):
        for listener in (self._plain, self._secure):
            threading.Thread(target=self._accept, args=[listener], daemon=True).start()
        return self

    def __exit__(self, *_):
        for listener in (self._plain, self._secure):
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    @property
    def address(self):
        return _address(self._plain)

    @property
    def secure_address(self):
        return _address(self._secure)

    def _accept(self, listener):
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[line, listener is self._secure], daemon=True).start()

    def _serve(self, line, is_secure):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(line)
            if is_secure:
                line = stack.enter_context(self._context.wrap_socket(line, server_side=True))
            path = self._asked(line)
            if path == "kept-then-dropped":  # an answer, and the next request on the same line gets none
                line.sendall(answer(Connection="keep-alive"))
                self._asked(line)
            elif path == "reset":
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif path == "slow-header":
                line.recv(1)
            elif path == "slow-body":
                line.sendall(ANSWERS["short"])
                line.recv(1)
            elif path != "drop":
                line.sendall(ANSWERS[path] if path in ANSWERS else answer(int(path)))

    @staticmethod
    def _asked(line):
        """Return the path of a request, without its first slash; "drop" where the client has gone."""
        head = b""
        while b"\r\n\r\n" not in head:
            more = line.recv(4096)
            if not more:
                return "drop"
            head += more
            if head.startswith(TLS):
                return "no-http"
        return head.split(b" ", 2)[1].decode().lstrip("/")
