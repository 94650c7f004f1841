"""Text is text: whatever keys, errors, names and notes hold, each place shows it as given and nothing of it acts."""

import html
import re

import msgspec
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipybatch import InputError, Limits
from ipybatch.engine.data.events import Counts, GroupStarted, ItemEnded
from ipybatch.engine.data.masking import isolated, mask, printable
from ipybatch.engine.data.outcome import Summary
from ipybatch.engine.feed import event_text
from ipybatch.engine.feed.snapshot import Snapshot
from ipybatch.jupyter import messages, static_html
from ipybatch.jupyter.messages import Cursor

ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066\u2067]")
RTL = "שלום 42"
ZALGO = "Z\u0338\u0321\u0322\u0327algo"
GIVEN = {  # as the user gives it: as people read it
    "C:\\games\\xcom": "C:\\games\\xcom",
    'say "hi" twice': 'say "hi" twice',
    "it's": "it's",
    "two\nlines": "two lines",
    "a\ttab": "a tab",
    "\x07bell\x00": "bell",
    "a\u202egpj.exe": "a<U+202E>gpj.exe",
    "\u2067turned": "<U+2067>turned",
    "\x1b[31mred\x1b[0m": "red",
    ZALGO: ZALGO,
    "=1+1": "=1+1",
    "\uff1d1+1": "\uff1d1+1",
    "\n@SUM": " @SUM",
    "🎲👩‍👧": "🎲👩‍👧",
    RTL: RTL,
    "<b>&amp;</b>": "<b>&amp;</b>",
    "x" * 10_000: "x" * 10_000,
}


def texts_in(value):
    """Every text in what JSON holds."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in texts_in(each)]


def words_of(source):
    return html.unescape(re.sub("<[^>]*>", "", source))


@pytest.fixture
def shown(live, capsys, tmp_path):
    """What each place shows of a session whose keys are `GIVEN`, and whose errors are too; every second one fails."""

    def work(item):
        if list(GIVEN).index(item) % 2:
            raise ValueError(item)
        return {"said": item}

    session = live(work, list(GIVEN), limits=Limits(concurrency=1), breaker=None, retry=None)
    for text in GIVEN:
        session.note(text)
    session.run(verbose=True)
    update = messages.whole_update(session, Cursor(), frozenset({"rows", "pace", "moves", "log"}))
    return session, {
        "stderr": capsys.readouterr().err,
        "panel": "\n".join(texts_in(msgspec.to_builtins(update))),
        "log lines": "\n".join(line.text for line in event_text.lines(session.snapshot.story, session.snapshot.groups)),
        "static form": words_of(static_html.output(session.snapshot, session.summary, "Batch")),
        "page": words_of(session.export_html(tmp_path / "page.html").read_text(encoding="utf-8").split("<body>")[1]),
        "summary": str(session.summary),
    }


def test_every_place_shows_keys_as_given_and_nothing_acts(shown):
    """Decoded, not as JSON spells them; what would act is gone or named."""
    session, places = shown
    short = [said for said in GIVEN.values() if len(said) < 100]
    for place, text in places.items():
        assert ACTS.search(text) is None, place
        if place != "summary":
            plain = re.sub("[\u2068\u2069]", "", text)
            assert [said for said in short if said.strip() not in plain] == [], place
            assert "C:\\\\games" not in text, place
            assert '\\"hi' not in text, place
    assert session.results()["key"].tolist() == list(GIVEN)


def test_a_csv_has_the_keys_and_runs_none(shown, tmp_path):
    """What a spreadsheet takes for a formula stands behind an apostrophe; everything else is as given."""
    session, _ = shown
    frame = pd.read_csv(session.save(tmp_path / "out.csv"), dtype=str, keep_default_na=False, lineterminator=None)
    for key, cell in zip(GIVEN, frame["key"], strict=True):
        assert cell.removeprefix("'") in (key, key.replace("\x00", ""))
        assert cell.startswith("'") == (key in ("=1+1", "\uff1d1+1", "\n@SUM")), key


@pytest.mark.parametrize(
    "name", [*(text for text in GIVEN if ACTS.search(text) or "\n" in text), isolated(RTL), "x" * 201, "\udc80"]
)
def test_a_name_that_acts_is_refused_before_anything_is_spent(live, journal, name):
    called = []
    with pytest.raises(InputError, match="name must"):
        live(called.append, [1], name=name)
    assert called == []
    assert not journal.exists()


def test_a_key_that_no_file_can_hold_is_refused_and_an_error_of_such_is_shown(live):
    """Half a surrogate pair is no character."""
    with pytest.raises(InputError, match="has no stable key"):
        live(print, ["\ud800"]).run()

    def work(item):
        raise ValueError("half \ud800 a pair")

    session = live(work, [1], name="half", retry=None)
    session.run()
    assert session.results()["error"].tolist() == ["ValueError: half ? a pair"]


letters = st.text(st.sampled_from("ab \n\t\r\x00\x1b[0m]\u202a\u202e\u2066\u2067\u2068\u2069\u200fשע0."), max_size=12)


@given(name=letters, key=letters, error=letters)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_nothing_that_acts_reaches_a_form_unnamed(name, key, error):
    """Of any text: isolates are whole or named, and shown once more they stay as they are."""
    snapshot = Snapshot(name=printable(name), reason=error)
    ended = ItemEnded(1.0, printable(key), 0, "failed", 1, 0.1, error)
    snapshot.apply(GroupStarted(1.0, 1, name, 1))
    snapshot.apply(ended)
    summary = Summary(snapshot.name, "failed", Counts(), error, 1.0)
    lines = [line.text for line in event_text.lines(snapshot.story, snapshot.groups)]
    told = [*lines, printable(event_text.line_of(ended)), mask(str(summary))]
    for text in told:
        assert ACTS.search(text.replace("\n", "")) is None
        assert re.sub("\u2068[^\u2068\u2069]*\u2069", "", text).count("\u2068") == 0
        assert re.sub("\u2068[^\u2068\u2069]*\u2069", "", text).count("\u2069") == 0
        assert mask(text) == text
    assert ACTS.search(words_of(static_html.output(snapshot, summary, "Batch")).replace("\n", "")) is None


def test_what_is_read_from_right_to_left_turns_nothing_around():
    """A key stands in a line as an island; without such letters it is as it was."""
    assert isolated(RTL) == f"\u2068{RTL}\u2069"
    assert isolated(isolated(RTL)) == isolated(RTL)
    assert [isolated(text) for text in ("plain", "全角", ZALGO)] == ["plain", "全角", ZALGO]
    assert str(Summary(RTL, "completed", Counts(completed=1, total=1), "", 1.0)) == (
        f"\u2068{RTL}\u2069 completed: 1/1 successful, 0 failed, 0 skipped"
    )
