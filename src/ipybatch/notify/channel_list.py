"""Channel list: the names that sessions use, made, listed and removed by their user."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ipybatch.engine.data.plan import short
from ipybatch.engine.store.config_folder import writing
from ipybatch.errors import InputError, MissingExtra
from ipybatch.notify import people, rests
from ipybatch.notify.addresses import (
    DESKTOP,
    NAME,
    WEBHOOK,
    checked,
    forget_in_keyring,
    keep_in_keyring,
    kind_of,
    load,
    read_rows,
    unknown,
    why_not_here,
    write_rows,
)


def add_channel(
    name: str, url: str, *, secret: str | None = None, keyring: bool = False, replace: bool = False
) -> None:
    """Keep an address under a name, for ``notify=`` of sessions.

    Args:
        name: What sessions call it, such as "team-mail".
        url: ``json+https://host/path`` for a webhook of your own, ``desktop://`` for this machine's desktop,
            ``mailto://user:password@host`` and any other address of apprise (https://appriseit.com/services).
        secret: What a webhook is signed with, 16 characters or more, such as ``secrets.token_urlsafe(32)``.
        keyring: Keep the address in the system's own store of passwords, not in a file of yours alone.
        replace: Take the place of a channel of this name.

    Raises:
        InputError: The name is taken or none, or the address is not what it must be; the message does not hold it.
            Or the system's keyring is locked.
        MissingExtra: apprise or keyring is not installed.
        OSError: The file cannot be written.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        msg = f"name must be 1 to 64 letters, digits, dots, dashes or underscores, got {short(name)}"
        raise InputError(msg)
    with writing():
        rows = read_rows()
        if name in rows and not replace:
            msg = f"name must be new, and {name!r} is a channel: pass replace=True, or choose another"
            raise InputError(msg)
        channel = checked(name, url, secret or "")
        if channel.kind not in (WEBHOOK, DESKTOP):
            people.check_address(name, url)
        told: dict[str, Any] = {"url": url} | ({"secret": secret} if secret else {})
        if keyring:
            keep_in_keyring(name, told)
            told = {"kind": channel.kind, "keyring": True}
        elif rows.get(name, {}).get("keyring"):
            forget_in_keyring(name)
        write_rows({**rows, name: told})
        rests.end(name)


def remove_channel(name: str) -> None:
    """Forget a channel, and its address.

    Raises:
        InputError: There is none of that name, or the system's keyring is locked.
        MissingExtra: Its address is in the system's keyring, and keyring is not installed.
        OSError: The file cannot be written.
    """
    with writing():
        rows = read_rows()
        if name not in rows:
            raise unknown("name", name, rows)
        if rows[name].get("keyring"):
            forget_in_keyring(name)
        write_rows({other: told for other, told in rows.items() if other != name})
        rests.end(name)


def channels() -> dict[str, str]:
    """Return the kind of each channel, by name: never an address.

    Raises:
        InputError: The file is not what it must be, or others can read it.
    """
    return {name: kind_of(told) for name, told in sorted(read_rows().items())}


def check_channels(names: Iterable[str], field: str = "notify") -> None:
    """Refuse names of channels that there are not, and channels that cannot be used here.

    Raises:
        InputError: Names the one, and those that are near; or says what is wrong with it.
        MissingExtra: What it needs is not installed.
    """
    rows = read_rows()
    for name in names:
        if name not in rows:
            raise unknown(field, name, rows)
        if why_not_here(name, rows) is not None:
            raise MissingExtra("notify")
        load(name, rows)


def not_here() -> list[str]:
    """Return the channels that this process cannot use: another one may have what they need.

    Raises:
        InputError: The file is not what it must be, or others can read it.
    """
    rows = read_rows()
    return [name for name in rows if why_not_here(name, rows) is not None]
