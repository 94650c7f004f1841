"""The static form: what a saved notebook shows without a kernel."""

import asyncio
import html as entities
import re
from html.parser import HTMLParser

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbconvert import HTMLExporter

from ipybatch import Breaker, Limits, Permanent, Retry
from ipybatch.engine.data import events, masking
from ipybatch.engine.data.events import Counts
from ipybatch.engine.data.outcome import Summary
from ipybatch.engine.feed.snapshot import Group, Snapshot
from ipybatch.jupyter import still

ATTACKS = [
    "<img src=x onerror=alert(1)>",
    "</td></table><script>alert(1)</script>",
    "\"'><svg onload=alert(1)>",
    "&lt;b>",
]
texts = st.one_of(st.sampled_from(ATTACKS), st.text(max_size=40))
TAGS = {"div", "span", "b", "br", "small", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"}
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
        if tag != "br":
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
    seen = Seen(still.html(*made(**fields), word))
    assert seen.tags <= TAGS
    assert seen.attributes <= {"style", "align"}
    assert not re.search(r"url|expression|@|<|&", "".join(seen.styles))


@pytest.mark.parametrize("attack", ATTACKS)
def test_text_from_outside_is_shown_as_it_is(attack):
    """It is not swallowed either: the reader sees what the error said."""
    assert (
        Seen(still.html(*made(name=attack, failures={"a": ended("a", error=attack)}), "Batch")).text.count(attack) == 2
    )


def test_money_is_not_a_formula():
    """JupyterLab and GitHub take what is between two dollar signs, and after a backslash, for TeX."""
    source = still.html(*made(reason=r"$0.84 of $5, \[x\]"), "Batch")
    for piece in re.split(r"<[^>]*>", source):
        assert piece in ("$", "\\") or not set(piece) & set("$\\")
    assert r"$0.84 of $5, \[x\]" in Seen(source).text


def test_secrets_are_masked(monkeypatch):
    """In every text, before it is made short, so that no half of one is left."""
    monkeypatch.setattr(masking, "_secrets", ())
    masking.register("hunter2secret")
    error = "x" * (still.LONGEST - 5) + "hunter2secret"
    group = Group(
        number=1, name="hunter2secret", status="failed", items=1, error=error, extra={"hunter2secret": "hunter2secret"}
    )
    told = {"hunter2secret": ended("hunter2secret", error=error)}
    for groups in ({}, {1: group}):
        source = still.html(
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
        (Counts(completed=3, total=None), "█" * 40 + " 100 %"),
    ],
)
def test_the_bar_is_text_where_styles_are_taken_away(counts, bar):
    """GitHub keeps no style: what is left of the bar says the same."""
    assert bar in Seen(still.html(*made(counts=counts), "Batch")).text


@given(shares=st.lists(st.integers(0, 10_000), min_size=6, max_size=6))
def test_the_bar_is_as_long_as_it_is(shares):
    """Forty characters, however the counts are rounded."""
    names = ["completed", "failed", "timeout", "cancelled", "skipped", "pending"]
    counts = Counts(**dict(zip(names, shares, strict=True)), total=sum(shares))
    assert len(re.findall("[█▚▞▓▒░]", still.html(*made(counts=counts), "Batch"))) == 40


def test_states_are_words_and_marks():
    """Colour says nothing that a word does not say."""
    counts = Counts(completed=7, failed=2, timeout=1, cancelled=3, skipped=4, total=17)
    text = Seen(still.html(*made(counts=counts), "Batch")).text
    assert (
        re.sub(r"\s+", " ", text).find("10 of 17 ✓ 7 completed ✕ 2 failed ◷ 1 timed out ⊘ 3 cancelled → 4 skipped") > 0
    )


def test_facts_are_told():
    """Rate, elapsed time and the breaker's last state stand above the table."""
    snapshot, summary = made(ended_here=300, started_s=1_700_000_000.0, ended_s=1_700_000_107.0)
    for state, failures, openings in [("open", 3, 1), ("half_open", 3, 1), ("closed", 0, 0), ("open", 3, 1)]:
        snapshot.apply(events.BreakerMoved(1.0, state, failures, openings, 61.0))
    text = Seen(still.html(snapshot, summary, "Batch")).text
    for fact in (
        "2.8 per s",
        "1 m 48 s",
        "ended 2023-11-14 22:15:07 UTC",
        "open",
        "opened 2 times, 3 failures in a row",
    ):
        assert fact in text


def test_a_session_without_a_breaker_tells_of_none():
    """To call one closed would promise what is not there; with nothing else to tell, there is no table either."""
    assert "Breaker" in still.html(*made(), "Batch")
    assert "Breaker" not in still.html(*made(), "Batch", has_breaker=False)
    assert "<td" not in still.html(Snapshot(), Summary("a", "planned", Counts(), "", 0.0), "Batch", has_breaker=False)


def test_a_rollback_says_that_nothing_is_kept():
    """As the panel does; no other end says so."""
    assert "0 recorded rolled back: nothing kept" in " ".join(
        Seen(still.html(*made(state="rolled_back"), "Batch").replace("<br>", " ")).text.split()
    )
    assert "nothing kept" not in still.html(*made(state="cancelled"), "Batch")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (99.94, "99.9 s"), (99.96, "1 m 40 s"), (3599.6, "1 h 00 m"), (90000.0, "25 h 00 m")],
)
def test_durations_are_said_as_people_do(seconds, words):
    assert still.span(seconds) == words


def test_the_worst_groups_come_first():
    """Of a thousand batches forty are shown, those with failures above all."""
    groups = {
        number: Group(
            number=number, name=f"Batch {number}", status="completed", items=5, done=5, failed=number % 100 == 0
        )
        for number in range(1, 1001)
    }
    groups[777].status, groups[777].failed = "skipped", 4
    source = still.html(*made(groups=groups), "Batch")
    head, *rows = rows_of(source)
    assert head == ["Batch", "Status", "Items", "Failed"]
    assert [row[0] for row in rows][:5] == ["777", "100", "200", "300", "400"]
    assert len(rows) == 40
    assert "and 960 more that went better" in source


def test_what_was_only_cancelled_did_not_fail():
    """The partition that failed comes first, not one that was ended because of it."""
    ends = [("cancelled", "cancelled"), ("failed", "Out of memory")]
    groups = {
        number: Group(number=number, name=f"Partition {number}", status=status, items=1, done=1, failed=1, error=error)
        for number, (status, error) in enumerate(ends, start=1)
    }
    assert rows_of(still.html(*made(groups=groups), "Partition"))[1:] == [
        ["2", "✕ failed", "1", "1", "Out of memory"],
        ["1", "⊘ cancelled", "1", "", ""],
    ]


def test_columns_of_the_workload_are_shown():
    """Their titles and values, numbers with their thousands; a group with a name of its own has it."""
    group = Group(number=1, name="Kendari", status="completed", items=3, done=2, extra={"Rows": 1295, "Site": "KDI"})
    assert rows_of(still.html(*made(groups={1: group}), "Site")) == [
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
    _, *rows = rows_of(still.html(snapshot, summary, "Batch"))
    assert [row[0] for row in rows] == ["c", "b", "a", "ok 19", "ok 18", "ok 17", "ok 16", "ok 15", "ok 14", "ok 13"]


def test_a_long_error_is_cut():
    """A page of an error does not push the table away."""
    text = Seen(still.html(*made(failures={"a": ended("a", error="e" * 5000)}), "Batch")).text
    assert "e" * (still.LONGEST - 1) + "…" in text
    assert "e" * still.LONGEST not in text


def test_the_static_form_is_small():
    """A notebook is saved with it: forty rows stay under forty kilobytes."""
    groups = {
        n: Group(number=n, name=f"Batch {n}", status="failed", items=5, failed=5, error="HTTP 500") for n in range(500)
    }
    assert len(still.html(*made(groups=groups), "Batch")) < 40_000


def test_colours_survive_jupyterlab():
    """It drops a colour whose opacity has no digit before the point, and a colour that is no plain one."""
    source = still.html(*made(counts=Counts(completed=1, skipped=1, total=2), failures={"a": ended("a")}), "Batch")
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
    source = still.html(session.snapshot, session.summary, "Batch")
    output = nbformat.v4.new_output("display_data", {"text/html": source, "text/plain": still.text(session.summary)})
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("session", outputs=[output], execution_count=1)]
    )
    nothing = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("session", execution_count=1)])
    page, plain = (HTMLExporter().from_notebook_node(book)[0] for book in (notebook, nothing))
    assert rows_of(page) == rows_of(source)
    assert rows_of(page)[1] == ["3", "✕ failed", "1", "0.1 s", ATTACKS[1]]
    assert "█" * 36 + "</span>" in page
    assert page.count("<script") == plain.count("<script")
