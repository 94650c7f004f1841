"""Command line: ``python -m ipybatch notify list|add|test|remove|outbox|deliver``.

Rule: an address is read from a prompt that shows nothing, or from standard
input: arguments of a program stand in the history of the shell, and in every
user's list of processes.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path
from typing import Any

from ipybatch.engine.data.masking import mask, printable
from ipybatch.errors import InputError
from ipybatch.notify import addresses
from ipybatch.notify.addresses import WEBHOOK
from ipybatch.notify.channel_list import add_channel, channels, remove_channel
from ipybatch.notify.delivery import deliver, read_messages, test_channel
from ipybatch.notify.texts import moment

_VERBS = {
    "list": "list the channels, by name and kind",
    "add": "keep an address under a name; it is asked for, or read from standard input",
    "test": "send a message to a channel now",
    "remove": "forget a channel, and its address",
    "outbox": "list the latest messages, and what became of them",
    "deliver": "send what is due, and what other processes left: for cron, where no Jupyter server runs",
}


def add_parser(verbs: Any) -> None:
    """Add the command to others.

    Args:
        verbs: As `argparse` makes them for commands.
    """
    told = "channels that tell people and programs how sessions end"
    made = verbs.add_parser("notify", help=told, description=f"{told[0].upper()}{told[1:]}.")
    actions = made.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action, help_ in _VERBS.items():
        one = actions.add_parser(action, help=help_, description=f"{help_[0].upper()}{help_[1:]}.")
        if action in ("add", "test", "remove"):
            one.add_argument("channel", metavar="NAME", help="of the channel")
        if action == "add":
            one.add_argument("--keyring", action="store_true", help="keep it in the system's store of passwords")
            one.add_argument("--replace", action="store_true", help="take the place of a channel of this name")
        if action in ("outbox", "deliver"):
            one.add_argument("--journal", type=Path, metavar="PATH", help="only this journal")


def execute(given: argparse.Namespace) -> list[str]:
    """Do what was asked, and return what is to be written.

    Raises:
        BatchError: It is not possible; says why.
        OSError: The file of channels cannot be written.
    """
    if given.action == "add":
        return _add(given.channel, keyring=given.keyring, replace=given.replace)
    if given.action == "test":
        test_channel(given.channel)
        return [f"{given.channel}: sent"]
    if given.action == "remove":
        remove_channel(given.channel)
        return [f"{given.channel}: removed"]
    if given.action == "outbox":
        return _outbox(given.journal)
    if given.action == "deliver":  # of nothing it says nothing: cron would mail that, each time
        return [f"{sent:,} message{'' if sent == 1 else 's'} sent"] if (sent := deliver(given.journal)) else []
    found = channels()
    width = max(map(len, found), default=0)
    return [f"{name:{width}}  {kind}" for name, kind in found.items()] or ["no channels"]


def _add(name: str, *, keyring: bool, replace: bool) -> list[str]:
    url = _ask("Address, such as mailto://user:password@host or json+https://host/path: ")
    kind = addresses.kind_of({"url": url})
    secret = _ask("Secret that its messages are signed with, 16 characters or more: ") if kind == WEBHOOK else None
    add_channel(name, url, secret=secret, keyring=keyring, replace=replace)
    return [f"{name}: kept; python -m ipybatch notify test {name} tries it"]


def _ask(prompt: str) -> str:
    """Return a line that nobody sees.

    Raises:
        InputError: There is none.
    """
    if sys.stdin is None:
        line = ""
    elif sys.stdin.isatty():
        line = getpass.getpass(prompt)
    else:
        line = sys.stdin.readline()
    if not line.strip():
        msg = "the address must be given at the prompt or on standard input, a line each for it and for the secret"
        raise InputError(msg)
    return line.strip()


def _outbox(journal: Path | None) -> list[str]:
    lines = []
    for message in read_messages(journal):
        tries = f" ({message.attempts} attempt{'' if message.attempts == 1 else 's'}): " if message.error else ""
        facts = moment(message.created_s), message.notice.name, message.kind, message.channel, message.state
        lines.append(mask(printable(f"{'  '.join(facts)}{tries}{message.error}")))
    return lines or ["no messages"]
