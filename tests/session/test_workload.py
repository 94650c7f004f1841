"""Workloads: bound by the constructor and by open() alike, found by their entry point, recorded by name."""

from importlib import metadata

import pytest

from ipybatch import BatchSession, InputError
from ipybatch.session.workload import Workload, find_workload, recordable

ONE = "one-off"


class ShoutSession(BatchSession):
    """A session that knows its own work."""

    def shouted(self):
        return [row.result for row in self.results().itertuples() if row.result]

    def loudness(self):
        self.workload.check_complete(self.name)
        return self.workload.marks


class Shout(Workload):
    name = "shout"
    needs = "marks"
    session_class = ShoutSession

    def __init__(self, marks):
        self.marks, self.heard, self.about = marks, [], {"marks": marks}

    def bind(self, session):
        super().bind(session)
        session.on_outcomes(self.heard.extend)

    @classmethod
    def reading(cls, name, journal, about):
        return cls(about["marks"])

    @classmethod
    def going_on(cls, name, journal, about, items, arguments):
        return ShoutSession(name, cls(arguments.pop("marks")), items, journal=journal, **arguments)

    async def __call__(self, item):
        return f"{item}{'!' * self.marks}"


@pytest.fixture
def registered(monkeypatch):
    """The workload as its package's metadata would register it."""
    entry = metadata.EntryPoint("shout", f"{__name__}:Shout", "ipybatch.workloads")
    found = type("Entry", (), {"load": staticmethod(lambda: Shout)})
    monkeypatch.setattr(metadata, "entry_points", lambda **asked: [found] if asked["name"] == entry.name else [])


def test_a_workload_is_bound_by_the_constructor(journal):
    work = Shout(2)
    session = ShoutSession("party", work, ["hey"], journal=journal)
    assert (work.session, session.workload) == (session, work)
    assert session.run().counts.completed == 1
    assert [outcome.result for outcome in work.heard] == ["hey!!"]


def test_open_gives_back_the_workloads_session(journal, registered):
    ShoutSession("party", Shout(2), ["hey", "ho"], journal=journal).run()
    session = BatchSession.open("party", journal=journal)
    assert isinstance(session, ShoutSession)
    assert session.workload.session is session
    assert (session.state, session.shouted()) == ("completed", ["hey!!", "ho!!"])


def test_what_it_lacks_is_said_in_one_line(journal, registered):
    ShoutSession("party", Shout(2), ["hey"], journal=journal).run()
    session = BatchSession.open("party", journal=journal)
    for act in (session.loudness, session.start, session.retry_failed):
        with pytest.raises(InputError, match=r"^session 'party' was opened for reading: pass marks= to go on$"):
            act()


def test_with_what_it_needs_it_goes_on(journal, registered):
    ShoutSession("party", Shout(2), ["hey"], journal=journal).run()
    session = BatchSession.open("party", journal=journal, marks=5)
    assert (type(session), session.loudness(), session.run().counts.completed) == (ShoutSession, 5, 1)


def test_a_session_is_opened_by_its_own_class_or_by_batchsession(journal, registered):
    ShoutSession("party", Shout(1), ["hey"], journal=journal).run()
    BatchSession("plain", len, ["hey"], journal=journal).run()
    assert isinstance(ShoutSession.open("party", journal=journal), ShoutSession)
    with pytest.raises(InputError, match="'plain' is a BatchSession, not a ShoutSession"):
        ShoutSession.open("plain", journal=journal)


def test_without_its_package_a_session_can_still_be_read(journal):
    ShoutSession("party", Shout(1), ["hey"], journal=journal).run()
    session = BatchSession.open("party", journal=journal)
    assert type(session) is BatchSession
    assert session.results()["result"].tolist() == ["hey!"]


def test_what_was_forgotten_is_still_bound(journal):
    """forget() empties the journal; the workload goes on hearing outcomes."""
    work = Shout(1)
    session = ShoutSession("party", work, ["hey"], journal=journal)
    session.run()
    session.forget()
    session.run()
    assert [outcome.result for outcome in work.heard] == ["hey!", "hey!"]


def test_only_what_json_holds_is_recorded():
    """What it cannot hold is named, so that nothing goes on with a default in its place."""
    given = {"a": 1, "b": object(), "c": None, "d": ["x"]}
    assert recordable(given, tuple(given)) == {"a": 1, "c": None, "d": ["x"], "unrecorded": ["b"]}


def test_what_could_not_be_recorded_is_asked_for(journal, registered):
    work = Shout(2)
    work.about = recordable({"marks": 2, "voice": print}, ("marks", "voice"))
    ShoutSession("party", work, ["hey"], journal=journal).run()
    with pytest.raises(InputError, match="made with voice=, which the journal cannot hold: pass it too"):
        BatchSession.open("party", journal=journal, marks=5)


def test_ours_are_registered_like_anybodys():
    assert {name: find_workload(name).name for name in ("forecast", "gemini", "refresh")} == {
        "forecast": "forecast",
        "gemini": "gemini",
        "refresh": "refresh",
    }
