"""Notifications: people and programs are told what becomes of a session, also when nobody looks.

    BatchSession(..., notify="team-mail")      a name of a channel; addresses are in a file of the user's alone

Read in this order:

channel_list   names of channels: made, listed, removed
addresses      what is behind them, in the user's own file or the system's keyring
texts          what people read
webhook        what programs are sent: signed JSON with the session as the REST API has it
rests          receivers that asked to be left alone, and until when
people         mail, desktop and a hundred services, by apprise
delivery       what is due is sent, from the session's process, a Jupyter server or the command line

The messages themselves are rows of the journal (`engine/store/outbox`), written with what they tell.
"""

from __future__ import annotations

from ipybatch.engine.data.notice import Notify
from ipybatch.notify.channel_list import add_channel, channels, remove_channel
from ipybatch.notify.delivery import deliver, outbox, test_channel
from ipybatch.notify.parcel import NotSent
from ipybatch.notify.webhook import verify

__all__ = [
    "NotSent",
    "Notify",
    "add_channel",
    "channels",
    "deliver",
    "outbox",
    "remove_channel",
    "test_channel",
    "verify",
]
