"""What a page says past the cells of a Python in a browser; tests/lite does the same in a real one."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from ipybatch.jupyter import broadcast


class Channel:
    """A browser's BroadcastChannel."""

    made: list[Channel]

    def __init__(self, name):
        self.name = name
        self.made.append(self)

    def hear(self, data):
        self.onmessage(SimpleNamespace(data=data))


@pytest.fixture
def channels(monkeypatch):
    """The channels that are opened in a Python that says it is in a browser."""
    Channel.made = []
    browser, ffi = ModuleType("js"), ModuleType("pyodide.ffi")
    browser.BroadcastChannel = SimpleNamespace(new=Channel)
    ffi.create_proxy = lambda function: function
    for name, module in {"js": browser, "pyodide": ModuleType("pyodide"), "pyodide.ffi": ffi}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "platform", "emscripten")
    monkeypatch.setattr(broadcast, "_open", [])
    return Channel.made


def test_functions_are_called_by_their_names(channels):
    heard = []
    functions = {"act": heard.append, "hear": lambda panel, message: heard.append((panel, message))}
    broadcast.listen(functions)
    broadcast.listen(functions)
    (channel,) = channels
    assert channel.name == "ipybatch"
    channel.hear(json.dumps(["act", "panel/1/pause"]))
    channel.hear(json.dumps(["hear", "panel", "{}"]))
    assert heard == ["panel/1/pause", ("panel", "{}")]


@pytest.mark.parametrize("strange", ["", "{", "[]", "7", '["exit"]', '["act"]', '["act", "a", "b"]', None])
def test_what_others_say_is_left_alone(channels, strange):
    def act(command):
        pytest.fail(command)

    broadcast.listen({"act": act})
    channels[0].hear(strange)


def test_other_pythons_listen_to_nothing(monkeypatch):
    monkeypatch.setattr(broadcast, "_open", [])
    broadcast.listen({})
    assert broadcast._open == []
