"""People: mail, desktop and a hundred services, by apprise.

Rule: nothing that apprise, or what it sends with, would log while it sends
reaches any handler: at DEBUG apprise prints whole addresses, and urllib3 paths,
which are passwords with some services.  What apprise warns of is the reason
that `NotSent` tells, without the address.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ipybatch.engine.data.masking import mask
from ipybatch.errors import InputError, MissingExtra
from ipybatch.notify.addresses import DESKTOP, MAIL, Channel
from ipybatch.notify.parcel import NotSent, Parcel, reason_of

CONNECT_S, READ_S = 10.0, 30.0  # apprise's own 4 s are short
MAIL_S = 60.0  # for each answer of a mail server, which reads an attachment before it takes the mail
MAILS_S = 90.0  # no further mail of a message is begun after so long: its lease would end
_DESKTOPS = {"darwin": ("macosx://",), "win32": ("windows://",)}
_OTHER_DESKTOPS = ("dbus://", "gnome://")
_LOGGERS = ("apprise", "urllib3", "urllib3.connectionpool", "urllib3.util.retry", "requests", "httpx", "httpcore")


class _Silence(logging.Filter):
    """Keeps what is logged in threads that send; of apprise, what it warns of."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[int, list[str]] = {}  # by thread
        self._before: dict[int, BaseException | None] = {}  # what was being handled when it began

    @contextmanager
    def hold(self) -> Iterator[list[str]]:
        """Keep what this thread logs from now on, and give it."""
        apprise = logging.getLogger("apprise")
        apprise.setLevel(max(apprise.level, logging.WARNING))  # it makes the texts of lower levels for nobody
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self)  # one that is there is not added again
        thread = threading.get_ident()
        said = self._said[thread] = []
        self._before[thread] = sys.exception()
        try:
            yield said
        finally:
            del self._said[thread], self._before[thread]

    def filter(self, record: logging.LogRecord) -> bool:
        said = self._said.get(threading.get_ident())
        if said is None:
            return True
        if record.name == "apprise" and record.levelno >= logging.WARNING:
            error = sys.exception()  # apprise warns where it handles it, and would tell it at DEBUG
            is_new = error is not None and error is not self._before[threading.get_ident()]
            said.append(f"{record.getMessage()}{f' ({_cause(error)})' if is_new else ''}")
        return False


def _cause(error: BaseException | None) -> str:
    """Return what a failure was; of those of HTTP their kind alone, since their texts hold whole addresses."""
    is_plain = type(error).__module__ in ("builtins", "smtplib", "socket", "ssl")
    return type(error).__name__ if error is None or not is_plain else reason_of(error)


_silence = _Silence()


def check_address(name: str, url: str) -> None:
    """Refuse an address that apprise does not understand.

    Raises:
        InputError: It is none; the message does not hold it.
        MissingExtra: apprise is not installed.
    """
    with _silence.hold() as said:
        found = _plugin(url)
    if found is None:
        why = f" ({mask(' '.join(said[-1].split()))})" if said else ""
        where = "https://appriseit.com/services lists how each service is spelt"
        msg = f"url of channel {name!r} is no address that apprise understands here{why}: {where}"
        raise InputError(msg)


def send(channel: Channel, parcel: Parcel) -> None:
    """Send a message, once.

    Raises:
        NotSent: It was refused, or could not be sent.
        MissingExtra: apprise is not installed.
    """
    if channel.kind == DESKTOP:
        _show(channel, parcel)
        return
    with _silence.hold() as said:
        plugin = _plugin(channel.url)
        if plugin is None:
            msg = f"channel {channel.name!r} is no address that apprise understands here"
            raise NotSent(msg)
        if channel.kind == MAIL:
            _send_mails(plugin, channel, parcel, said)
        else:
            _send(plugin, channel, parcel, said)


def _send_mails(plugin: Any, channel: Channel, parcel: Parcel, said: list[str]) -> None:
    """Send a mail to each address of a channel, once: those that have it are not sent it again for the others' sake.

    Raises:
        NotSent: Not all have it.
    """
    addresses, reached, reasons = list(plugin.targets), list(parcel.reached), []
    plugin.headers["X-Ipybatch-Delivery"] = parcel.id
    until_s = time.monotonic() + MAILS_S
    for address in addresses:
        mark = hashlib.blake2b(f"{parcel.id} {address}".encode(), digest_size=6).hexdigest()
        if mark in reached:
            continue
        if time.monotonic() > until_s:
            break
        plugin.targets = [address]
        said.clear()
        try:
            _send(plugin, channel, parcel, said)
        except NotSent as refusal:
            reasons.append(str(refusal))
        else:
            reached.append(mark)
    if missing := len(addresses) - len(reached):
        reason = "; ".join(dict.fromkeys(reasons)) or "there was no time for the others"
        who = f"{missing} of {len(addresses)} addresses have no mail: " if len(addresses) > 1 else ""
        raise NotSent(f"{who}{reason}", reached=tuple(reached))


def _send(plugin: Any, channel: Channel, parcel: Parcel, said: list[str]) -> None:
    from apprise import AppriseAttachment, NotifyFormat, NotifyType

    types = {"finished": NotifyType.SUCCESS, "failed": NotifyType.FAILURE, "test": NotifyType.INFO}
    attached = None
    if parcel.attachment is not None and channel.kind == MAIL:
        attached = AppriseAttachment([str(parcel.attachment)], asset=plugin.asset)
    plugin.notify_format = NotifyFormat.TEXT  # a mail as HTML would run its lines together
    plugin.socket_read_timeout, plugin.socket_connect_timeout = READ_S, CONNECT_S
    if channel.kind == MAIL:
        plugin.socket_connect_timeout = MAIL_S  # smtplib has one timeout for all
        plugin.request_rate_per_sec = 0.0  # else it waits 5 seconds before each further address
    kind = types.get(parcel.kind, NotifyType.WARNING)
    # "=?" in a subject begins an encoded word (RFC 2047): a mail program would show what that decodes to.
    title = parcel.title.replace("=?", "= ?") if channel.kind == MAIL else parcel.title
    try:
        sent = plugin.notify(title=title, body=parcel.body, notify_type=kind, attach=attached)
    except Exception as error:  # of a plugin: there are hundreds
        raise NotSent(channel.redact(_cause(error))) from None
    if not sent:
        reason = "; ".join(" ".join(text.split()) for text in said[-3:]) or "it was refused, for no reason given"
        raise NotSent(channel.redact(reason))


def _plugin(url: str) -> Any:
    """Return apprise's own object for an address; None where it understands none.

    Raises:
        MissingExtra: apprise is not installed.
    """
    try:
        import apprise
    except ImportError:
        raise MissingExtra("notify") from None
    asset = apprise.AppriseAsset(
        app_id="ipybatch",
        app_desc="ipybatch",
        async_mode=False,  # in this thread, whose logging is held
        secure_logging=True,
        storage_mode=apprise.common.PersistentStoreMode.MEMORY,
    )
    return apprise.Apprise.instantiate(url, asset=asset)


def _show(channel: Channel, parcel: Parcel) -> None:
    with _silence.hold() as said:
        for url in _DESKTOPS.get(sys.platform, _OTHER_DESKTOPS):
            if (plugin := _plugin(url)) is not None:
                _send(plugin, channel, parcel, said)
                return
    program = shutil.which("notify-send")
    if program is None:
        msg = "no desktop was found that shows notifications: on Linux install libnotify (notify-send) or dbus-python"
        raise NotSent(msg)
    command = [program, "--app-name=ipybatch", "--", parcel.title, parcel.body]
    shown = subprocess.run(command, capture_output=True, timeout=CONNECT_S, check=False)  # noqa: S603  # a list, no shell
    if shown.returncode:
        raise NotSent(f"notify-send ended with {shown.returncode}: is there a desktop?")
