"""The one connection of a process to a Redis: who waits for it, and what happens when it is gone."""

import os
import threading

import msgspec
import pytest
import redis

from ipybatch.engine.store.redis_limits import RedisLimits
from ipybatch.errors import JournalError
from ipybatch.testing import Bounds, Report
from tests.engine.store.test_redis_limits import RATE, ask, why


@pytest.fixture
def opened():
    made = []

    def make(url):
        made.append(RedisLimits(url, settle_s=0.0))
        return made[-1]

    yield make
    for store in made:
        store.close()


def test_threads_take_turns(redis_server, opened):
    """A second one waits; the permits of all are counted."""
    store, granted = opened(redis_server.url), []

    def work(owner):
        granted.extend(ask(store, owner).wait_s == 0.0 for _ in range(20))

    threads = [threading.Thread(target=work, args=(f"thread {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert granted.count(True) == 3 * 20
    with redis_server.client() as client:
        assert client.info("clients")["connected_clients"] == 2


class Turns(threading.Condition):
    """Tells who waits for a turn."""

    def __init__(self):
        super().__init__()
        self.waits = threading.Semaphore(0)

    def wait(self, timeout=None):
        self.waits.release()
        return super().wait(timeout)


@pytest.fixture
def calls(redis_server, opened, patience):
    """Start threads that do something with a store, and return it, what waits, and how to await all."""
    store, threads = opened(redis_server.url), []
    store._turns = Turns()

    def call(act, *arguments):
        threads.append(threading.Thread(target=act, args=arguments))
        threads[-1].start()

    def join():
        for thread in threads:
            thread.join()

    return store, call, join


def test_who_waits_for_a_call_that_hangs_does_not_hang_as_well(calls):
    """Twenty limit groups would wait twenty times as long, one after the other; who looks, too."""
    (store, call, join), told, tries = calls, [], []
    hangs, gone = threading.Semaphore(0), threading.Event()

    def hang():
        tries.append(1)
        hangs.release()
        gone.wait()
        raise redis.TimeoutError

    def look():
        with pytest.raises(JournalError) as error:
            store.names()
        told.append(str(error.value))

    store._connected = hang
    call(lambda: told.append(why(store)))
    hangs.acquire()
    for act in (lambda: told.append(why(store)), look):
        call(act)
        store._turns.waits.acquire()
    gone.set()
    join()
    assert len(tries) == 1
    assert len(told) == 3
    assert len(set(told)) == 1


def watch(store, monkeypatch):
    """Note what is sent at once."""
    sent, connection = [], store._client.connection
    send = connection.send_packed_command
    monkeypatch.setattr(connection, "send_packed_command", lambda packed: (sent.append(packed), send(packed)))
    return sent


def test_who_looks_at_all_resources_asks_for_many_at_once(redis_server, opened, monkeypatch):
    """A thousand limit groups far away would take minutes to look at, one after the other."""
    store = opened(redis_server.url)
    ask(store)
    sent = watch(store, monkeypatch)
    answers = store.exchange_all([Report(resource=name) for name in ["none", "api", *map(str, range(1000))]])
    assert [answer.used for answer in answers] == [{}, {RATE: 1.0}, *[{}] * 1000]
    assert len(sent) == 3
    assert store.exchange_all([]) == []


def test_all_that_wait_are_asked_in_one_round_trip(redis_server, calls, monkeypatch):
    """Else forty limit groups wait forty times as long as one for a server that is far away; and none for another."""
    (store, call, join), told = calls, {}
    store.exchange(Report(resource="late", owner="a"))
    with redis_server.client(decode_responses=False) as client:
        common = msgspec.msgpack.decode(client.get("ipybatch:{late}"))
        client.set("ipybatch:{late}", msgspec.msgpack.encode({**common, "version": 99}))
    ask(store)
    sent = watch(store, monkeypatch)

    def exchange(owner):
        report = Report(resource="late" if owner == "refused" else "api", owner=owner, bounds=Bounds())
        try:
            told[owner] = store.exchange(report).wait_s
        except JournalError as error:
            told[owner] = str(error)

    store._is_taken = True
    owners = ["refused", *map(str, range(20))]
    for owner in owners:
        call(exchange, owner)
        store._turns.waits.acquire()
    store._give_turn()
    join()
    assert "a later ipybatch" in told.pop("refused")
    assert told == dict.fromkeys(owners[1:], 0.0)
    assert len(sent) == 1


def test_a_connection_that_was_closed_meanwhile_is_opened_again_at_once(redis_server, opened):
    """By a server that lets idle ones go, or on the way to it: nothing waits for that, and nothing counts twice."""
    store = opened(redis_server.url)
    assert ask(store, number=1).wait_s == 0.0
    with redis_server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    answer = ask(store, number=2, spent=[(0.0, "requests", 1.0)])
    assert (answer.wait_s, answer.used) == (0.0, {RATE: 2.0})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_has_a_connection_of_its_own(redis_server, opened):
    """Also where a thread of its parent was in the midst of an exchange."""
    store = opened(redis_server.url)
    ask(store)
    read, write = os.pipe()
    store._is_taken = True
    with store._turns:
        child = os.fork()
        if not child:
            os.write(write, repr(ask(store, "child").wait_s).encode())
            os._exit(0)
    store._give_turn()
    os.waitpid(child, 0)
    os.close(write)
    assert os.read(read, 99) == b"0.0"
    os.close(read)
    assert [one.name for one in ask(store).owners] == ["child"]


def test_who_closes_does_not_wait(redis_server, opened):
    """The connection goes when the exchange has ended that is under way."""
    store = opened(redis_server.url)
    ask(store)
    store._is_taken = True
    store.close()
    assert store._client is not None
    store._give_turn()
    assert store._client is None
    ask(store)
    store.close()
    assert store._client is None
