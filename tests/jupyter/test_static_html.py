"""The static forms: what a saved notebook shows without a kernel, and the page of a session."""

import asyncio
import html as entities
import os
import random
import re
import sys
import threading
from html.parser import HTMLParser

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbconvert import HTMLExporter

from ipybatch import BatchSession, Breaker, InputError, Limits, Permanent, Rate, Retry
from ipybatch.engine.data import events, masking
from ipybatch.engine.data.events import Counts, Mark
from ipybatch.engine.data.fact import Fact
from ipybatch.engine.data.outcome import RecordedItem, Summary, Try
from ipybatch.engine.feed.snapshot import Group, Snapshot
from ipybatch.errors import EngineBusy
from ipybatch.jupyter import static_html, static_page
from ipybatch.jupyter.static_page import Facts

ATTACKS = [
    "<img src=x onerror=alert(1)>",
    "</td></table><script>alert(1)</script>",
    "\"'><svg onload=alert(1)>",
    "&lt;b>",
]
texts = st.one_of(st.sampled_from(ATTACKS), st.text(max_size=40))
TAGS = {"div", "span", "b", "br", "small", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "bdi"}
TAGS |= {"colgroup", "col"}
VOID = ("br", "meta", "link", "hr", "img", "input")


class Seen(HTMLParser):
    """Collect tags, attributes and text; tags must close in order."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.open, self.styles, self.words = set(), set(), [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.styles += [value for name, value in attrs if name == "style"]
        if tag not in ("br", "col"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return "".join(self.words)


def made(**fields):
    """A snapshot and its summary."""
    snapshot = Snapshot(**{"name": "wishlist", "state": "completed", **fields})
    return snapshot, Summary(snapshot.name, snapshot.state, snapshot.counts, snapshot.reason, 107.96)


def ended(key, status="failed", error="boom"):
    return events.ItemEnded(101.0, key, 0, status, 2, 0.5, error)


def rows_of(source):
    """The text of each cell of each row of the last table."""
    table = re.findall(r"<table.*?</table>", source)[-1]
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr.*?</tr>", table)]
    return [[entities.unescape(re.sub("<[^>]*>", "", cell)).strip() for cell in row] for row in cells]


states = st.fixed_dictionaries(
    {
        "name": texts,
        "state": st.sampled_from(["completed", "failed", "rolled_back", "planned"]),
        "reason": texts,
        "notes": st.lists(texts, max_size=2),
        "ended_s": st.sampled_from([0.0, 1.7e9]),
        "failures": st.dictionaries(texts, st.builds(ended, texts, error=texts), max_size=3),
        "groups": st.dictionaries(
            st.integers(1, 9),
            st.builds(
                Group,
                number=st.integers(1, 9),
                name=texts,
                status=st.sampled_from(["running", "completed", "failed", "skipped"]),
                items=st.integers(0, 9),
                failed=st.integers(0, 9),
                error=texts,
                extra=st.dictionaries(texts, texts | st.integers() | st.floats(), max_size=2),
            ),
            max_size=3,
        ),
    }
)


@given(fields=states, word=texts)
def test_text_from_outside_is_text(fields, word):
    """Whatever a name, an error, a key, a note or a column says, no tag and no attribute comes of it."""
    seen = Seen(static_html.output(*made(**fields), word))
    assert seen.tags <= TAGS
    assert seen.attributes <= {"style", "align", "title", "nowrap"}
    assert not re.search(r"url|expression|@|<|&", "".join(seen.styles))


@pytest.mark.parametrize("attack", ATTACKS)
def test_text_from_outside_is_shown_as_it_is(attack):
    """It is not swallowed either: the reader sees what the error said."""
    assert (
        Seen(static_html.output(*made(name=attack, failures={"a": ended("a", error=attack)}), "Batch")).text.count(
            attack
        )
        == 2
    )


def test_money_is_not_a_formula():
    """JupyterLab and GitHub take what is between two dollar signs, and after a backslash, for TeX."""
    source = static_html.output(*made(reason=r"$0.84 of $5, \[x\]"), "Batch")
    for piece in re.split(r"<[^>]*>", source):
        assert piece in ("$", "\\") or not set(piece) & set("$\\")
    assert r"$0.84 of $5, \[x\]" in Seen(source).text


def test_secrets_are_masked(monkeypatch):
    """In every text, before it is made short, so that no half of one is left."""
    monkeypatch.setattr(masking, "_secrets", ())
    masking.register("hunter2secret")
    error = "x" * (static_html.LONGEST - 5) + "hunter2secret"
    group = Group(
        number=1, name="hunter2secret", status="failed", items=1, error=error, extra={"hunter2secret": "hunter2secret"}
    )
    told = {"hunter2secret": ended("hunter2secret", error=error)}
    for groups in ({}, {1: group}):
        source = static_html.output(
            *made(name="hunter2secret", notes=["hunter2secret"], failures=told, groups=groups), "hunter2secret"
        )
        assert "hunter" not in source
        assert "***" in source


@pytest.mark.parametrize(
    ("counts", "bar"),
    [
        (Counts(completed=75, pending=25, total=100), "█" * 30 + "░" * 10 + " 75 %"),
        (Counts(completed=1, failed=1, pending=998, total=1000), "█▚" + "░" * 38 + " 0 %"),
        (Counts(completed=20, skipped=20, total=40), "█" * 20 + "▒" * 20 + " 50 %"),
        (Counts(pending=0, total=0), "░" * 40 + " 0 %"),
        (Counts(completed=497, failed=3, total=500), "█" * 39 + "▚ 100 %"),
        (Counts(completed=9_990, failed=3, timeout=2, pending=5, total=10_000), "█" * 37 + "▚▞░ 99 %"),
    ],
)
def test_the_bar_is_text_where_styles_are_taken_away(counts, bar):
    """GitHub keeps no style: what is left of the bar says the same."""
    assert bar in Seen(static_html.output(*made(counts=counts), "Batch")).text


@given(shares=st.lists(st.integers(0, 10_000), min_size=6, max_size=6))
def test_the_bar_is_as_long_as_it_is(shares):
    """Forty characters, however the counts are rounded."""
    names = ["completed", "failed", "timeout", "cancelled", "skipped", "pending"]
    counts = Counts(**dict(zip(names, shares, strict=True)), total=sum(shares))
    assert len(re.findall("[█▚▞▓▒░]", static_html.output(*made(counts=counts), "Batch"))) == 40


def test_states_are_words_and_marks():
    """Colour says nothing that a word does not say."""
    counts = Counts(completed=7, failed=2, timeout=1, cancelled=3, skipped=4, total=17)
    text = Seen(static_html.output(*made(counts=counts), "Batch")).text
    assert (
        re.sub(r"\s+", " ", text).find("10 of 17 ✓ 7 completed ✕ 2 failed ◷ 1 timed out ⊘ 3 cancelled → 4 skipped") > 0
    )


def test_facts_are_told():
    """Rate, elapsed time and the breaker's last state stand above the table."""
    snapshot, summary = made(ended_here=300, started_s=1_700_000_000.0, ended_s=1_700_000_107.0)
    for state, failures, openings in [("open", 3, 1), ("half_open", 3, 1), ("closed", 0, 0), ("open", 3, 1)]:
        snapshot.apply(events.BreakerMoved(1.0, state, failures, openings, 61.0))
    text = Seen(static_html.output(snapshot, summary, "Batch")).text
    for fact in (
        "2.8 per s",
        "1 m 48 s",
        "ended 2023-11-14 22:15:07 UTC",
        "open",
        "opened 2 times, 3 failures in a row",
    ):
        assert fact in text


def test_a_breaker_that_has_done_nothing_is_not_told():
    """Nor one that is not there: to call it closed would promise it; with nothing to tell, there is no table either."""
    assert "Breaker" not in static_html.output(*made(), "Batch")
    opened = made()
    opened[0].apply(events.BreakerMoved(1.0, "open", 3, 1, 61.0))
    assert "Breaker" in static_html.output(*opened, "Batch")
    assert "Breaker" not in static_html.output(*opened, "Batch", has_breaker=False)
    assert "<td" not in static_html.output(
        Snapshot(), Summary("a", "planned", Counts(), "", 0.0), "Batch", has_breaker=False
    )


def test_what_the_work_tells_of_itself_is_told_as_it_stood():
    """Nothing counts on in a static form; what held only while it ran is left out; spent stands beside its budget."""
    slowest = Fact("Slowest", "So<fi", "of 7", "2026-12-02T08:10:00.250Z so far")
    kept = Fact("Results expire", "in 2026-12-04T08:10:00Z")
    busy = Fact("Processes", "2", "of 2 busy", is_live=True)
    at_s = 1_796_199_000.0
    state = {"facts": [slowest, kept, busy], "ended_s": at_s + 12.3, "spent_usd": 0.42, "budget_usd": 5.0}
    text = " ".join(Seen(static_html.output(*made(**state), "Batch").replace("<br>", " ")).text.split())
    assert "Slowest So<fi of 7 12 s so far" in text
    assert "Results expire on 2026-12-04 at 08:10 UTC" in text
    assert "Spent $0.42 of $5.00" in text
    assert "busy" not in text


def test_a_rollback_says_that_nothing_is_kept():
    """As the panel does; no other end says so."""
    assert "0 recorded rolled back: nothing kept" in " ".join(
        Seen(static_html.output(*made(state="rolled_back"), "Batch").replace("<br>", " ")).text.split()
    )
    assert "nothing kept" not in static_html.output(*made(state="cancelled"), "Batch")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (99.94, "99.9 s"), (99.96, "1 m 40 s"), (3599.6, "1 h 00 m"), (90000.0, "25 h 00 m")],
)
def test_durations_are_said_as_people_do(seconds, words):
    assert static_html.span(seconds) == words


def test_the_worst_groups_come_first():
    """Of a thousand batches forty are shown, those with failures above all."""
    groups = {
        number: Group(
            number=number, name=f"Batch {number}", status="completed", items=5, done=5, failed=number % 100 == 0
        )
        for number in range(1, 1001)
    }
    groups[777].status, groups[777].failed = "skipped", 4
    source = static_html.output(*made(groups=groups), "Batch")
    head, *rows = rows_of(source)
    assert head == ["Batch", "Status", "Items", "Failed"]
    assert [row[0] for row in rows][:5] == ["777", "100", "200", "300", "400"]
    assert len(rows) == 40
    assert "and 960 more with fewer failures" in source


def test_a_group_that_completed_with_failures_says_so():
    """No green tick where some of it failed."""
    groups = {
        number: Group(number=number, name=f"Batch {number}", status="completed", items=5, done=5, failed=failed)
        for number, failed in ((1, 0), (2, 3))
    }
    _, *rows = rows_of(static_html.output(*made(groups=groups), "Batch"))
    assert [row[1] for row in rows] == ["◐ with failures", "✓ completed"]


def test_what_is_cut_stands_whole_in_its_title():
    """A row is one line, with an ellipsis; the pointer tells the rest, up to two thousand characters."""
    error = "HTTP 503 <b>" * 100
    source = static_html.output(*made(failures={"a" * 400: ended("a" * 400, error=error)}), "Batch")
    titles = list(map(entities.unescape, re.findall(r' title="([^"]*)"', source)))
    assert titles == ["a" * 400, error]


def test_right_to_left_texts_turn_nothing_around():
    """Each is isolated where it stands; what overrides a direction is named."""
    name = "שלום 42"
    source = static_html.output(*made(name=name, reason="a\u202egpj.exe", failures={name: ended(name)}), "Batch")
    assert source.count("<bdi") == 2
    assert "<b><bdi>שלום 42</bdi></b>" in source
    assert "a&lt;U+202E&gt;gpj.exe" in source


def test_columns_of_items_are_left_out_where_each_group_is_one():
    """Its status says it: "1" in every row says nothing."""
    one, many = (Group(number=1, name="Partition 1", status="completed", items=items, done=items) for items in (1, 2))
    titles = [[column[0] for column in static_html.group_sheet([each], "Partition").columns] for each in (one, many)]
    assert "Items" not in titles[0]
    assert "Failed" not in titles[0]
    assert "Items" in titles[1]


def test_what_was_only_cancelled_did_not_fail():
    """The partition that failed comes first, not one that was ended because of it."""
    ends = [("cancelled", "cancelled"), ("failed", "Out of memory")]
    groups = {
        number: Group(number=number, name=f"Partition {number}", status=status, items=1, done=1, failed=1, error=error)
        for number, (status, error) in enumerate(ends, start=1)
    }
    assert rows_of(static_html.output(*made(groups=groups), "Partition"))[1:] == [
        ["2", "✕ failed", "Out of memory"],
        ["1", "⊘ cancelled", ""],
    ]


def test_columns_of_the_workload_are_shown():
    """Their titles and values, numbers with their thousands; a group with a name of its own has it."""
    group = Group(number=1, name="Kendari", status="completed", items=3, done=2, extra={"Rows": 1295, "Site": "KDI"})
    assert rows_of(static_html.output(*made(groups={1: group}), "Site")) == [
        ["Site", "Status", "Rows", "Site", "Items"],
        ["Kendari", "✓ completed", "1,295", "KDI", "2 of 3"],
    ]


def test_without_groups_the_worst_items_come_first():
    """Failures, newest first, then time-outs; the latest others only fill the table."""
    told = [
        ended("a", "timeout", "Exceeded 5 s"),
        ended("b"),
        ended("c"),
        *[ended(f"ok {n}", "completed", "") for n in range(20)],
    ]
    snapshot, summary = made(failures={item.key: item for item in told[:3]})
    snapshot.recent.extend(told)
    _, *rows = rows_of(static_html.output(snapshot, summary, "Batch"))
    assert [row[0] for row in rows] == ["c", "b", "a", "ok 19", "ok 18", "ok 17", "ok 16", "ok 15", "ok 14", "ok 13"]


def test_a_long_error_is_cut():
    """A page of an error does not push the table away."""
    text = Seen(static_html.output(*made(failures={"a": ended("a", error="e" * 5000)}), "Batch")).text
    assert "e" * (static_html.LONGEST - 1) + "…" in text
    assert "e" * static_html.LONGEST not in text


def test_the_static_form_is_small():
    """A notebook is saved with it: forty rows stay under forty kilobytes."""
    groups = {
        n: Group(number=n, name=f"Batch {n}", status="failed", items=5, failed=5, error="HTTP 500") for n in range(500)
    }
    assert len(static_html.output(*made(groups=groups), "Batch")) < 40_000


def test_colours_survive_jupyterlab():
    """It drops a colour whose opacity has no digit before the point, and a colour that is no plain one."""
    source = static_html.output(
        *made(counts=Counts(completed=1, skipped=1, total=2), failures={"a": ended("a")}), "Batch"
    )
    colours = re.findall(r"(?:color|background):([^;\"]+)", source)
    assert colours
    assert all(re.fullmatch(r"#[0-9a-f]{6}|rgba\(127,127,127,0\.\d+\)|transparent", colour) for colour in colours)


def test_a_saved_notebook_is_converted_with_its_table(plan, clock):
    """The output of a real run, in nbconvert's HTML: table and bar are there, and no script of ours."""

    async def work(item):
        await asyncio.sleep(0.1)
        if item == 3:
            raise Permanent(ATTACKS[1])

    session = plan(
        work, list(range(10)), limits=Limits(batch_size=5), retry=Retry(attempts=1), breaker=Breaker(failures=9)
    )
    clock.run(session)
    source = static_html.output(session.snapshot, session.summary, "Batch")
    output = nbformat.v4.new_output("display_data", {"text/html": source, "text/plain": str(session.summary)})
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("session", outputs=[output], execution_count=1)]
    )
    nothing = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("session", execution_count=1)])
    page, plain = (HTMLExporter().from_notebook_node(book)[0] for book in (notebook, nothing))
    assert rows_of(page) == rows_of(source)
    assert rows_of(page)[1] == ["3", "✕ failed", "1", "0.1 s", ATTACKS[1]]
    assert "█" * 36 + "</span>" in page
    assert page.count("<script") == plain.count("<script")


ATTACK = "<img src=x onerror=alert(1)>"
PAGE_TAGS = {"html", "head", "meta", "title", "style", "body", "main", "h2", "p", "svg", "path", "rect", "text"}
PAGE_TAGS |= {"div", "span", "b", "br", "small", "table", "thead", "tbody", "tr", "th", "td", "bdi", "colgroup", "col"}
PAGE_ATTRIBUTES = {
    "lang",
    "charset",
    "name",
    "content",
    "style",
    "class",
    "align",
    "title",
    "viewbox",
    "role",
    "aria-label",
    "tabindex",
}
PAGE_ATTRIBUTES |= {"d", "x", "y", "width", "height", "text-anchor"}


class SeenPage(HTMLParser):
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
    seen = SeenPage(path.read_text(encoding="utf-8"))
    for words in ("wishlist", "Timeline", "Batch: 6", "Did not complete", "Log", "60 of 60", "Batch 6 began: 10 items"):
        assert words in seen.text
    assert seen.classes.count("sheet") == 3
    # What is wider than the page is scrolled by keys, too.
    source = path.read_text(encoding="utf-8")
    assert re.findall(r'class="box" tabindex="0" role="region" aria-label="([^"]+)"', source) == [
        "Groups",
        "What did not complete",
        "Log",
    ]
    assert seen.text.count(f"no such game: 53 {ATTACK}") == 2  # of itself, and in the log
    assert seen.text.count("attempt 1, ") == 6
    assert seen.classes.count("partly") == 6, "a bar each"
    assert "completed with failures" in seen.text
    assert seen.text.count("Planned: 60 items") == 1, "when it was made; its beginning adds nothing"


def test_the_page_needs_nothing_else(wishlist, tmp_path):
    """No script, no outside address, nothing that a text from outside could bring in; light and dark."""
    source = wishlist.export_html(tmp_path / "wishlist.html").read_text(encoding="utf-8")
    seen = SeenPage(source)
    assert set(seen.tags) <= PAGE_TAGS
    assert seen.attributes <= PAGE_ATTRIBUTES
    assert not re.search(r"https?:|url\(|@import|//", source)
    assert "prefers-color-scheme: dark" in source


page_texts = st.one_of(st.sampled_from([ATTACK, "</style><script>alert(1)</script>", "'\"><b>"]), st.text(max_size=30))


@given(said=st.tuples(page_texts, page_texts, page_texts, page_texts, page_texts, page_texts))
def test_text_from_outside_is_text_on_the_page(said):
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
    seen = SeenPage(static_page.page(Facts(told.snapshot, told.summary, word, 3.0), [failed]))
    assert set(seen.tags) <= PAGE_TAGS
    assert seen.attributes <= PAGE_ATTRIBUTES
    assert seen.tags.count("title") == seen.tags.count("style") == 1


def test_secrets_are_masked_on_the_page(wishlist, tmp_path, monkeypatch):
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


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_who_may_read_the_page_is_the_users_to_say(wishlist, tmp_path, umask, mode):
    """It is made as any other file of theirs."""
    before = os.umask(umask)
    try:
        path = wishlist.export_html(tmp_path / "wishlist.html")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode


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

    monkeypatch.setattr(static_page.Path, "write_text", full)
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
    before = static_page._read(wishlist)
    lines, source = len(before.snapshot.story), static_page.page(before, [])
    wishlist._feed.emit(events.StateChanged(1.0, "running", ""))
    wishlist._feed.emit(events.GroupStarted(1.0, 1, "Batch 1", 99))
    wishlist._feed.emit(events.AttemptStarted(1.0, "a", 1, 1))
    wishlist._feed.emit(events.ItemEnded(900.0, "a", 1, "failed", 1, 1.0, "later"))
    assert len(before.snapshot.story) == lines
    assert static_page.page(before, []) == source


def test_a_reopened_session_tells_its_past(wishlist, journal, tmp_path):
    """The journal knows when items ended and why they failed: another process writes the same timeline and failures."""
    session = BatchSession.open("wishlist", journal=journal)
    seen = SeenPage(session.export_html(tmp_path / "again.html").read_text(encoding="utf-8"))
    assert "Timeline" in seen.text
    assert "tried" in seen.classes
    assert seen.text.count(f"no such game: 53 {ATTACK}") == 2  # of its batch, and of itself


def test_failures_that_were_rolled_back_are_told(plan, clock, tmp_path):
    """The journal has discarded them; who reads the page still learns why."""
    session = plan(work, [1, 3], on_failure="rollback", retry=Retry(attempts=1))
    clock.run(session)
    assert f"no such game: 3 {ATTACK}" in SeenPage(session.export_html(tmp_path / "a.html").read_text("utf-8")).text


def test_a_planned_session_has_a_page(plan, tmp_path):
    """Nothing has happened yet: no timeline, no failures."""
    seen = SeenPage(plan(work, [1, 2]).export_html(tmp_path / "a.html").read_text(encoding="utf-8"))
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

    assert static_page.page(facts(groups=groups(2000)), []).count("<tr>") == 2001
    source = static_page.page(facts(groups=groups(3000)), [])
    assert source.count("<tr>") == 2001
    assert "The 2,000 with most failures, of 3,000." in source
    assert source.index(">2500<") < source.index(">1<")


def test_failures_are_taken_from_the_worst_groups(plan, clock, monkeypatch):
    """As many as fit, a few hundred at a time, however many groups there are."""
    monkeypatch.setattr(static_page, "FAILURES", 7)
    monkeypatch.setattr(static_page, "_AT_ONCE", 2)
    session = plan(work, list(range(60)), limits=Limits(batch_size=10), retry=Retry(attempts=1), breaker=None)
    clock.run(session)
    failed = list(static_page._failures(session))
    assert [item.key for item in failed] == ["3", "5", "13", "15", "23", "25", "33"]
    monkeypatch.setattr(static_page, "FAILURES", 500)
    assert len(list(static_page._failures(session))) == 12
