"""TLS contexts that later clients take from the first."""

from pathlib import Path

import certifi
import pytest
from google import genai
from google.genai import types

from ipybatch.errors import InputError
from ipybatch.gemini.service import tls
from ipybatch.gemini.service.client import connect
from ipybatch.gemini.service.transport import DirectTransport

KEY = "SIMULATED"


@pytest.fixture(autouse=True)
def none_kept(monkeypatch):
    monkeypatch.setattr(tls, "_kept", {})


def _contexts(client):
    inner = client._api_client
    return [
        inner._async_client_session_request_args["ssl"],
        inner._async_httpx_client_args["verify"],
        inner._websocket_ssl_ctx["ssl"],
    ]


def test_later_clients_load_no_certificates_again():
    first, second, third = (connect(KEY) for _ in range(3))
    assert _contexts(second)[:2] == _contexts(third)[:2] == _contexts(first)[:2]
    assert DirectTransport.is_for(second)


def test_the_contexts_are_those_of_the_client_itself():
    own, ours = genai.Client(vertexai=False, api_key=KEY), [connect(KEY) for _ in range(2)][1]
    for its, context in zip(_contexts(own), _contexts(ours), strict=True):
        assert type(context) is type(its)
        assert (context.verify_mode, context.check_hostname) == (its.verify_mode, its.check_hostname)
        assert context.minimum_version == its.minimum_version
        assert context.cert_store_stats() == its.cert_store_stats()


def test_certificates_from_elsewhere_are_loaded(monkeypatch, tmp_path):
    first, end = connect(KEY), "-----END CERTIFICATE-----\n"
    two = Path(certifi.where()).read_text("utf-8").split(end)[:2]
    bundle = tmp_path / "two.pem"
    bundle.write_text("".join(one + end for one in two), "utf-8")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    other = [connect(KEY) for _ in range(2)][1]
    assert _contexts(other)[0].cert_store_stats()["x509"] == 2
    assert _contexts(first)[0].cert_store_stats()["x509"] == 1


def test_a_file_that_is_written_anew_is_read_anew(monkeypatch, tmp_path):
    end, bundle = "-----END CERTIFICATE-----\n", tmp_path / "own.pem"
    one, two = (part + end for part in Path(certifi.where()).read_text("utf-8").split(end)[:2])
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    counts = []
    for content in (one, one + two):
        bundle.write_text(content, "utf-8")
        counts.append(_contexts(connect(KEY))[0].cert_store_stats()["x509"])
    bundle.unlink()
    with pytest.raises(InputError, match="SSL_CERT_FILE"):
        connect(KEY)
    assert counts == [1, 2]


def test_a_file_that_is_written_anew_while_a_client_is_made_is_read_anew(monkeypatch, tmp_path):
    end, bundle = "-----END CERTIFICATE-----\n", tmp_path / "own.pem"
    one, two = (part + end for part in Path(certifi.where()).read_text("utf-8").split(end)[:2])
    bundle.write_text(one, "utf-8")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    make = genai.Client

    def make_slowly(**options):
        made = make(**options)
        bundle.write_text(one + two, "utf-8")
        return made

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(genai, "Client", make_slowly)
        connect(KEY)
    assert _contexts(connect(KEY))[0].cert_store_stats()["x509"] == 2


def test_of_a_file_that_is_written_anew_all_day_only_the_latest_are_kept(monkeypatch, tmp_path):
    """The client of an earlier one is still told apart from those of users."""
    bundle, clients = tmp_path / "own.pem", []
    one = Path(certifi.where()).read_text("utf-8").partition("-----END CERTIFICATE-----\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    for count in range(tls._MOST + 2):
        bundle.write_text("".join(one[:2]) + "\n" * count, "utf-8")
        clients.append([connect(KEY) for _ in range(2)][1])
    assert len(tls._kept) == tls._MOST
    assert _contexts(connect(KEY))[0] is _contexts(clients[-1])[0]
    assert not any(tls.is_of_user(client._api_client._http_options.async_client_args) for client in clients)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read_are_named(monkeypatch, tmp_path, content):
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_text(content, "utf-8")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(InputError, match=f"SSL_CERT_FILE must name a file of certificates, got '{path}': "):
        connect(KEY)


def test_what_a_user_sets_is_told_apart():
    connect(KEY)
    kept = tls.kept(tls.sources())["async_client_args"]
    assert not tls.is_of_user(None)
    assert not tls.is_of_user(kept)
    assert tls.is_of_user({"ssl": False})
    assert tls.is_of_user({**kept, "proxy": "http://127.0.0.1:9"})
    given = types.HttpOptions(async_client_args=dict(kept))
    assert not tls.is_of_user(given.async_client_args)
