"""Addresses of limit stores on a server: ``redis://``, ``rediss://`` (TLS) and ``unix://``, checked and shown.

Rule: an address may hold a password; whoever is given one registers it here,
and people are shown `shown_url`, which has none.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from ipybatch.engine.data.masking import MASK, mask, register
from ipybatch.errors import InputError, MissingExtra

SCHEMES = ("redis", "rediss", "unix")
_FORM = "redis://[[user]:password@]host[:port][/db], rediss://... for TLS, or unix:///path/of/the/socket"
_SECRETS = ("password", "ssl_password")
_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_OPTIONS = ("db", "username", *_SECRETS, *_FILES, "ssl_cert_reqs", "ssl_check_hostname", "client_name")


# What lacks its beginning is no path: two machines would each count in a file of its own, without a word.
_CUT = re.compile(r"\s*(rediss?:|unix:|([^/\\]*@)?([\w.-]{2,}|\[[\da-f:]+\]):\d+(/\d*)?\s*$)", re.IGNORECASE)


def is_url(store: object) -> bool:
    """Say whether a store is named by an address, be it a wrong one, and not by the path of a file."""
    return isinstance(store, str) and ("://" in store or _CUT.match(store) is not None)


def check_url(url: str) -> None:
    """Refuse an address that leads nowhere, and mask its password from now on, wherever it turns up.

    Raises:
        InputError: Says what is wrong with which part of it.
        MissingExtra: The redis package is not installed.
    """
    _register(url)
    wrong = _what_is_wrong(url)
    if wrong:
        msg = f"store must be {_FORM}, got {mask(repr(url))}: {wrong}"
        raise InputError(msg)
    try:
        import_module("redis")  # here, where a session is made: it takes 0.1 s, too long for the engine's loop
    except ImportError:
        raise MissingExtra("redis") from None


def shown_url(url: str) -> str:
    """Return an address as people are shown it: without password and options."""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    if at:
        name, colon, _ = user.partition(":")
        place = f"{name}{colon}{MASK if colon else ''}@{place}"
    return f"{parts.scheme}://{place}{parts.path}"


def _register(url: str) -> None:
    query = url.partition("?")[2]
    secrets = [value for name, value in parse_qsl(query) if name in _SECRETS]
    user, at, _ = (url.partition("://")[2] or url).partition("?")[0].rpartition("@")
    if at:
        _, _, password = user.partition(":")
        secrets += [password, unquote(password)]
    for secret in secrets:
        register(secret)


def _what_is_wrong(url: str) -> str:
    """Return what keeps an address from being one; "" for nothing."""
    if "#" in url:
        return "a # in a password is written %23"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # it is read from the text just now
    except ValueError as error:
        return str(error)
    if not url.startswith(f"{parts.scheme}://"):
        return f"it begins with none of {', '.join(f'{scheme}://' for scheme in SCHEMES)}"
    is_file, place = parts.scheme == "unix", parts.path.strip("/")
    told = {
        f"{parts.scheme}:// is none of {', '.join(SCHEMES)}": parts.scheme not in SCHEMES,
        "the path of the socket is missing": is_file and not place,
        "the host is missing": not is_file and not parts.hostname,
        f"a database has a number, got {place!r}": not is_file and place and not place.isdecimal(),
    }
    options = (_wrong_option(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True))
    return next((text for text, is_so in told.items() if is_so), "") or next(filter(None, options), "")


def _wrong_option(name: str, value: str) -> str:
    if name not in _OPTIONS:
        return f"{name}= is none of its options: {', '.join(_OPTIONS)}"
    if name in _FILES and not Path(value).exists():
        return f"{name}={value} does not exist"
    return f"db= must be a number, got {value!r}" if name == "db" and not value.isdecimal() else ""
