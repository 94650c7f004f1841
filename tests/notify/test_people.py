"""Mail and desktop: what arrives, and what of it is in no log."""

import asyncio
import contextlib
import email
import email.policy
import logging
import os
import sqlite3
import subprocess
import sys
import threading

import pytest
import requests
from aiosmtpd.smtp import SMTP, AuthResult

from ipybatch import Permanent, notify
from ipybatch.notify import delivery, people
from ipybatch.notify.addresses import Channel
from ipybatch.notify.parcel import NotSent, Parcel

PASSWORD = "hunter2-pass"
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")  # on loopback


class MailServer:
    """A mail server on loopback that wants a password, and keeps what it is sent."""

    def __init__(self):
        self.mails, self.refusal, self.delay_s = [], "", 0.0
        self.unknown = set()  # addresses
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    async def _serve(self):
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        given = {"auth_required": True, "auth_require_tls": False, "authenticator": self._authenticate}
        server = await self._loop.create_server(lambda: SMTP(self, loop=self._loop, **given), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopped.wait()
        server.close()

    def _authenticate(self, server, session, envelope, mechanism, data):
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802  # aiosmtpd's
        if address in self.unknown:
            return "450 try later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802  # aiosmtpd's
        await asyncio.sleep(self.delay_s)
        if self.refusal:
            return self.refusal
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.mails.append((envelope.rcpt_tos, mail))
        return "250 OK"

    @property
    def url(self):
        return f"mailto://ana:{PASSWORD}@127.0.0.1:{self.port}?mode=insecure&from=night@example.org&to=boss@example.org"

    def close(self):
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(20)


@pytest.fixture
def mail_server():
    server = MailServer()
    yield server
    server.close()


def work(item):
    if item == "bad":
        raise Permanent("there is no such page")
    return {"page": item, "words": len(item)}


def finish():
    delivery.deliverer.finish(20.0)


def make_due(journal):
    with contextlib.closing(sqlite3.connect(journal)) as database, database:
        database.execute("UPDATE outbox SET due_s = 0")


def attachments(mail):
    return [(part.get_filename(), part.get_content()) for part in mail.iter_attachments()]


def test_a_mail_at_the_end_has_the_results(live, mail_server):
    """A line that says it all, what to do next, and the table as `save` writes it."""
    notify.add_channel("team-mail", mail_server.url)
    session = live(work, ["one", "bad", "three"], notify="team-mail")
    session.run()
    finish()
    ((recipients, mail),) = mail_server.mails
    assert recipients == ["boss@example.org"]
    assert mail["Subject"] == "wishlist completed: 2/3 successful, 1 failed, 0 skipped"
    assert mail.get_body().get_content_type() == "text/plain"
    text = mail.get_body().get_content()
    facts = [line.partition(":")[0] for line in text.splitlines()]
    assert [fact for fact in facts if fact != "Duration"] == ["First error", "Next"]  # told from a tenth of a second on
    assert "First error: there is no such page" in text
    assert "BatchSession.open" in text
    ((name, content),) = attachments(mail)
    assert name == "wishlist.csv"
    lines = (content if isinstance(content, str) else content.decode()).split()
    assert lines[0] == "key,status,attempts,seconds,error,page,words"
    assert lines[1].startswith("one,completed,1,")


def test_a_name_that_looks_encoded_is_shown_as_it_is(live, mail_server):
    """Mail programs would decode it, and show another name."""
    notify.add_channel("team-mail", mail_server.url)
    live(work, ["one"], name="=?utf-8?q?a=0D=0ABcc:_e@x?=", notify="team-mail").run()
    finish()
    ((recipients, mail),) = mail_server.mails
    assert recipients == ["boss@example.org"]
    assert mail["Subject"].startswith("= ?utf-8?q?a=0D=0ABcc:_e@x?= completed: 1/1")


@pytest.mark.parametrize(("most_mb", "attached"), [(0, 0), (0.0001, 0), (1, 1)])
def test_results_are_attached_below_a_size(live, mail_server, most_mb, attached):
    notify.add_channel("team-mail", mail_server.url)
    live(work, [f"page {number}" for number in range(20)], notify=notify.Notify("team-mail", attach_mb=most_mb)).run()
    finish()
    ((_, mail),) = mail_server.mails
    assert len(attachments(mail)) == attached


def test_a_process_without_sessions_attaches_them_too(live, mail_server, monkeypatch):
    """Such as a script of the user's that delivers."""
    notify.add_channel("team-mail", mail_server.url)
    monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: None)
    session = live(work, ["one"], notify="team-mail")
    session.run()
    code = f"from ipybatch import notify; print(notify.deliver({str(session.journal)!r}))"
    sent = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert sent == "1\n"
    assert len(attachments(mail_server.mails[0][1])) == 1


def test_what_went_on_since_is_not_attached(live, mail_server, monkeypatch):
    """They would be the results of another start than the mail tells of."""
    notify.add_channel("team-mail", mail_server.url)
    with monkeypatch.context() as patch:
        patch.setattr(delivery.Deliverer, "wake", lambda self, path: None)
        live(work, ["one"], notify="team-mail").run()
        session = live(work, ["one", "two"], notify="team-mail")
        session.run()
    assert notify.deliver(session.journal) == 2
    first, second = (attachments(mail) for _, mail in mail_server.mails)
    assert first == []
    assert "two,completed" in str(second[0][1])


def test_a_mail_that_is_refused_says_why_without_addresses(live, mail_server):
    mail_server.refusal = "552 the mailbox of boss@example.org is full"
    notify.add_channel("team-mail", mail_server.url)
    session = live(work, ["one"], notify="team-mail")
    session.run()
    finish()
    error = notify.outbox(session.journal)["error"][0]
    assert error
    for hidden in (PASSWORD, "boss@", "127.0.0.1"):
        assert hidden not in error


def test_who_has_a_mail_is_not_sent_it_again_for_others_sake(live, mail_server):
    """Also by another process: the journal knows who has it, by marks that name nobody."""
    notify.add_channel("team-mail", mail_server.url.replace("boss@example.org", "ana@example.org,bo@example.org"))
    mail_server.unknown = {"bo@example.org"}
    session = live(work, ["one"], notify="team-mail")
    session.run()
    finish()
    error = notify.outbox(session.journal)["error"][0]
    assert error.startswith("1 of 2 addresses have no mail: ")
    make_due(session.journal)
    assert notify.deliver(session.journal) == 0
    assert [recipients for recipients, _ in mail_server.mails] == [["ana@example.org"]]
    mail_server.unknown = set()
    make_due(session.journal)
    code = f"from ipybatch import notify; print(notify.deliver({str(session.journal)!r}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
    assert [recipients for recipients, _ in mail_server.mails] == [["ana@example.org"], ["bo@example.org"]]
    assert len({mail["X-Ipybatch-Delivery"] for _, mail in mail_server.mails}) == 1
    assert b"example.org" not in session.journal.read_bytes()


def test_a_mail_server_that_takes_its_time_is_sent_a_mail_once(live, mail_server, monkeypatch):
    """It looks through the attachment before it says that it has the mail."""
    monkeypatch.setattr(people, "CONNECT_S", 0.05)
    mail_server.delay_s = 0.5
    notify.add_channel("team-mail", mail_server.url)
    session = live(work, ["one"], notify="team-mail")
    session.run()
    finish()
    assert notify.outbox(session.journal)[["state", "attempts"]].values.tolist() == [["sent", 1]]
    assert len(mail_server.mails) == 1


def test_a_mail_server_that_cannot_be_used_says_why(mail_server):
    """Not only that it failed."""
    notify.add_channel("plain", mail_server.url.replace("mode=insecure", "mode=starttls"))
    with pytest.raises(NotSent, match="STARTTLS extension not supported"):
        notify.test_channel("plain")
    notify.add_channel("gone", mail_server.url.replace(str(mail_server.port), "1"))
    with pytest.raises(NotSent, match="Connection refused"):
        notify.test_channel("gone")


def test_the_cause_of_a_service_holds_no_address():
    """Texts of HTTP clients hold whole addresses, of which the path is a password with some."""
    error = requests.ConnectionError("HTTPSConnectionPool(host='hooks.example.org'): url: /services/short/T0ken")
    with people._silence.hold() as said:
        try:
            raise error
        except OSError:
            logging.getLogger("apprise").warning("it failed")
        logging.getLogger("apprise").warning("and again")
    assert said == ["it failed (ConnectionError)", "and again"]


def test_what_was_being_handled_before_is_no_cause():
    try:
        raise RuntimeError("another matter")
    except RuntimeError:
        with people._silence.hold() as said:
            logging.getLogger("apprise").warning("it failed")
    assert said == ["it failed"]


def test_a_wrong_password_is_told_and_not_shown(mail_server):
    notify.add_channel("team-mail", mail_server.url.replace(PASSWORD, "another-secret-1"))
    with pytest.raises(NotSent) as caught:
        notify.test_channel("team-mail")
    assert "another-secret-1" not in str(caught.value)


def test_a_channel_can_be_tried(mail_server):
    notify.add_channel("team-mail", mail_server.url)
    notify.test_channel("team-mail")
    assert mail_server.mails[0][1]["Subject"] == "ipybatch: a test of this channel"


def test_nothing_is_logged_while_a_mail_is_sent(mail_server, caplog):
    """At DEBUG apprise prints addresses, whatever a user has set its logger to."""
    caplog.set_level(logging.DEBUG)
    logging.getLogger("apprise").setLevel(logging.DEBUG)
    notify.add_channel("team-mail", mail_server.url)
    notify.test_channel("team-mail")
    assert logging.getLogger("apprise").level > logging.DEBUG
    assert [record for record in caplog.records if record.name.startswith(("apprise", "urllib3"))] == []


def test_what_other_threads_log_meanwhile_is_theirs(caplog):
    caplog.set_level(logging.DEBUG)
    with people._silence.hold() as said:
        logging.getLogger("urllib3.connectionpool").warning("ours")
        thread = threading.Thread(target=lambda: logging.getLogger("urllib3.connectionpool").warning("theirs"))
        thread.start()
        thread.join()
        logging.getLogger("apprise").warning("a reason")
    assert [record.getMessage() for record in caplog.records] == ["theirs"]
    assert said == ["a reason"]


@pytest.mark.skipif(sys.platform != "linux", reason="another program there")
def test_a_desktop_is_told_by_its_own_program(tmp_path, monkeypatch):
    """Texts are arguments of their own: no shell, and none that begins with a dash is an option."""
    program, told = tmp_path / "notify-send", tmp_path / "told"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {told}\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(people, "_OTHER_DESKTOPS", ())
    channel = Channel(name="here", kind="desktop", url="desktop://")
    people.send(channel, Parcel(id="1", kind="finished", title="-rm; $(true) done", body="all of it", at_s=0.0))
    assert told.read_text().splitlines() == ["--app-name=ipybatch", "--", "-rm; $(true) done", "all of it"]


def test_a_machine_without_a_desktop_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(people, "_OTHER_DESKTOPS", ())
    monkeypatch.setattr(people, "_DESKTOPS", {sys.platform: ()})
    monkeypatch.setenv("PATH", "/nonexistent")
    notify.add_channel("here", "desktop://")
    with pytest.raises(NotSent, match="notify-send"):
        notify.test_channel("here")
