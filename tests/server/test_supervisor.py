"""Supervisor: submissions are started by priority, watched, and started again when their kernel dies."""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter

import pytest

from ipybatch.engine.store import lease
from ipybatch.gemini.money.credits import CreditAccount
from ipybatch.server.submission_store import Submissions
from ipybatch.server.supervisor import Reply, Supervisor
from tests.kernels import ROOT
from tests.server.submitting import OTHER, Threads, add_words, order, paid, set_row, supervise

_KERNEL = "the kernel that it was started in has"
_VERSION = f"{_KERNEL} another version of ipybatch than this server:"
_OTHER_KERNEL = "install it there, or name another kernel by c.IpyBatch.kernel_name"


@pytest.fixture
def store(journal, monkeypatch):
    monkeypatch.setattr("ipybatch.server.templates.TEMPLATES", {})
    add_words()
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(journal))
    return Submissions(journal)


@pytest.fixture
def kernels(store, tmp_path):
    threads = Threads()
    yield threads
    (tmp_path / "gate").touch()  # nothing of a test goes on after it
    threads.close()


@pytest.fixture
def words(tmp_path):
    """Return a request of some words; they end when the gate is open, which it is at first."""
    (tmp_path / "gate").touch()
    params = {"gate": str(tmp_path / "gate"), "log": str(tmp_path / "log")}

    def make(*words):
        return json.dumps({"template": "words", "requests": words, "params": params}).encode()

    return make


def run(store, kernels, until=None, **how):
    def all_ended():
        return all(row.ended_s is not None for row in store.page(100))

    asyncio.run(supervise(store, kernels, until or all_ended, **how))


def logged(tmp_path):
    return Counter(line.split()[0] for line in (tmp_path / "log").read_text().splitlines())


def test_it_looks_rarely_while_nothing_is_submitted_and_at_once_when_something_is():
    """Each look opens a journal, as long as the server runs."""
    looks = []

    async def blocking(call):
        await asyncio.sleep(0)
        return call()

    async def story():
        news = asyncio.Event()
        supervisor = Supervisor(
            lambda: looks.append("none"), None, blocking, most=1, news=news, look_s=0.001, idle_s=lambda: 1000.0
        )
        running = asyncio.ensure_future(supervisor.run())
        await asyncio.sleep(0.05)
        before = len(looks)
        news.set()
        await asyncio.sleep(0.05)
        running.cancel()
        return before, len(looks)

    assert asyncio.run(story()) == (1, 2)


@pytest.mark.parametrize("steps", range(5))
def test_it_ends_also_while_there_is_news(steps):
    """`asyncio.wait_for` of Python 3.11 forgets that it is cancelled when what it waits for comes just then."""

    async def blocking(call):
        return call()

    async def story():
        news = asyncio.Event()
        supervisor = Supervisor(lambda: None, None, blocking, most=1, news=news)
        running = asyncio.ensure_future(supervisor.run())
        for _ in range(10):
            await asyncio.sleep(0)
        news.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        ended = running.done()
        running.cancel()
        return ended

    assert asyncio.run(story())


class KilledError(Exception):
    """Stands for the end of a process."""


class TestRunning:
    def test_from_the_queue_to_its_end(self, store, kernels, words, tmp_path):
        account = CreditAccount(journal=store.path)
        account.grant(10)
        made = store.create(paid(6, request=words("one", "two", "bad"), requests=3))
        run(store, kernels)
        row = store.find(made.id)
        assert (row.state, row.reason, row.starts, row.run) == ("COMPLETED", "", 1, 1)
        assert logged(tmp_path) == {"one": 1, "two": 1, "bad": 1}
        assert (account.balance, account.available) == (6, 6)
        assert len(kernels.stopped) == 1

    def test_no_more_at_once_than_may_run(self, store, kernels, words, tmp_path):
        gate = tmp_path / "gate"
        gate.unlink()
        for number in range(4):
            store.create(order(request=words(f"word-{number}")))

        def has_two():
            return (tmp_path / "log").exists() and len(logged(tmp_path)) == 2

        run(store, kernels, has_two, most=2)
        assert kernels.started == 2
        gate.touch()

    def test_high_first(self, store, kernels, words, tmp_path):
        for word, priority in (("late", 2), ("soon", 1), ("now", 0)):
            store.create(order(request=words(word), priority=priority))
        run(store, kernels, most=1)
        assert list(logged(tmp_path)) == ["now", "soon", "late"]

    def test_submitted_again_after_a_cancel_it_goes_on(self, store, kernels, words, tmp_path, monkeypatch):
        """The same name continues: what is on record is not done again."""
        monkeypatch.setattr(lease, "BEAT_S", 0.1)  # by which it learns of the cancel
        gate = tmp_path / "gate"
        first = store.create(order(name="night", request=words("one", "two")))
        run(store, kernels)
        gate.unlink()
        second = store.create(order(name="night", request=words("one", "two", "three")))

        def cancel():
            row = store.find(second.id)
            return row.run is not None and "three" in logged(tmp_path) and store.cancel(row.id).ended_s is not None

        run(store, kernels, cancel)
        assert store.find(second.id).state == "CANCELLED"
        gate.touch()
        third = store.create(order(name="night", request=words("one", "two", "three")))
        run(store, kernels)
        assert store.find(third.id).state == "COMPLETED"
        assert store.find(third.id).run == store.find(first.id).run
        assert logged(tmp_path) == {"one": 1, "two": 1, "three": 2}

    def test_what_failed_runs_again(self, store, kernels, words, tmp_path):
        made = store.create(order(request=words("one", "bad")))
        run(store, kernels)
        store.requeue(store.find(made.id).run, "resume")
        run(store, kernels)
        assert logged(tmp_path) == {"one": 1, "bad": 1}
        store.requeue(store.find(made.id).run, "retry_failed")
        run(store, kernels)
        assert logged(tmp_path) == {"one": 1, "bad": 2}
        assert store.find(made.id).state == "COMPLETED"

    def test_a_request_of_another_version_fails(self, store, kernels):
        made = store.create(order(template="horoscope", request=b'{"template": "horoscope"}'))
        run(store, kernels)
        row = store.find(made.id)
        assert row.state == "FAILED"
        assert "template must be one of words" in row.reason
        assert row.starts == 1


class TestDying:
    def test_a_kernel_that_dies_is_replaced(self, store, kernels, words, tmp_path):
        kernels.instead = [Reply(died=True), Reply(died=True)]
        made = store.create(order(request=words("one")))
        run(store, kernels)
        row = store.find(made.id)
        assert (row.state, row.starts) == ("COMPLETED", 3)
        assert len(kernels.stopped) == 3

    def test_the_third_that_dies_is_the_last(self, store, kernels, words):
        kernels.instead = [Reply(died=True)] * 9
        made = store.create(order(request=words("one")))
        run(store, kernels)
        row = store.find(made.id)
        assert row.state == "FAILED"
        assert row.reason == "it was started 3 times, and ended each time: its kernel died"
        assert kernels.started == 3

    @pytest.mark.parametrize(
        ("error", "said", "reason"),
        [
            ("ModuleNotFoundError", "No module named 'ipybatch'", f"{_KERNEL} no ipybatch: {_OTHER_KERNEL}"),
            (
                "ModuleNotFoundError",
                "No module named 'ipybatch.server'",
                f"{_VERSION} No module named 'ipybatch.server'",
            ),
            ("ImportError", "cannot import name 'main'", f"{_VERSION} cannot import name 'main'"),
            ("JournalError", "journal j was written by a later ipybatch: upgrade", "JournalError: journal j was"),
        ],
    )
    def test_what_another_start_would_find_again_fails_at_once(  # noqa: PLR0917  # fixtures
        self, store, kernels, words, error, said, reason
    ):
        account = CreditAccount(journal=store.path)
        account.grant(10)
        kernels.instead = [Reply(error=error, said=said)]
        made = store.create(paid(4, request=words("one")))
        run(store, kernels)
        row = store.find(made.id)
        assert (row.state, row.starts) == ("FAILED", 1)
        assert row.reason.startswith(reason)
        assert account.available == 10

    def test_no_kernel_can_be_started(self, store, kernels, words):
        async def refuse(row):
            raise OSError(12, "Cannot allocate memory")

        kernels.start = refuse
        made = store.create(order(request=words("one")))
        run(store, kernels)
        row = store.find(made.id)
        assert row.state == "FAILED"
        assert "no kernel could be started" in row.reason
        assert "Cannot allocate memory" in row.reason

    def test_a_server_that_ends_leaves_the_start_uncounted(self, store, kernels, words, tmp_path):
        async def never(kernel, line):
            await asyncio.Event().wait()

        made = store.create(order(request=words("one")))
        execute, kernels.execute = kernels.execute, never
        run(store, kernels, lambda: store.find(made.id).kernel)
        row = store.find(made.id)
        assert (row.state, row.starts, row.owner, row.reason) == ("RUNNING", 0, None, "its server has ended")
        assert len(kernels.stopped) == 1
        kernels.execute = execute
        run(store, kernels)
        assert store.find(made.id).state == "COMPLETED"

    @pytest.mark.parametrize("step", ["start", "stop"])
    def test_a_server_that_ends_leaves_no_kernel_halfway(self, store, kernels, words, step):
        """Jupyter waits for ever for one whose start or shutdown was cancelled."""
        begun, went = asyncio.Event(), []
        do = getattr(kernels, step)

        async def slowly(given):
            begun.set()
            await asyncio.sleep(0.1)
            went.append(step)
            return await do(given)

        setattr(kernels, step, slowly)
        made = store.create(order(request=words("one")))
        run(store, kernels, begun.is_set)
        assert went == [step]
        assert len(kernels.stopped) == kernels.started == 1
        row = store.find(made.id)
        assert (row.state, row.starts) == (("RUNNING", 0) if step == "start" else ("COMPLETED", 1))

    def test_a_shutdown_that_takes_long_does_not_touch_the_next_start(self, store, kernels, words, tmp_path):
        """Put into the queue again meanwhile, it is claimed by another server: that start is the other's."""
        stop, others, went = kernels.stop, Submissions(store.path), []
        made = store.create(order(request=words("one")))

        async def stop_late(kernel):
            if not went:
                went.append(kernel)
                others.requeue(1, "resume")
                set_row(store, others.claim(2), owner=OTHER, beat_s=time.time())
            await stop(kernel)

        kernels.stop = stop_late
        run(
            store,
            kernels,
            lambda: store.find(made.id).state == "RUNNING" and kernels.stopped,
            look_s=5.0,
            is_asleep=lambda: went,
        )
        row = store.find(made.id)
        assert (row.state, row.starts, row.owner, row.reason) == ("RUNNING", 1, OTHER, "")

    def test_a_session_that_ended_before_its_row_did_is_not_run_again(
        self, store, kernels, words, tmp_path, monkeypatch
    ):
        """Killed between the two, the next one settles what was used, once, and starts nothing."""
        account = CreditAccount(journal=store.path)
        account.grant(10)
        made = store.create(paid(4, request=words("one", "bad"), requests=2))
        end, died = Submissions.end, []

        def die_once(*arguments, **named):
            if not died:
                died.append(True)
                raise KilledError
            return end(*arguments, **named)

        monkeypatch.setattr(Submissions, "end", die_once)
        run(store, kernels)
        assert kernels.started == 2
        row = store.find(made.id)
        assert (row.state, row.reason) == ("COMPLETED", "")
        assert logged(tmp_path) == {"one": 1, "bad": 1}
        assert (account.balance, account.available) == (8, 8)


def test_five_servers_run_each_submission_once(store, words, tmp_path):
    """Of one journal: none runs twice, and no more at once than may run."""
    ids = [store.create(order(request=words(*(f"{one}-{number}" for number in range(4))))).id for one in "abcdefghijkl"]
    command = [sys.executable, "-m", "tests.server.submitting", str(store.path), "3", "5"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60, stdout=subprocess.DEVNULL)
    assert {store.find(each).state for each in ids} == {"COMPLETED"}
    assert {store.find(each).starts for each in ids} == {1}
    assert set(logged(tmp_path).values()) == {1}
    assert logged(tmp_path).total() == 48
