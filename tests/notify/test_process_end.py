"""A process that ends leaves no message half sent: another one would send it once more."""

import threading

from ipybatch import BatchSession, notify
from ipybatch.notify import delivery


def work(item):
    return item


def test_what_is_being_sent_is_waited_for_and_nothing_more_is_begun(journal, hook, monkeypatch):
    let_go, send = threading.Event(), delivery.webhook.send

    def wait(channel, parcel):
        assert let_go.wait(20)
        send(channel, parcel)

    monkeypatch.setattr(delivery.webhook, "send", wait)
    monkeypatch.setattr(delivery, "TO_ONE", 1)
    for name in ("first", "second"):
        BatchSession(name, work, [1], journal=journal, notify="hook").run(verbose=False)
    ending = threading.Thread(target=delivery.deliverer.finish, args=(0.05, 20.0))
    ending.start()
    assert delivery.deliverer._is_ending.wait(20)
    let_go.set()
    ending.join(20)
    assert notify.outbox(journal)[["session", "state", "attempts"]].values.tolist() == [
        ["first", "sent", 1],
        ["second", "waiting", 0],
    ]
    delivery.deliverer.wake(journal)  # it was no end: the process goes on
    delivery.deliverer.finish(20.0)
    assert len(hook.requests) == 2


def test_a_process_that_has_sent_all_does_not_wait(journal, hook, monkeypatch):
    BatchSession("first", work, [1], journal=journal, notify="hook").run(verbose=False)
    delivery.deliverer.finish(20.0)
    delivery.deliverer.finish(0.0, 3600.0)
    assert len(hook.requests) == 1
