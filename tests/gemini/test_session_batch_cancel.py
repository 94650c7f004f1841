"""A batch session is cancelled, whatever it is just doing; what hangs here hangs for longer than a test may take."""

import threading

import pytest

from ipybatch.gemini.batch import gatherer, spool
from ipybatch.gemini.batch.spool import BatchRequest
from ipybatch.simulators.faults import HANG_S
from ipybatch.simulators.gemini.batches import BatchEndpoints
from ipybatch.simulators.gemini.files import FileEndpoints
from ipybatch.simulators.service import Reply
from tests.gemini.nights import night, waited
from tests.gemini.nights import night_service as gemini

# google-genai 3.4.0 has a session class of its own, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

HANGS = Reply(drop="close", delay_s=HANG_S)


@pytest.fixture
def held(monkeypatch):
    """Hold what is called at a moment; the event tells that it is."""
    at, go_on = threading.Event(), threading.Event()

    def hold(where, name, answer=None):
        def held(self, *arguments):
            at.set()
            if answer is None:
                go_on.wait(60)
                return before(self, *arguments)
            return answer

        before = getattr(where, name)
        monkeypatch.setattr(where, name, held)
        return at

    hold.go_on = go_on
    yield hold
    go_on.set()


MOMENTS = {
    "writing": (BatchRequest, "line", None),
    "uploading": (FileEndpoints, "upload", HANGS),
    "waiting for the file": (FileEndpoints, "get", HANGS),
    "downloading": (FileEndpoints, "download", HANGS),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_cancel_ends_it(journal, held, monkeypatch, tmp_path, moment):
    monkeypatch.setattr(spool.tempfile, "tempdir", str(tmp_path))
    reached = held(*MOMENTS[moment])
    with gemini(batch_delay_s=0.01, file_wait_s=0.1 if moment == "waiting for the file" else 0.0) as service:
        session = night(service, journal, 3, poll_s=0.05)
        session.start()
        assert reached.wait(20)
        session.cancel()
        waited(lambda: session.state == "cancelled")
        assert session.counts.cancelled == 3
        assert service.states() == (["SUCCEEDED"] if moment == "downloading" else [])
        assert [path for path in tmp_path.iterdir() if path.suffix == ".jsonl"] == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_job_whose_creation_is_not_answered_is_not_waited_for(journal, monkeypatch, when):
    """It is in doubt, and the next start looks for it."""
    monkeypatch.setattr(gatherer, "CANCEL_S", 0.1)
    asked, create = threading.Event(), BatchEndpoints.create

    def create_and_tell(self, *arguments):
        asked.set()
        return create(self, *arguments)

    monkeypatch.setattr(BatchEndpoints, "create", create_and_tell)
    with gemini(batch_delay_s=None, cancel_s=0.0, create_faults=[f"hang_{when}"]) as service:
        session = night(service, journal, 3, poll_s=0.05)
        session.start()
        assert asked.wait(20)
        session.cancel()
        waited(lambda: session.state == "cancelled")
        assert service.states() == ([] if when == "before" else ["RUNNING"])


def test_a_service_that_is_slow_to_answer_is_not_waited_for(journal, monkeypatch, held):
    """It hears of it all the same."""
    monkeypatch.setattr(gatherer, "CANCEL_S", 60.0)
    with gemini(batch_delay_s=None, cancel_s=0.0) as service:
        session = night(service, journal, 3, poll_s=0.05)
        session.start()
        waited(lambda: any(group.extra["Remote"] for group in session.snapshot.groups.values()))
        reached = held(BatchEndpoints, "cancel")
        session.cancel()
        waited(lambda: session.state == "cancelled")  # the service answers nobody meanwhile
        assert reached.wait(20)
        held.go_on.set()
        waited(lambda: service.states() == ["CANCELLED"])


def test_a_job_that_is_created_after_the_end_is_cancelled_before_the_next_start(journal, monkeypatch, held):
    monkeypatch.setattr(gatherer, "CANCEL_S", 60.0)
    with gemini(batch_delay_s=None, cancel_s=0.0) as service:
        session = night(service, journal, 3, poll_s=0.05)
        reached = held(BatchEndpoints, "create")
        session.start()
        assert reached.wait(20)
        session.cancel()
        waited(lambda: session.state == "cancelled")  # the service answers nobody meanwhile
        session.start()
        held.go_on.set()
        waited(lambda: service.states() == ["CANCELLED", "RUNNING"])
        session.cancel()
        waited(lambda: service.states() == ["CANCELLED"] * 2)
        assert session.counts.cancelled == 3


def test_the_jobs_hear_of_it_before_all_prompts_do(journal, monkeypatch):
    """Their prompts are recorded one by one, and what runs costs money."""
    told = []
    ask = gatherer.Gatherer._ask_to_cancel

    async def ask_and_tell(self, jobs):
        told.append(len(self._items.by_key))
        return await ask(self, jobs)

    monkeypatch.setattr(gatherer.Gatherer, "_ask_to_cancel", ask_and_tell)
    with gemini(batch_delay_s=None, cancel_s=0.0) as service:
        session = night(service, journal, 2000, max_requests_per_job=1000)
        session.start()
        waited(lambda: service.jobs == 2)
        session.cancel()
        waited(lambda: session.state == "cancelled")
        assert told[0] >= 500
        waited(lambda: service.states() == ["CANCELLED"] * 2)
