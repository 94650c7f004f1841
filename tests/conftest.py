"""What the tests of sessions share: a journal of their own, time that jumps, and an end to whatever hangs."""

import asyncio
import gc
import os
import signal
from pathlib import Path

import certifi
import pytest
from hypothesis import HealthCheck, Phase, settings

from ipybatch import BatchSession
from ipybatch.engine.data import masking
from ipybatch.testing import VirtualClock
from tests.open_files import close_files, open_files
from tests.works import Gate, ThreadGate

PATIENCE_S = 120  # nothing here takes a tenth of it on a quiet machine

# The property tests: the same few examples in every run, others each time in `make chaos`, and to look further by
# HYPOTHESIS_PROFILE=search. None judges by the time that an example takes: the machine may have other work.
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
_ALL = settings(deadline=None, suppress_health_check=_SLOW, print_blob=True)
settings.register_profile("every_run", _ALL, derandomize=True, max_examples=25, stateful_step_count=30)
settings.register_profile("chaos", _ALL, max_examples=100, stateful_step_count=40)
settings.register_profile("search", _ALL, max_examples=1500, stateful_step_count=80)
# For `make mutants`: the same examples each time, and a failing one is not made smaller.
_PHASES = (Phase.explicit, Phase.generate)
settings.register_profile("mutants", derandomize=True, database=None, deadline=None, phases=_PHASES)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "every_run"))


def pytest_collection_finish():
    """Leave 7,000 tests and their modules out of every collection of garbage: a tenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    """Let `patience` end with the test: an alarm in the midst of its report ends the whole run."""
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.fixture(autouse=True)
def secrets_of_its_own():
    """What a test registers as a secret may be a word in another's texts."""
    before = masking._secrets
    yield
    masking._secrets = before


@pytest.fixture(autouse=True)
def files_of_its_own():
    """Journals and limits that a test opened are closed after it."""
    before = open_files()
    yield
    close_files(but=before)


@pytest.fixture
def patience():
    """Fail a test that hangs, where it hangs, instead of hanging with it."""

    def give_up(number, frame):
        msg = f"the test hung for {PATIENCE_S} s"
        raise AssertionError(msg)

    before = signal.signal(signal.SIGALRM, give_up)
    # Again and again, because a loop logs what its callbacks raise and goes on.
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S, 3)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def journal(tmp_path, patience):
    """The path of a journal that nobody else has."""
    return tmp_path / "journal.db"


@pytest.fixture
def redis_server(tmp_path, patience):
    """A redis-server that nobody else has; see `tests.redis_server` for how to harm it."""
    pytest.importorskip("redis")
    from tests.redis_server import PROGRAM, RedisServer

    if PROGRAM is None:
        pytest.skip("no redis-server is installed")
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def plan(journal, clock):
    """Make a session that runs in virtual time: ``clock.run(plan(work, items))``."""

    def make(work, items, *, name="wishlist", **arguments):
        return BatchSession(name, work, items, **{"journal": journal, "clock": clock, **arguments})

    return make


@pytest.fixture
def live(journal):
    """Make a session that runs on the engine's thread in real time, and is ended with the test."""
    made = []

    def make(work, items, *, name="wishlist", **arguments):
        session = BatchSession(name, work, items, **{"journal": journal, **arguments})
        made.append(session)
        return session

    yield make
    for session in made:
        session.cancel()


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def threads():
    gate = ThreadGate()
    yield gate
    gate.open()


@pytest.fixture
def wait_for():
    """Wait for a session's end in a loop of our own, as a cell does."""

    def wait(session, within_s=20):
        async def cell():
            return await asyncio.wait_for(_summary(session), within_s)

        return asyncio.run(cell())

    return wait


async def _summary(session):
    return await session


@pytest.fixture
def unwatched(monkeypatch):
    """Give an owner with an old beat no further time to renew it."""
    monkeypatch.setattr("ipybatch.engine.store.lease.SILENCE_S", 0.0)


@pytest.fixture(autouse=True, scope="session")
def runtime(tmp_path_factory):
    """Register the journals of the tests, and of the processes that they start, apart from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("runtime")
        folder.chmod(0o700)
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield folder


@pytest.fixture(autouse=True, scope="session")
def authority(tmp_path_factory):
    """One certificate authority: each client reads all of them, Google's three times in 0.2 s; loopback needs none."""
    first, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----")
    path = tmp_path_factory.mktemp("authority") / "one.pem"
    path.write_text(first[first.index("-----BEGIN") :] + end + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        yield path


@pytest.fixture(scope="module")
def cluster():
    """Two workers of Dask, each a process, for all tests of a module."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1"
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    """A client of theirs; both are there."""
    distributed = pytest.importorskip("distributed")
    with distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2)
        yield client
