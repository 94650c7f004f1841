"""Addresses: what is behind the names of channels, in a file of the user's alone.

    channels.toml in the user's configuration folder, 0600      [team-mail]
                                                                url = "mailto://..."
    or in the system's own store (keyring)                      [team-mail]
                                                                kind = "mail"
                                                                keyring = true

Rule: an address, or any part of it that would do as one, is registered with
masking before anybody has it.  Journals, logs and views hold names.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from ipybatch.engine.data.masking import MASK, mask, register
from ipybatch.engine.data.plan import short
from ipybatch.engine.store.config_folder import config_folder, write_private
from ipybatch.errors import InputError, MissingExtra

WEBHOOK, MAIL, DESKTOP = "webhook", "mail", "desktop"
SHORTEST_SECRET = 16  # characters of what a webhook is signed with

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31})://")
_KINDS = {"json+https": WEBHOOK, "json+http": WEBHOOK, "mailto": MAIL, "mailtos": MAIL, "desktop": DESKTOP}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SENDABLE = re.compile(r"[!-~]+")
_PLAIN_HOST = re.compile(r"[A-Za-z.-]*|[0-9.]+|\[?[0-9a-fA-F:]+\]?|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_PASSWORD = re.compile(r"(?i)pass|pwd|token|secret|key")  # in the name of a parameter
_LONG, _LONGEST_WORD = 8, 20  # characters of a part that is masked wherever it turns up
SERVICE = "ipybatch"  # in the keyring


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """A channel with its address.

    Attributes:
        kind: "webhook", "mail", "desktop", or the name of a service as apprise has it, such as "slack".
        secret: What a webhook is signed with; "" for other kinds.
    """

    name: str
    kind: str
    url: str
    secret: str = ""

    def __repr__(self) -> str:
        return f"<channel {self.name!r}: {self.kind}>"

    def redact(self, text: str) -> str:
        """Return a text without this address: also without its host, which stands in other texts rightly."""
        text = mask(text)
        host = urlsplit(self.url).hostname or ""
        return text.replace(host, MASK) if len(host) > 3 else text


def load(name: str, rows: Mapping[str, dict[str, Any]] | None = None) -> Channel:
    """Return a channel with its address, which is masked everywhere from now on.

    Raises:
        InputError: There is no such channel, or it is not what it must be.
        MissingExtra: Its address is in the system's keyring, and keyring is not installed.
    """
    rows = read_rows() if rows is None else rows
    if name not in rows:
        raise unknown("channel", name, rows)
    told = rows[name]
    if told.get("keyring"):
        with _keyring_of(name) as store:
            kept = store.get_password(SERVICE, name)
        try:
            told = msgspec.json.decode(kept or "", type=dict[str, Any])
        except msgspec.DecodeError:
            msg = f"channel {name!r} has no address in the system's keyring: add it again"
            raise InputError(msg) from None
    return checked(name, told.get("url"), str(told.get("secret", "")))


def why_not_here(name: str, rows: Mapping[str, dict[str, Any]]) -> str | None:
    """Return the package that a channel needs and that is not installed; None for none."""
    if kind_of(rows[name]) != WEBHOOK and find_spec("apprise") is None:
        return "apprise"
    return "keyring" if rows[name].get("keyring") and find_spec("keyring") is None else None


def path() -> Path:
    """Return where channels are kept."""
    return config_folder() / "channels.toml"


def kind_of(told: Mapping[str, Any]) -> str:
    """Return the kind of a channel, from its row; "" for no address."""
    if told.get("keyring"):
        return str(told.get("kind", ""))
    found = _SCHEME.match(str(told.get("url", "")))
    scheme = found[1].lower() if found else ""
    return _KINDS.get(scheme, scheme)


def checked(name: str, url: Any, secret: str) -> Channel:
    """Return a channel with what is known of it; its address is registered first, whatever is wrong with it.

    Raises:
        InputError: It is not what it must be.
    """
    _register(url if isinstance(url, str) else "", secret)
    kind = kind_of({"url": url})
    if not kind:
        msg = f"url of channel {name!r} must be an address such as mailto://..., json+https://... or desktop://"
        raise InputError(msg)
    if kind == WEBHOOK:
        _check_webhook(name, url, secret)
    elif secret:
        msg = f"secret is for webhooks (json+https://), and channel {name!r} is {kind}: leave it out"
        raise InputError(msg)
    return Channel(name=name, kind=kind, url=url, secret=secret)


def _check_webhook(name: str, url: str, secret: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not _SENDABLE.fullmatch(url):
        msg = f"url of channel {name!r} must be spelt as it is sent: a space as %20, other letters as %C3%A4 or xn--"
        raise InputError(msg)
    if not host or parts.username is not None or parts.fragment:
        msg = f"url of channel {name!r} must be json+https://host/path, with no user and no fragment"
        raise InputError(msg)
    if parts.scheme.lower() == "json+http" and host not in LOOPBACK:
        msg = f"url of channel {name!r} must begin with json+https://: json+http:// is for this machine alone"
        raise InputError(msg)
    if len(secret) < SHORTEST_SECRET:
        how = "such as secrets.token_urlsafe(32); its receiver checks the signature with it"
        msg = f"secret of channel {name!r} must have {SHORTEST_SECRET} characters or more, {how}"
        raise InputError(msg)


def _register(url: str, secret: str) -> None:
    """Mask an address and its parts: whoever has a token out of its path may write there, too."""
    register(secret if len(secret) >= SHORTEST_SECRET else None)  # a shorter one is refused, and may be any word
    register(url if "://" in url and len(url) > len("desktop://") else None)
    try:
        parts = urlsplit(url)
        user, password, host = parts.username or "", parts.password or "", parts.hostname or ""
    except ValueError:
        return
    found = [password, unquote(password), f"{unquote(user)}@{host}" if user and host else ""]
    found += [part for part in (user, unquote(user)) if "@" in part or not part.isalpha()]
    if not _PLAIN_HOST.fullmatch(parts.netloc.partition(":")[0]) or "@" in parts.netloc:
        found.append(parts.netloc)
    found += [value for key, value in parse_qsl(parts.query) if _PASSWORD.search(key)]
    texts = [*parts.path.split("/"), *(value for _, value in parse_qsl(parts.query)), parts.fragment]
    pieces = [piece for text in texts for piece in re.split(r"[,;\s]", unquote(text)) if _is_telling(piece)]
    found += pieces
    found += [text for text in (*texts, parts.path, parts.query) if any(piece in unquote(text) for piece in pieces)]
    for text in found:
        register(text)


def _is_telling(piece: str) -> bool:
    """Say whether a part of an address is somebody's, or a token: words such as "notifications" stay as they are."""
    is_mixed = any(map(str.isdigit, piece)) and any(map(str.isalpha, piece))
    return "@" in piece or (len(piece) >= _LONG and is_mixed) or len(piece) >= _LONGEST_WORD


def unknown(field: str, name: Any, rows: Iterable[str]) -> InputError:
    """Return what is said of a name that is no channel's."""
    near = difflib.get_close_matches(str(name), list(rows), n=3, cutoff=0.5)
    those = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
    others = f"there are {', '.join(map(repr, sorted(rows)))}" if rows else "there are none yet"
    how = 'ipybatch.notify.add_channel(name, "mailto://...") makes one'
    return InputError(f"{field} must name a channel, got {short(name)}: {those or f'{others}; {how}'}")


def read_rows() -> dict[str, dict[str, Any]]:
    """Return the rows of the file.

    Raises:
        InputError: It is not what it must be, or others can read it.
    """
    at = path()
    try:
        found = at.stat()
        text = "" if os.name != "nt" and _is_open(found) else at.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{at} cannot be read: {getattr(error, 'strerror', None) or 'it is no text in UTF-8'}"
        raise InputError(msg) from None
    if os.name != "nt" and _is_open(found):
        msg = f"{at} holds addresses and passwords, and others can read or change it: run chmod 600 {at}"
        raise InputError(msg)
    try:
        rows = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at [^)]*\)", str(error))  # the rest may quote the line
        msg = f"{at} is not valid TOML {where[0] if where else ''}".rstrip()
        raise InputError(msg) from None
    for name, told in rows.items():
        if not isinstance(told, dict) or not (told.get("keyring") or isinstance(told.get("url"), str)):
            msg = f"{at}: channel {name!r} must be a table with a url, or with keyring = true"
            raise InputError(msg)
    return rows


def _is_open(found: os.stat_result) -> bool:
    return bool(stat.S_IMODE(found.st_mode) & 0o077) or found.st_uid != os.geteuid()


def write_rows(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the rows of the file, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    import tomli_w

    write_private(path(), tomli_w.dumps(dict(rows)))


@contextmanager
def _keyring_of(name: str) -> Iterator[Any]:
    """Give keyring; whatever its hundred stores raise is told of the channel, without their texts.

    Raises:
        InputError: It cannot be used just now.
        MissingExtra: It is not installed.
    """
    try:
        import keyring
    except ImportError:
        raise MissingExtra("notify") from None
    try:
        yield keyring
    except Exception as error:
        what = f"channel {name!r}: the system's keyring cannot be used ({type(error).__name__})"
        msg = f"{what}: unlock it, or add the channel again without keyring=True"
        raise InputError(msg) from None


def keep_in_keyring(name: str, told: Mapping[str, Any]) -> None:
    """Keep an address in the system's own store.

    Raises:
        InputError: It is locked, or there is none.
        MissingExtra: keyring is not installed.
    """
    with _keyring_of(name) as store:
        store.set_password(SERVICE, name, msgspec.json.encode(told).decode())


def forget_in_keyring(name: str) -> None:
    """Delete an address from the system's own store.

    Raises:
        InputError: It is locked, or there is none.
        MissingExtra: keyring is not installed.
    """
    with _keyring_of(name) as store:
        if store.get_password(SERVICE, name) is not None:
            store.delete_password(SERVICE, name)
