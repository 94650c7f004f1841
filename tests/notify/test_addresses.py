"""Addresses are the user's alone: their file is, and no text of ours holds one."""

import os
import subprocess
import sys

import pytest

from ipybatch import notify
from ipybatch.engine.data.masking import mask
from ipybatch.errors import InputError, MissingExtra
from ipybatch.notify import addresses, channel_list

MAIL = "mailto://ana:hunter2-pass@mail.example.org?to=team-list@example.org"
SECRET = "sixteen-characters-or-more"


def test_names_and_kinds_are_listed_and_no_address():
    notify.add_channel("team-mail", MAIL)
    notify.add_channel("hook", "json+https://example.org/in", secret=SECRET)
    notify.add_channel("here", "desktop://")
    notify.add_channel("chat", "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#ops")
    assert notify.channels() == {"chat": "slack", "here": "desktop", "hook": "webhook", "team-mail": "mail"}
    assert repr(addresses.load("team-mail")) == "<channel 'team-mail': mail>"


def test_the_file_is_the_users_alone(config):
    notify.add_channel("here", "desktop://")
    assert (config / "channels.toml").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.name == "nt", reason="modes of files are another thing there")
def test_a_file_that_others_can_read_is_refused_with_what_to_do(config):
    notify.add_channel("here", "desktop://")
    (config / "channels.toml").chmod(0o640)
    with pytest.raises(InputError, match=r"run chmod 600 .*channels\.toml"):
        notify.channels()


@pytest.mark.parametrize("written", ['[a]\nurl = "mailto://x:hunter2-pass@h"\noops', "a = 1", "[a]\nkind = 'mail'"])
def test_a_broken_file_is_told_without_what_it_holds(config, written):
    notify.add_channel("here", "desktop://")
    (config / "channels.toml").write_text(written)
    with pytest.raises(InputError, match=r"channels\.toml") as caught:
        notify.channels()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        MAIL,
        "hunter2-pass",
        "ana@mail.example.org",
        "team-list@example.org",
        "TIiajkdnlazkcOXrIdevi7FQ",
        "/T1JJ3T3L2/A1BRTD4JD/",
        "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
        SECRET,
        "https://example.org/in/Kq81mX20pw",
    ],
)
def test_an_address_and_its_parts_are_masked_everywhere(text):
    notify.add_channel("team-mail", MAIL)
    notify.add_channel("chat", "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#ops")
    notify.add_channel("phone", "tgram://110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/9223372036")
    notify.add_channel("hook", "json+https://example.org/in/Kq81mX20pw", secret=SECRET)
    assert text not in mask(f"it was sent to {text} just now")


def test_ordinary_words_stay_though_they_stand_in_an_address():
    notify.add_channel("team-mail", "mailto://team:hunter2-pass@localhost?to=ana@example.org")
    notify.add_channel("hook", "json+https://example.org/ipybatch/notifications?format=markdown", secret=SECRET)
    text = "the team of localhost at 127.0.0.1, /ipybatch/api/v1, notifications in markdown"
    assert mask(text) == text


@pytest.mark.parametrize(
    ("url", "secret", "why"),
    [
        ("hello", None, "must be an address such as"),
        ("json+http://example.org/in", SECRET, "must begin with json\\+https"),
        ("json+https://example.org/in", None, "secret .* 16 characters"),
        ("json+https://example.org/in", "short", "secret .* 16 characters"),
        ("json+https://me:hunter2-pass@example.org/in", SECRET, "with no user"),
        ("json+https://", SECRET, "must be json\\+https://host/path"),
        ("json+https://example.org:notaport/in", SECRET, "must be json\\+https://host/path"),
        ("desktop://", SECRET, "secret is for webhooks"),
        ("nosuchservice://hunter2-pass", None, "no address that apprise understands"),
        ("mailto://", None, "no address that apprise understands"),
        (None, None, "must be an address such as"),
    ],
)
def test_what_is_no_address_is_refused_without_telling_it(url, secret, why):
    with pytest.raises(InputError, match=why) as caught:
        notify.add_channel("new", url, secret=secret)
    assert "hunter2" not in str(caught.value)
    assert notify.channels() == {}


@pytest.mark.parametrize("name", ["", "two words", "a/b", "-x", "x" * 65, None, 7])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InputError, match="name must be"):
        notify.add_channel(name, "desktop://")


def test_a_name_is_taken_unless_it_is_replaced():
    notify.add_channel("here", "desktop://")
    with pytest.raises(InputError, match="replace=True"):
        notify.add_channel("here", MAIL)
    notify.add_channel("here", MAIL, replace=True)
    assert notify.channels() == {"here": "mail"}


def test_what_is_removed_is_gone_from_the_file(config):
    notify.add_channel("team-mail", MAIL)
    notify.remove_channel("team-mail")
    assert "hunter2" not in (config / "channels.toml").read_text()
    with pytest.raises(InputError, match="there are none yet"):
        notify.remove_channel("team-mail")


class Keyring:
    """The system's store, as keyring's functions tell it."""

    def __init__(self):
        self.kept = {}

    def set_password(self, service, name, password):
        self.kept[service, name] = password

    def get_password(self, service, name):
        return self.kept.get((service, name))

    def delete_password(self, service, name):
        del self.kept[service, name]


def test_an_address_in_the_keyring_is_not_in_the_file(config, monkeypatch):
    store = Keyring()
    monkeypatch.setitem(sys.modules, "keyring", store)
    notify.add_channel("team-mail", MAIL, keyring=True)
    assert "hunter2" not in (config / "channels.toml").read_text()
    assert notify.channels() == {"team-mail": "mail"}
    assert addresses.load("team-mail").url == MAIL
    notify.add_channel("team-mail", MAIL, replace=True)
    assert store.kept == {}
    notify.add_channel("team-mail", MAIL, keyring=True, replace=True)
    notify.remove_channel("team-mail")
    assert store.kept == {}


class Locked(Keyring):
    """A store that nobody has unlocked."""

    def get_password(self, service, name):
        raise RuntimeError(f"locked: {MAIL}")

    set_password = delete_password = lambda self, *given: self.get_password(*given[:2])


def test_a_keyring_that_is_locked_is_an_error_of_its_channel(monkeypatch):
    """Before anything starts, and with none of its own text."""
    monkeypatch.setitem(sys.modules, "keyring", Keyring())
    monkeypatch.setattr(addresses, "find_spec", lambda name: True)
    notify.add_channel("team-mail", MAIL, keyring=True)
    monkeypatch.setitem(sys.modules, "keyring", Locked())
    tries = [
        lambda: channel_list.check_channels(["team-mail"]),
        lambda: notify.add_channel("other", MAIL, keyring=True),
        lambda: notify.remove_channel("team-mail"),
    ]
    for attempt in tries:
        with pytest.raises(InputError, match=r"keyring cannot be used \(RuntimeError\): unlock it") as caught:
            attempt()
        assert "mailto" not in str(caught.value)
    assert notify.channels() == {"team-mail": "mail"}


@pytest.mark.parametrize("kept", ["{broken", '["a"]', ""])
def test_what_is_no_address_in_the_keyring_is_told(monkeypatch, kept):
    store = Keyring()
    monkeypatch.setitem(sys.modules, "keyring", store)
    notify.add_channel("team-mail", MAIL, keyring=True)
    store.kept = dict.fromkeys(store.kept, kept)
    with pytest.raises(InputError, match="no address in the system's keyring: add it again"):
        addresses.load("team-mail")


@pytest.mark.parametrize("url", ["//host/p\u00e4th", "//ex\u00e4mple.org/x", "//host/a b", "//host/a\nb", "//ho st/x"])
def test_what_no_request_can_hold_is_refused_at_once(url):
    with pytest.raises(InputError, match="spelt as it is sent"):
        notify.add_channel("hook", f"json+https:{url}", secret=SECRET)


def test_a_password_among_the_parameters_is_masked_by_itself():
    notify.add_channel("team-mail", "mailto://example.org?user=ana&pass=qwzxv&to=boss@example.org")
    assert mask("535 qwzxv refused") == "535 *** refused"


def test_an_unknown_channel_is_told_with_those_that_are_near():
    notify.add_channel("team-mail", MAIL)
    with pytest.raises(InputError, match="did you mean 'team-mail'"):
        channel_list.check_channels(["team-mial"])
    with pytest.raises(InputError, match="there are 'team-mail'"):
        channel_list.check_channels(["zzz"])


def test_the_package_alone_gives_what_its_messages_name(config):
    """They say ipybatch.notify.add_channel(...): nobody need import more for it."""
    code = "import ipybatch; ipybatch.notify.add_channel('here', 'desktop://'); print(ipybatch.notify.channels())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "{'here': 'desktop'}\n"


def test_a_missing_extra_is_named(monkeypatch):
    """A webhook needs none; a mail needs apprise, and says so before anything starts."""
    notify.add_channel("team-mail", MAIL)
    notify.add_channel("hook", "json+https://example.org/in", secret=SECRET)
    monkeypatch.setattr(addresses, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "apprise", None)
    channel_list.check_channels(["hook"])
    assert channel_list.not_here() == ["team-mail"]
    with pytest.raises(MissingExtra, match=r'pip install "ipybatch\[notify\]"'):
        channel_list.check_channels(["team-mail"])
    with pytest.raises(MissingExtra, match=r'pip install "ipybatch\[notify\]"'):
        notify.add_channel("other", MAIL)
