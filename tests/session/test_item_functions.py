"""The user's functions of an item (per, cost, rank, skip, priority, key), when they raise or return nonsense."""

import asyncio
import math
import sys
from fractions import Fraction

import pytest

from ipybatch import InputError, Limits, Permanent, Rate, secret
from ipybatch.engine.data import events, masking
from ipybatch.engine.data.plan import Again
from ipybatch.engine.store import resources
from tests.works import worst

TOKENS = Limits(concurrency=10, rates=[Rate(100, per_s=1.0), Rate(1000, per_s=60.0, unit="tokens")])
LANES = Limits(concurrency=10, rates=[Rate(10, per_s=1.0)], each=Limits(concurrency=10, rates=[Rate(50, per_s=1.0)]))


class Asked:
    """Work that notes what it was asked, and when; some items fail the first time."""

    def __init__(self, clock, fails=()):
        self.clock, self.fails = clock, set(fails)
        self.asked, self.at = [], []

    async def __call__(self, item):
        self.asked.append(item)
        self.at.append(self.clock.now_s())
        if self.fails and item in self.fails:
            self.fails.remove(item)
            raise ConnectionError


class Unspeakable:
    def __repr__(self):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("nonsense", "words"),
    [
        (lambda item: {}["region"], "per= raised KeyError: 'region'"),
        (lambda item: "", "got ''"),
        (lambda item: "  ", "got ' '"),
        (lambda item: None, "got None"),
        (lambda item: True, "got True"),
        (lambda item: math.nan, "got nan"),
        (lambda item: 1.5, "got 1.5"),
        (lambda item: [], r"got \[\]"),
        (lambda item: ["eu", None], "got None"),
        (lambda item: [("user", 7, 8)], r"got \('user', 7, 8\)"),
        (lambda item: [(7, "user")], r"got \(7, 'user'\)"),
        (lambda item: [["user", 7]], r"got \['user', 7\]"),
        (lambda item: b"eu", "got b'eu'"),
        (lambda item: Unspeakable(), "got <Unspeakable>"),
        (lambda item: "bad\udce9name", r"got 'bad\\udce9name'"),
        (lambda item: sys.exit(3), "per= raised SystemExit: 3"),
    ],
)
@pytest.mark.parametrize("as_generator", [False, True], ids=["list", "generator"])
def test_an_item_without_a_limit_group_fails_alone(plan, clock, nonsense, words, as_generator):
    """Told why by its field; it is not sent, the common limits hold for the others, and so they do at a resume."""
    work = Asked(clock)
    items = [f"{'x' if number % 3 == 0 else 'eu'}-{number}" for number in range(60)]
    given = iter(items) if as_generator else items
    session = plan(work, given, limits=LANES, per=lambda item: nonsense(item) if item[0] == "x" else "eu")
    assert str(clock.run(session)) == "wishlist completed: 40/60 successful, 20 failed, 0 skipped"
    assert sorted(work.asked) == sorted(item for item in items if item[0] != "x")
    assert worst(work.at, 1.0) <= 10
    failed = session.results().query("status == 'failed'")
    assert failed["error"].str.contains(words).all()
    assert failed["error"].str.startswith("per= ").all()
    assert session.snapshot.breaker.failures == 0
    again = plan(Asked(clock), items, limits=LANES, per=lambda item: "eu")
    assert clock.run(again).counts.failed == 20


def test_it_is_asked_again_by_a_retry(plan, clock):
    """The table that lacked its region has it now."""
    table = {"a": "eu"}
    session = plan(Asked(clock), ["a", "b"], limits=LANES, per=lambda item: table[item])
    assert clock.run(session).counts.failed == 1
    table["b"] = "us"
    session._open_run(Again(frozenset({"failed"})))
    clock.run_coroutine(session._drive())
    assert session.counts.completed == 2


def test_per_is_asked_once_an_item(plan, clock):
    """However often the scheduler looks, and an item is tried."""
    asked = []

    def per(item):
        asked.append(item)
        return item % 3

    work = Asked(clock, fails={4, 5})
    session = plan(work, list(range(12)), limits=Limits(concurrency=2, each=Limits(concurrency=1)), per=per)
    assert clock.run(session).counts.completed == 12
    assert sorted(asked) == list(range(12))


LIKE_EACH_OTHER = [("1", 1), ("a / b", "a"), ('"a"', "a"), ("None", "none"), ("a", "a "), ("a\x1f", "a\\x1f")]


@pytest.mark.parametrize(("one", "other"), LIKE_EACH_OTHER)
def test_groups_that_read_alike_are_apart(plan, clock, one, other):
    """Each has the window of its own, here and after a restart."""
    limits = Limits(concurrency=9, each=Limits(concurrency=9, rates=[Rate(3, per_s=3600.0)]))
    names = {"x": one, "y": other}
    for part in range(2):
        resources._resources.clear()  # what a new process knows: nothing
        work = Asked(clock)
        began_s = clock.now_s()
        items = [f"{name}{number}" for name in "xy"[: part + 1] for number in range(3)]
        assert clock.run(plan(work, items, limits=limits, per=lambda item: names[item[0]])).counts.completed
        assert work.at[-1] - began_s < 10


def test_a_resource_that_reads_like_a_group_is_apart(plan, clock):
    """`resource="api / eu"` is not the group "eu" of `resource="api"`."""
    limits = Limits(concurrency=9, each=Limits(concurrency=9, rates=[Rate(3, per_s=3600.0)]))
    clock.run(plan(Asked(clock), [1, 2, 3], resource="api", limits=limits, per=lambda item: "eu"))
    work = Asked(clock)
    began_s = clock.now_s()
    own = Limits(concurrency=9, rates=[Rate(3, per_s=3600.0)])
    clock.run(plan(work, [1, 2, 3], name="other", resource="api / eu", limits=own))
    assert work.at[-1] - began_s < 10


@pytest.mark.parametrize(
    ("nonsense", "words"),
    [
        (lambda: {}["tokens"], "cost= raised KeyError: 'tokens'"),
        (lambda: "5", "cost= must return a number of tokens >= 0, or a mapping of units to numbers, got '5'"),
        (lambda: None, "got None"),
        (lambda: True, "got True"),
        (lambda: math.nan, "got nan"),
        (lambda: math.inf, "got inf"),
        (lambda: -1, "got -1"),
        (lambda: [1], "[1]"),
        (lambda: {"tokens": "5"}, "cost= must return a number of tokens"),
        (lambda: {"tokens": math.nan}, "got nan"),
        (lambda: {"usd": -1}, "cost= must return a number of usd"),
        (lambda: {"requests": -1}, "cost= must return a number of requests"),
        (lambda: 1001, "cost must be >= 0 and <= 1000 tokens, got 1001"),
    ],
)
@pytest.mark.parametrize("lanes", [False, True], ids=["", "lanes"])
def test_a_cost_that_is_none_fails_its_item_alone(plan, clock, nonsense, words, lanes):
    """It is not sent and takes nothing of any window; the breaker learns nothing of it."""
    work = Asked(clock)
    lane = {"per": lambda item: "eu"} if lanes else {}
    limits = Limits(concurrency=10, rates=TOKENS.rates, each=Limits() if lanes else None)
    session = plan(work, [1, 2, 3], limits=limits, cost=lambda item: nonsense() if item == 1 else 10, **lane)
    assert str(clock.run(session)) == "wishlist completed: 2/3 successful, 1 failed, 0 skipped"
    assert words in session.results()["error"][0]
    assert sorted(work.asked) == [2, 3]
    assert [window.used(clock.now_s()) for window in session._run.runner.resource.limiter.windows.values()] == [2, 20]


def test_costs_may_be_numbers_of_any_kind(plan, clock):
    session = plan(Asked(clock), [1, 2], limits=TOKENS, cost=lambda item: Fraction(item, 2))
    assert clock.run(session).counts.completed == 2


@pytest.mark.parametrize(
    ("field", "nonsense", "words"),
    [
        ("rank", lambda: {}["age"], "rank= raised KeyError: 'age' for item b"),
        ("rank", lambda: sys.exit(3), "rank= raised SystemExit: 3 for item b"),
        ("skip", lambda: sys.exit(3), "skip= raised SystemExit: 3 for item b"),
        ("priority", lambda: sys.exit(3), "priority= raised SystemExit: 3 for item b"),
        ("rank", lambda: math.nan, "rank= must return a whole number, got nan for item b"),
        ("rank", lambda: 1.5, "got 1.5 for item b"),
        ("rank", lambda: "1", "got '1' for item b"),
        ("rank", lambda: None, "got None for item b"),
        ("rank", lambda: 2**64, "got 18446744073709551616 for item b"),
        ("skip", lambda: {}["age"], "skip= raised KeyError: 'age' for item b"),
        (
            "skip",
            lambda: True,
            'skip= must return a text: why the item need not run, "" if it must, got True for item b',
        ),
        ("skip", lambda: 1, "got 1 for item b"),
        ("priority", lambda: {}["age"], "priority= raised KeyError: 'age' for item b"),
        ("priority", lambda: "urgent", "priority must be one of 'high', 'medium', 'low', got 'urgent', for item b"),
        ("priority", lambda: None, "got None, for item b"),
        ("priority", lambda: ["high"], "got ['high'], for item b"),
    ],
)
def test_what_a_plan_cannot_be_made_of_is_refused_before_anything_runs(plan, clock, field, nonsense, words):
    """By field and item, and the name stays free: the same session is made again, and runs."""
    right = {"rank": 1, "skip": "", "priority": "medium"}[field]
    work = Asked(clock)
    session = plan(work, ["a", "b"], **{field: lambda item: nonsense() if item == "b" else right})
    with pytest.raises(InputError) as caught:
        clock.run(session)
    assert words in str(caught.value)
    assert work.asked == []
    assert clock.run(plan(work, ["a", "b"], **{field: lambda item: right})).counts.completed == 2


def test_what_a_brought_item_cannot_be_ranked_by_fails_the_one_that_brings_it(plan, clock):
    async def work(item, attempt):
        if item == "guild":
            attempt.add(["member"])

    session = plan(work, ["guild"], rank=lambda item: {"guild": 1}[item])
    assert clock.run(session).counts.failed == 1
    assert "rank= raised KeyError: 'member' for item member" in session.results()["error"][0]
    assert session.counts.total == 1


class NoId:
    @property
    def id(self):
        raise KeyError("id")


@pytest.mark.parametrize(
    ("wrong", "key"),
    [({}, lambda item: item["app"]), (NoId(), None), ({"app": None}, lambda item: item["app"]), (math.nan, None)],
    ids=["raises", "property", "none", "nan"],
)
def test_an_item_without_a_key_is_refused_in_a_list_and_fails_alone_in_a_generator(plan, clock, wrong, key):
    """Named by its place; what comes after it runs."""
    items = [{"app": 1}, wrong, {"app": 2}]
    with pytest.raises(InputError, match=r"item 1 .* has no stable key"):
        plan(Asked(clock), items, key=key)
    session = plan(Asked(clock), iter(items), key=key)
    assert str(clock.run(session)) == "wishlist completed: 2/3 successful, 1 failed, 0 skipped"
    assert "has no stable key" in session.results()["error"].str.cat()


def give_up(item):
    raise item["gives_up"]


@pytest.mark.parametrize("gives_up", [SystemExit(3), GeneratorExit(), asyncio.CancelledError()], ids=repr)
def test_a_key_function_that_exits_fails_that_item_alone(plan, clock, gives_up):
    """It is no word of the generator's: what that still gives runs. In a list it is refused, by its place."""
    items = [{"gives_up": gives_up} if number == 2 else {"id": number} for number in range(5)]

    def key(item):
        return item["id"] if "id" in item else give_up(item)

    with pytest.raises(InputError, match=r"item 2 .* has no stable key: key= raised"):
        plan(Asked(clock), items, key=key)
    session = plan(Asked(clock), iter(items), key=key)
    assert str(clock.run(session)) == "wishlist completed: 4/5 successful, 1 failed, 0 skipped"
    assert f"key= raised {type(gives_up).__name__}" in session.results()["error"][2]


def test_an_interrupt_in_a_key_function_is_the_caller_s(plan, clock):
    """Ctrl-C while a list is looked at ends that; in the thread of a generator it can only be the function's own."""
    with pytest.raises(KeyboardInterrupt):
        plan(Asked(clock), [{"gives_up": KeyboardInterrupt()}], key=give_up)
    assert clock.run(plan(Asked(clock), iter([{"gives_up": KeyboardInterrupt()}] * 2), key=give_up)).counts.failed == 2


def test_a_generator_that_exits_ends_the_session(plan, clock):
    def items():
        yield 1
        sys.exit(3)

    summary = clock.run(plan(Asked(clock), items()))
    assert (summary.state, summary.counts.completed) == ("failed", 1)
    assert "SystemExit: 3" in summary.reason


@pytest.mark.parametrize("brought", [False, True])
def test_why_an_item_is_left_out_is_masked_and_one_line(plan, clock, journal, monkeypatch, brought):
    monkeypatch.setattr(masking, "_secrets", ())
    secret("topsecret99")

    async def work(item, attempt):
        attempt.add(["b"])

    why = "have it: topsecret99 \x1b[31mred\nand \ud800 "
    session = plan(work, ["a"] if brought else ["a", "b"], skip=lambda item: why * 99 if item == "b" else "")
    clock.run(session)
    told = session.results()["error"][1]
    assert told.startswith("have it: *** red and ? have it: *** red")
    assert len(told) <= 500
    assert b"topsecret99" not in b"".join(path.read_bytes() for path in journal.parent.glob("journal.db*"))


class Odd(Permanent):
    kind = "topsecret99\ud800"
    advice = "do not say topsecret99\ud800"


def test_what_an_error_says_of_itself_is_masked(plan, clock, monkeypatch):
    """And is what a file can hold: else the session would fail."""
    monkeypatch.setattr(masking, "_secrets", ())
    secret("topsecret99")

    async def work(item):
        raise Odd("no")

    session, kinds = plan(work, [1]), []
    session.on(lambda event: kinds.append(event.kind) if isinstance(event, events.ItemEnded) else None)
    assert clock.run(session).counts.failed == 1
    assert kinds == ["***?"]


def test_why_a_listener_was_dropped_is_masked_whatever_it_raised(plan, clock, monkeypatch):
    monkeypatch.setattr(masking, "_secrets", ())
    secret("topsecret99")

    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    def listener(event):
        raise Mute

    def on_progress(done, total):
        raise ValueError("topsecret99\x1b[31m")

    session = plan(Asked(clock), [1, 2], on_progress=on_progress)
    session.on(listener)
    session.note("topsecret99 \x1b[31m")
    assert clock.run(session).counts.completed == 2
    assert [note for note in session.snapshot.notes if "topsecret99" in note or not note.isprintable()] == []
    assert sum("a listener was dropped" in note for note in session.snapshot.notes) == 2


def test_an_estimate_counts_what_is_refused_as_nothing(plan):
    """And is not ended by it."""
    session = plan(Asked(None), ["eu", "x", "eu2"], limits=LANES, per=lambda item: {"eu": "eu", "eu2": "eu"}[item])
    assert session.estimate(latency_s=1.0).requests == 2


@pytest.mark.parametrize("as_generator", [False, True], ids=["list", "generator"])
def test_what_is_refused_waits_for_no_limit_and_holds_up_nobody(plan, clock, as_generator):
    """Neither spacing nor window nor cool-down knows of it: also of what a generator gives twice."""
    work = Asked(clock)
    items = ["a", *(["a"] * 30 if as_generator else [f"x{number}" for number in range(30)]), "b"]
    limits = Limits(concurrency=2, spacing_s=10.0, rates=[Rate(2, per_s=3600.0)])
    cost = None if as_generator else lambda item: {"requests": 1 if item[0] != "x" else -1}
    began_s = clock.now_s()
    session = plan(work, iter(items) if as_generator else items, limits=limits, cost=cost)
    assert str(clock.run(session)) == "wishlist completed: 2/32 successful, 30 failed, 0 skipped"
    assert [round(at - began_s) for at in work.at] == [0, 10]
