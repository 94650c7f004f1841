"""Sessions for the static forms: what each form is looked at and measured with."""

from __future__ import annotations

from typing import Any

from ipybatch.engine.data import events
from ipybatch.engine.data.events import Counts, Mark
from ipybatch.engine.data.fact import Fact
from ipybatch.engine.data.outcome import Summary
from ipybatch.engine.feed.snapshot import Group, Snapshot
from ipybatch.jupyter.static_page import Facts

BEGUN_S = 1_700_000_000.0
LONG = (
    "HTTP 503: the service of the shop in the region of eu-west-1 is not there for the moment, and asks to be called "
    "again later; the request was 8f9e7d6c-5b4a, the address /api/appdetails?appids=440&filters=price_overview"
)
HUGE = "a_name_that_no_space_can_break_" * 6
ZALGO = "Z" + "̸̡̢̧̨̛̖̗̘̙̜̝̞̟̠̣̤̥̦̩̪̫̬̭̮̯̰̱̲̳̹̺̻̼͇͈͉͍͎̀́̂̃̄̅̆̇̈̉̊̋̌̍̎̏̐̑̒̓̔̽̾̿̀́͂̓̈́͆͊͋͌͐͑͒͗͛ͣͤͥͦͧͨͩͪͫͬͭͮͯ" * 2 + "algo"
SCRIPTS = [
    "全角の名前がとても長いゲームのタイトル第二版完全版",
    "شتاء طويل جدا في المدينة 42",
    ZALGO,
    "a\u202egpj.exe",
    "=1+1",
    "👩‍👩‍👧‍👦 family",
]


def case(counts: Counts, state: str = "completed", **fields: Any) -> Facts:
    """Return the facts of a session that stands like that."""
    begun = {"started_s": BEGUN_S, "ended_s": BEGUN_S + 107.0 if state not in ("running", "planned") else 0.0}
    snapshot = Snapshot(**{"name": "wishlist", "state": state, "counts": counts, **begun, **fields})
    snapshot.ended_here = counts.ended
    snapshot.pace.marks = [Mark(BEGUN_S + at * 10.0, at * 40, at * 39, at * 2) for at in range(11)]
    return Facts(snapshot, Summary(snapshot.name, snapshot.state, counts, snapshot.reason, 107.96), "Batch", 5.0)


def batches(number: int, *, failed: int = 0, error: str = LONG, name: str = "Batch {}") -> dict[int, Group]:
    """Return groups of 15, the first ones failed."""
    return {
        at: Group(
            number=at,
            name=name.format(at),
            status="failed" if at <= failed else "completed",
            items=15,
            done=15,
            failed=15 if at <= failed else 0,
            started_s=BEGUN_S + at,
            ended_s=BEGUN_S + at + 1.4,
            error=error if at <= failed else "",
        )
        for at in range(1, number + 1)
    }


def failures(*keys: str, error: str = LONG) -> dict[str, events.ItemEnded]:
    """Return failed items."""
    return {key: events.ItemEnded(BEGUN_S, key, 0, "failed", 3, 1.25, error) for key in keys}


def cases() -> dict[str, Facts]:
    """Return what the forms are looked at with, by name."""
    jobs = batches(3, failed=1, name="Job {}")
    for number, job in jobs.items():
        job.extra = {"Model": "gemini-2.5-flash-lite", "Lane": "batch", "Tokens in": 1_204_310 * number, "USD": 0.8412}
    wide = dict(enumerate(SCRIPTS, 1))
    return {
        "none failed": case(Counts(completed=500, total=500), groups=batches(34)),
        "3 of 500": case(Counts(completed=497, failed=3, total=500), failures=failures("440", "570", "730")),
        "104 of 10,000": case(
            Counts(completed=9_896, failed=104, total=10_000),
            groups=batches(667, failed=7),
            failures=failures("440", "570"),
        ),
        "all failed": case(Counts(failed=60, total=60), "failed", groups=batches(4, failed=4), reason=LONG),
        "40 failed groups": case(Counts(completed=15, failed=600, total=615), groups=batches(41, failed=40)),
        "no total": case(Counts(completed=31, failed=1, running=3, total=None), "running"),
        "running": case(
            Counts(completed=310, failed=2, timeout=1, running=4, pending=183, total=500), "running", groups=batches(22)
        ),
        "rolled back": case(
            Counts(cancelled=6, failed=1, total=7),
            "rolled_back",
            groups=batches(7, failed=1, error="Out of memory"),
            reason="Partition 3 (Sofifi) failed: Out of memory",
        ),
        "one item": case(Counts(completed=1, total=1)),
        "all kinds": case(
            Counts(completed=9_990, failed=3, timeout=2, cancelled=1, skipped=1, running=1, pending=2, total=10_000),
            "running",
        ),
        "huge names": case(
            Counts(completed=1, failed=2, total=3),
            name=HUGE[:200],
            failures=failures(HUGE, "C:\\games\\xcom"),
            groups=batches(3, failed=1, name=HUGE + "{}", error=HUGE * 3),
            notes=[LONG, HUGE],
        ),
        "wide scripts": case(
            Counts(completed=2, failed=6, total=8),
            name=f"{ZALGO} {SCRIPTS[1]}",
            failures=failures(*SCRIPTS, error=f"{SCRIPTS[1]}: {ZALGO}"),
            groups={
                at: Group(number=at, name=name, status="failed", items=1, done=1, failed=1, error=name * 9)
                for at, name in wide.items()
            },
            notes=[ZALGO],
        ),
        "many facts": case(
            Counts(completed=60, total=60),
            facts=[Fact(f"Figure {at}", "1,024 MB", "of 2,048 MB", f"{ZALGO} {SCRIPTS[1]}") for at in range(7)],
        ),
        "jobs": case(Counts(completed=400, failed=15, total=415), groups=jobs),
    }
