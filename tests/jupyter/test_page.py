"""The page: a session as one file."""

import asyncio
import random
import re
import threading
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import BatchSession, Breaker, InputError, Limits, Permanent, Rate, Retry
from ipybatch.engine.data import events, masking
from ipybatch.engine.data.outcome import Summary
from ipybatch.engine.data.progress_curve import Mark
from ipybatch.engine.feed.snapshot import Group, Snapshot
from ipybatch.engine.store.rows import RecordedItem, Try
from ipybatch.errors import EngineBusy
from ipybatch.jupyter import chart, page
from ipybatch.jupyter.page import Facts

ATTACK = "<img src=x onerror=alert(1)>"
TAGS = {"html", "head", "meta", "title", "style", "body", "main", "h2", "p", "svg", "path", "rect", "text"}
TAGS |= {"div", "span", "b", "br", "small", "table", "thead", "tbody", "tr", "th", "td"}
ATTRIBUTES = {"lang", "charset", "name", "content", "style", "class", "align", "title", "viewbox", "role", "aria-label"}
ATTRIBUTES |= {"d", "x", "y", "width", "height", "text-anchor"}


class Seen(HTMLParser):
    """Collect tags, attributes, classes and text."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.classes, self.text = [], set(), [], ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.classes += [value for name, value in attrs if name == "class"]

    def handle_data(self, data):
        self.text += data


async def work(item):
    await asyncio.sleep(random.Random(item).uniform(0.1, 1.0))
    if item % 10 == 3:
        raise Permanent(f"no such game: {item} {ATTACK}")
    if item % 10 == 5:
        raise ConnectionError(f"HTTP 503 of {item}")
    return item


@pytest.fixture
def wishlist(plan, clock):
    """A session that has run: 60 items in 6 batches, 12 of which failed."""
    limits = Limits(concurrency=4, batch_size=10, rates=[Rate(10, per_s=2)])
    session = plan(work, list(range(60)), limits=limits, retry=Retry(attempts=2), breaker=Breaker(failures=5))
    clock.run(session)
    return session


def facts(**fields):
    snapshot = Snapshot(name="wishlist", **fields)
    return Facts(snapshot, Summary("wishlist", snapshot.state, snapshot.counts, snapshot.reason, 9.0), "Batch", None)


def test_the_page_tells_everything(wishlist, tmp_path):
    """Overview, timeline, all groups, failures with the errors of their attempts, and the log."""
    path = wishlist.export_html(tmp_path / "wishlist.html")
    seen = Seen(path.read_text(encoding="utf-8"))
    for words in ("wishlist", "Timeline", "Batch: 6", "Did not complete", "Log", "60 of 60", "Batch 6 began: 10 items"):
        assert words in seen.text
    assert seen.classes.count("sheet") == 3
    assert seen.text.count(f"no such game: 53 {ATTACK}") == 2  # of itself, and in the log
    assert seen.text.count("attempt 1, ") == 6
    assert (
        sum(kind in ("completed", "failed") for kind in seen.classes) == 6 + 1
    )  # a bar each, and the area of failures


def test_the_page_needs_nothing_else(wishlist, tmp_path):
    """No script, no outside address, nothing that a text from outside could bring in; light and dark."""
    source = wishlist.export_html(tmp_path / "wishlist.html").read_text(encoding="utf-8")
    seen = Seen(source)
    assert set(seen.tags) <= TAGS
    assert seen.attributes <= ATTRIBUTES
    assert not re.search(r"https?:|url\(|@import|//", source)
    assert "prefers-color-scheme: dark" in source


texts = st.one_of(st.sampled_from([ATTACK, "</style><script>alert(1)</script>", "'\"><b>"]), st.text(max_size=30))


@given(said=st.tuples(texts, texts, texts, texts, texts, texts))
def test_text_from_outside_is_text(said):
    """Whatever it says, no tag and no attribute comes of it."""
    name, key, error, word, title, noted = said
    group = Group(number=1, name=name, status="failed", items=1, started_s=5.0, error=error, extra={title: error})
    told = facts(groups={1: group}, reason=error)
    told.snapshot.pace.marks = [Mark(1.0, 0, 0, 0), Mark(9.0, 9, 9, 3)]
    told.snapshot.apply(events.Noted(3.0, noted))
    told.snapshot.apply(events.ItemEnded(4.0, key + "!", 1, "timeout", 1, 0.1, error))
    told.snapshot.name = name
    failed = RecordedItem(
        key=key, status="failed", attempts=2, seconds=1.0, error=error, tries=[Try(attempt=1, seconds=1.0, error=error)]
    )
    seen = Seen(page.html(Facts(told.snapshot, told.summary, word, 3.0), [failed]))
    assert set(seen.tags) <= TAGS
    assert seen.attributes <= ATTRIBUTES
    assert seen.tags.count("title") == seen.tags.count("style") == 1


def test_secrets_are_masked(wishlist, tmp_path, monkeypatch):
    """Also those that were registered after the text was recorded."""
    monkeypatch.setattr(masking, "_secrets", ())
    masking.register("no such game")
    assert "no such game" not in wishlist.export_html(tmp_path / "wishlist.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["wishlist", "wishlist.pdf", "wishlist.html.txt"])
def test_another_suffix_is_refused(wishlist, tmp_path, name):
    """The message names the field, what it may be, and what was given."""
    with pytest.raises(InputError, match=rf"path must end in \.html or \.htm, got '.*{name}'"):
        wishlist.export_html(tmp_path / name)
    assert list(tmp_path.glob("wishlist*")) == []


@pytest.mark.parametrize("name", ["wishlist.htm", "WISHLIST.HTML"])
def test_both_suffixes_are_taken(wishlist, tmp_path, name):
    assert wishlist.export_html(str(tmp_path / name)).name == name


def test_it_is_written_whole_or_not_at_all(wishlist, tmp_path, monkeypatch):
    """A page that cannot be written leaves the one before, and no draft."""
    path = wishlist.export_html(tmp_path / "wishlist.html")
    before = path.read_bytes()
    wishlist._feed.emit(events.Noted(0.0, "later"))
    wrote = []

    def full(draft, *arguments, **options):
        draft.write_bytes(b"half")
        wrote.append(draft)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page.Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        wishlist.export_html(path)
    assert wrote
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.glob("*wishlist*")] == ["wishlist.html"]


def test_a_running_session_is_read_on_its_thread(live, tmp_path):
    """Where nothing moves meanwhile; and it may be written while it runs."""
    hold = threading.Event()
    session = live(lambda item: hold.wait(20) and item, [1, 2, 3], limits=Limits(concurrency=2))
    asked, ask = [], session.ask
    session.ask = lambda question: asked.append(question) or ask(question)
    session.start()
    source = session.export_html(tmp_path / "wishlist.html").read_text(encoding="utf-8")
    hold.set()
    assert len(asked) >= 2
    assert "● running" in re.sub("<[^>]*>", "", source)


def too_busy(question):
    raise EngineBusy("busy")


def test_a_busy_engine_is_asked_again(wishlist, tmp_path):
    """Nothing is read beside it: when it never answers, the error says what to do."""
    wishlist.recall()
    busy, ask = [True, True], wishlist.ask
    wishlist.ask = lambda question: too_busy(question) if busy and busy.pop() else ask(question)
    assert wishlist.export_html(tmp_path / "a.html").exists()
    wishlist.ask = too_busy
    with pytest.raises(EngineBusy):
        wishlist.export_html(tmp_path / "b.html")
    assert not (tmp_path / "b.html").exists()


def test_the_page_is_of_one_moment(wishlist):
    """What happens after it was read changes nothing of it."""
    before = page._read(wishlist)
    lines, source = len(before.snapshot.story), page.html(before, [])
    wishlist._feed.emit(events.StateChanged(1.0, "running", ""))
    wishlist._feed.emit(events.GroupStarted(1.0, 1, "Batch 1", 99))
    wishlist._feed.emit(events.AttemptStarted(1.0, "a", 1, 1))
    wishlist._feed.emit(events.ItemEnded(900.0, "a", 1, "failed", 1, 1.0, "later"))
    assert len(before.snapshot.story) == lines
    assert page.html(before, []) == source


def test_a_reopened_session_tells_its_past(wishlist, journal, tmp_path):
    """The journal knows when items ended and why they failed: another process writes the same timeline and failures."""
    session = BatchSession.open("wishlist", journal=journal)
    seen = Seen(session.export_html(tmp_path / "again.html").read_text(encoding="utf-8"))
    assert "Timeline" in seen.text
    assert "tried" in seen.classes
    assert seen.text.count(f"no such game: 53 {ATTACK}") == 2  # of its batch, and of itself


def test_failures_that_were_rolled_back_are_told(plan, clock, tmp_path):
    """The journal has discarded them; who reads the page still learns why."""
    session = plan(work, [1, 3], on_failure="rollback", retry=Retry(attempts=1))
    clock.run(session)
    assert f"no such game: 3 {ATTACK}" in Seen(session.export_html(tmp_path / "a.html").read_text("utf-8")).text


def test_a_planned_session_has_a_page(plan, tmp_path):
    """Nothing has happened yet: no timeline, no failures."""
    seen = Seen(plan(work, [1, 2]).export_html(tmp_path / "a.html").read_text(encoding="utf-8"))
    assert "svg" not in seen.tags
    assert "0 of 2" in seen.text
    assert "Did not complete" not in seen.text


def test_two_thousand_groups_are_listed_worst_first_beyond():
    """Up to there in their order; of more, those that went worst."""

    def groups(count):
        return {
            number: Group(number=number, name=f"Batch {number}", status="completed", items=1, failed=number == 2500)
            for number in range(1, count + 1)
        }

    assert page.html(facts(groups=groups(2000)), []).count("<tr>") == 2001
    source = page.html(facts(groups=groups(3000)), [])
    assert source.count("<tr>") == 2001
    assert "The 2,000 that went worst, of 3,000." in source
    assert source.index(">2500<") < source.index(">1<")


def test_failures_are_taken_from_the_worst_groups(plan, clock, monkeypatch):
    """As many as fit, a few hundred at a time, however many groups there are."""
    monkeypatch.setattr(page, "FAILURES", 7)
    monkeypatch.setattr(page, "_AT_ONCE", 2)
    session = plan(work, list(range(60)), limits=Limits(batch_size=10), retry=Retry(attempts=1), breaker=None)
    clock.run(session)
    failed = list(page._failures(session))
    assert [item.key for item in failed] == ["3", "5", "13", "15", "23", "25", "33"]
    monkeypatch.setattr(page, "FAILURES", 500)
    assert len(list(page._failures(session))) == 12


marks = st.lists(st.tuples(st.floats(0.0, 5000.0), st.integers(0, 500), st.integers(0, 50)), max_size=30)
groups = st.lists(st.tuples(st.floats(0.0, 5000.0), st.floats(0.0, 5000.0), st.booleans()), max_size=40)


@given(steps=marks, spans=groups, allowed_per_s=st.none() | st.floats(0.0001, 1e6))
def test_the_drawing_stays_in_its_frame(steps, spans, allowed_per_s):
    """Whatever the times are: all numbers are finite, and nothing is drawn beside the frame."""
    made, at_s, started, failed = [], 1.7e9, 0, 0
    for seconds, attempts, bad in steps:
        at_s, started, failed = at_s + seconds, started + attempts, failed + bad
        made.append(Mark(at_s, started, started, failed))
    bars = [
        Group(number=n, name="", status="completed" if done else "running", items=1, started_s=1.7e9 + begun_s)
        for n, (begun_s, _, done) in enumerate(spans)
    ]
    for bar, (begun_s, seconds, done) in zip(bars, spans, strict=True):
        bar.ended_s = 1.7e9 + begun_s + seconds if done else 0.0
    moves = [events.BreakerMoved(1.7e9 + 5.0, "open", 3, 1, 9.0)]
    drawing = chart.svg(made, bars, moves, allowed_per_s)
    assert bool(drawing) == (len(made) >= 2)
    height = float(re.search(r'viewBox="0 0 900 (\d+)"', drawing)[1]) if drawing else 0.0
    for x, y, width in re.findall(r'<rect class="\w+" x="([^"]*)" y="([^"]*)" width="([^"]*)"', drawing):
        assert 0 <= float(x) <= float(x) + float(width) <= 901
        assert 0 <= float(y) < height
    for path in re.findall(r' d="([^"]*)"', drawing):
        assert all(0 <= float(number) <= 900 for number in re.findall(r"[^MLHVZ ]+", path))


def test_a_hundred_thousand_groups_are_a_small_drawing():
    """Bars that share a pixel are drawn once."""
    many = [
        Group(number=n, name="", status="completed", items=1, started_s=1e9 + n, ended_s=1e9 + n + 40)
        for n in range(100_000)
    ]
    drawing = chart.svg([Mark(1e9, 0, 0, 0), Mark(1e9 + 100_040, 100_000, 100_000, 0)], many, [], None)
    assert len(drawing) < 3_000_000
