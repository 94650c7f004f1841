"""Signatures: what was signed with a secret a moment ago is known by it, and nothing else is."""

import hashlib
import hmac
import ssl
import time
import urllib.error

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import notify
from ipybatch.notify import webhook
from tests.notify.receivers import SECRET


def headers(body, secret=SECRET, at_s=None):
    timestamp = str(int(time.time() if at_s is None else at_s))
    return {"X-Ipybatch-Timestamp": timestamp, "X-Ipybatch-Signature": webhook.sign(secret, timestamp, body)}


@given(st.binary(max_size=200), st.text(min_size=1, max_size=40))
def test_a_signed_body_is_known_and_a_changed_one_is_not(body, secret):
    signed = headers(body, secret)
    assert notify.verify(secret, signed, body)
    assert not notify.verify(secret, signed, body + b" ")
    assert not notify.verify(secret + "x", signed, body)


def test_it_is_the_hmac_that_the_documentation_says():
    expected = hmac.new(SECRET.encode(), b"1700000000." + b"{}", hashlib.sha256).hexdigest()
    assert webhook.sign(SECRET, "1700000000", b"{}") == f"sha256={expected}"


def test_names_of_headers_are_in_any_case():
    assert notify.verify(SECRET, {name.lower(): value for name, value in headers(b"{}").items()}, b"{}")


@pytest.mark.parametrize("ago_s", [400, -400])
def test_an_old_one_is_refused_though_its_signature_is_right(ago_s):
    """Whoever has seen a message cannot send it again tomorrow."""
    assert not notify.verify(SECRET, headers(b"{}", at_s=time.time() - ago_s), b"{}")
    assert notify.verify(SECRET, headers(b"{}", at_s=time.time() - ago_s), b"{}", max_age_s=500)


@given(st.text(max_size=20), st.text(max_size=80))
def test_whatever_stands_in_the_headers_is_refused(timestamp, signature):
    told = {"X-Ipybatch-Timestamp": timestamp, "X-Ipybatch-Signature": signature}
    assert not notify.verify(SECRET, told, b"{}")
    assert not notify.verify(SECRET, {}, b"{}")


def test_a_certificate_that_is_not_trusted_is_told_with_what_to_do(monkeypatch):
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    error.verify_message = "Hostname mismatch, certificate is not valid for 'hooks.example.org'"

    def refuse(*given, **more):
        raise urllib.error.URLError(error)

    monkeypatch.setattr(webhook, "_open", refuse)
    notify.add_channel("hook", "json+https://hooks.example.org/in", secret=SECRET)
    with pytest.raises(notify.NotSent, match=r"not trusted here .*SSL_CERT_FILE") as caught:
        notify.test_channel("hook")
    assert "hooks.example.org" not in str(caught.value)
