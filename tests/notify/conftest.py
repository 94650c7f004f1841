"""A user's folder of this test alone, and receivers on loopback: a webhook, and a mail server."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ipybatch import notify
from ipybatch.engine.store import outbox as rows
from ipybatch.notify import delivery
from tests.notify.receivers import SECRET, TOKEN, Request


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    """The folder of the user's settings; and no thread of another test delivers what is this one's."""
    folder = tmp_path / "config"
    monkeypatch.setenv("IPYBATCH_CONFIG", str(folder))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setattr(delivery, "deliverer", delivery.Deliverer())
    monkeypatch.setattr(rows, "on_written", rows.on_written)
    yield folder
    delivery.deliverer.finish(5.0)
    delivery.deliverer.forget()


class Hook:
    """A receiver of webhooks.

    Attributes:
        answers: What the next requests are answered, each a status and headers; then 204.
    """

    def __init__(self):
        self.requests, self.answers = [], []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.requests.append(Request(self.path, dict(self.headers), body))
                status, headers = hook.answers.pop(0) if hook.answers else (204, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self):
        return f"json+http://127.0.0.1:{self._server.server_port}/hooks/{TOKEN}"

    def add(self, name="hook"):
        notify.add_channel(name, self.url, secret=SECRET)

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hook():
    """A webhook's receiver, and the channel "hook" that leads to it."""
    with contextlib.closing(Hook()) as made:
        made.add()
        yield made
