"""What is not there is remembered, and a mass disappearance is not believed unasked."""

from __future__ import annotations

import asyncio
import shlex
from typing import Any

import httpx
import pytest

from ipybatch import BatchSession, Breaker, InputError, Limits, Rate, Retry
from ipybatch.library import Character, Guild, Library, SteamStore, refresh
from ipybatch.simulators import Faults

from .conftest import DAY_S, Azeroth, Shop

SLOW = Limits(concurrency=1, spacing_s=1)


def only(session: BatchSession) -> dict[str, Any]:
    (row,) = session.results().to_dict("records")
    return row


def asked_on(shop: Shop, days: range) -> list[int]:
    """Refresh game 440 every day, and return the days on which it was asked for."""
    asked = []
    for day in days:
        shop.asked.clear()
        shop.run([440])
        asked += [day] if shop.asked else []
        shop.clock.advance(DAY_S)
    return asked


# Remembered


def test_it_is_asked_for_again_after_1_then_7_then_every_30_days(shop: Shop) -> None:
    shop.open(missing={440})
    assert asked_on(shop, range(100)) == [0, 1, 8, 38, 68, 98]


def test_it_is_skipped_with_its_reason(shop: Shop) -> None:
    shop.open(missing={440})
    assert only(shop.run([440]))["error"] == "no such game, or not sold in US"
    shop.clock.advance(DAY_S)
    shop.run([440])
    shop.clock.advance(3 * DAY_S)
    row = only(shop.run([440]))
    assert (row["status"], row["error"]) == ("skipped", "not there: asked 3 d ago, again in 4 d")


def test_a_later_success_clears_it(shop: Shop) -> None:
    shop.open(missing={440})
    asked_on(shop, range(2))
    shop.open()
    shop.clock.advance(7 * DAY_S)
    assert shop.run([440]).counts.completed == 1
    assert shop.library.absent().empty
    assert shop.library.to_frame()["absent_since"].isna().all()


def test_force_asks_and_does_not_put_it_off_further(shop: Shop) -> None:
    shop.open(missing={440})
    for _ in range(4):
        shop.run([440], force=True)
    assert len(shop.asked) == 4
    assert shop.library.absent()["times"].tolist() == [1]


def test_forget_clears_it(shop: Shop) -> None:
    shop.open(missing={440, 570})
    shop.own(570, days=2)
    shop.run([440, 570])
    assert shop.library.forget("game", 440) == 1
    assert shop.library.absent()["key"].tolist() == [570]
    assert shop.library.forget() == 1  # the record and its mark are one
    shop.asked.clear()
    shop.run([440, 570])
    assert sorted(shop.asked) == ["440", "570"]


def test_a_held_record_stays_and_is_marked(shop: Shop) -> None:
    shop.own(440, days=3)
    shop.open(missing={440})
    shop.run([440])
    record = shop.library.get("game", 440)
    assert record is not None
    assert record.data == {"name": "old 440"}
    assert shop.library.to_frame()["absent_since"].notna().all()
    (row,) = shop.library.absent().to_dict("records")
    assert (row["kind"], row["key"], row["place"], row["name"], row["times"]) == ("game", 440, "us", "old 440", 1)
    assert (row["again_at"] - row["asked_at"]).total_seconds() == DAY_S
    assert shop.run([440]).counts.skipped == 1


def test_it_is_remembered_for_its_country_alone(shop: Shop) -> None:
    shop.open(not_sold_in={"DE": {440}})
    shop.run([440], cc="de")
    assert shop.run([440], cc="us").counts.completed == 1
    assert shop.run([440], cc="de").counts.skipped == 1


def test_an_older_record_does_not_clear_it(shop: Shop) -> None:
    """Such as one that is copied in from another library."""
    shop.library.mark_absent([(shop.store().identify(440), shop.clock.unix_s())])
    shop.own(440, days=3)
    assert len(shop.library.absent()) == 1


def test_other_errors_are_not_remembered(shop: Shop) -> None:
    """A game that answers 500 is asked for at every call."""
    shop.open(faults=Faults(rate_500=1.0))
    for _ in range(2):
        shop.run([440], breaker=None)
    assert shop.library.absent().empty
    assert len(shop.asked) == 6


def test_a_library_of_an_older_version_takes_it(shop: Shop) -> None:
    shop.own(440, days=0)
    database = shop.library._database
    database.execute("DROP TABLE absence")
    database.execute("DROP TRIGGER record_is_there")
    shop.library = Library(shop.library.path)
    shop.open(missing={570})
    shop.run([440, 570])
    assert shop.library.absent()["key"].tolist() == [570]


def test_what_a_wrong_clock_wrote_is_asked_for(shop: Shop) -> None:
    shop.open(missing={440})
    tomorrow_s = shop.clock.unix_s() + DAY_S
    shop.library.mark_absent([(shop.store().identify(440), tomorrow_s)])
    shop.run([440])
    assert shop.asked == ["440"]


# Bare 404s


def characters(n: int) -> list[Character]:
    return [Character("Kel'Thuzad", f"Hero{'abcdefghijklmnopqrstuvwxyz'[at]}") for at in range(n)]


def script(azeroth: Azeroth, items: list[Character], status: int = 404, times: int = 1) -> None:
    for item in items:
        realm, name = item.key.split("/")[1:]
        azeroth.script[f"/profile/wow/character/{realm}/{name}"] = [status] * times


def test_a_404_where_nothing_else_is_answered_is_not_remembered(azeroth: Azeroth) -> None:
    """The address may be wrong; what is corrected then must not be skipped for a day."""
    heroes = characters(6)
    script(azeroth, heroes)
    session = azeroth.run(heroes)
    assert session.counts.failed == 6
    assert any("is the address right?" in note for note in session.snapshot.notes)
    assert azeroth.library.absent().empty
    assert azeroth.run(heroes).counts.completed == 6


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
def test_a_404_among_others_is_remembered(azeroth: Azeroth, is_first: bool) -> None:
    heroes = characters(8)
    script(azeroth, heroes[:6] if is_first else heroes[2:])
    azeroth.run(heroes, limits=SLOW)
    assert len(azeroth.library.absent()) == 6
    assert azeroth.run(heroes).counts.skipped == 8


def test_a_guild_that_was_disbanded_adds_no_members(azeroth: Azeroth) -> None:
    """Neither on the day it is asked for nor while it is skipped."""
    wolves = Guild("Aerie Peak", "Wolves")
    whole = azeroth.run([wolves], expand="roster").counts.total
    assert whole is not None
    assert whole > 1
    azeroth.clock.advance(2 * DAY_S)
    azeroth.script["/data/wow/guild/aerie-peak/wolves"] = [404, 404]
    assert azeroth.run([wolves], expand="roster").counts.total == 1
    assert azeroth.run([wolves], expand="roster").counts.total == 1
    azeroth.clock.advance(DAY_S)
    assert azeroth.run([wolves], expand="roster").counts.total == whole


# A mass disappearance


def vanish(shop: Shop, gone: int, *, held: int = 20) -> range:
    """Hold games, of which the store has some no more."""
    for app_id in range(1, held + 1):
        shop.own(app_id, days=2)
    shop.open(missing=set(range(1, gone + 1)))
    return range(1, held + 1)


async def when_paused(session: BatchSession, then: Any) -> None:
    paused = asyncio.Event()
    session.on(lambda event: paused.set() if session.state == "paused" else None)
    await paused.wait()
    await asyncio.sleep(600)  # longer than timeout_s
    then()


@pytest.mark.parametrize(("gone", "held"), [(6, 30), (4, 5)], ids=["a fifth", "a few"])
def test_a_fifth_is_believed_and_a_few_are_too(shop: Shop, gone: int, held: int) -> None:
    session = shop.run(vanish(shop, gone, held=held), limits=SLOW)
    assert (session.state, session.counts.failed) == ("completed", gone)
    assert len(shop.library.absent()) == gone


def test_the_way_out_can_be_pasted_whatever_the_name_is(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    session = shop.session(vanish(shop, 20), limits=SLOW, name="it's `id` of $HOME")
    shop.clock.run(session, when_paused(session, session.resume))
    command = capsys.readouterr().err.partition("leaves the records as they are. ")[2].partition(", or cancel")[0]
    assert shlex.split(command) == ["python", "-m", "ipybatch", "resume", session.name]
    assert "`" not in command.replace(shlex.quote(session.name), "")


@pytest.mark.parametrize("limits", [SLOW, Limits(concurrency=20)], ids=["one by one", "at once"])
@pytest.mark.parametrize("gone", [6, 20])
def test_more_pauses_and_nothing_is_marked_before_the_answer(
    shop: Shop, limits: Limits, gone: int, capsys: pytest.CaptureFixture[str]
) -> None:
    session = shop.session(vanish(shop, gone), limits=limits)
    marked = []

    def answer() -> None:
        marked.append(len(shop.library.absent()))
        (note,) = [note for note in session.snapshot.notes if "not to be there" in note]
        assert "of 20 records" in note
        assert "resume() believes it" in note
        assert note in capsys.readouterr().err
        session.resume()

    notes: list[str] = []
    session.on("done", lambda *_: notes.extend(session.snapshot.notes) if marked else None)
    shop.clock.run(session, when_paused(session, answer))
    assert session.state == "completed"
    assert marked == [0]
    assert (session.counts.failed, session.counts.timeout) == (gone, 0)
    assert len(shop.library.absent()) == gone
    assert len(shop.library) == 20
    assert not [note for note in notes if "resume()" in note]


@pytest.mark.parametrize("limits", [SLOW, Limits(concurrency=20)], ids=["one by one", "at once"])
def test_cancel_leaves_the_records_as_they_are(shop: Shop, limits: Limits) -> None:
    session = shop.session(vanish(shop, 6), limits=limits)
    shop.clock.run(session, when_paused(session, session.cancel))
    assert session.state == "cancelled"
    assert shop.library.absent().empty
    shop.open()  # it was an outage
    assert shop.run(range(1, 21)).counts.failed == 0
    assert shop.library.by_staleness(now_s=shop.clock.unix_s())["fresh"] == 20


def test_what_was_never_held_and_what_is_known_counts_for_nothing(shop: Shop) -> None:
    """Games that are asked for again after a day, and new ones, are no disappearance."""
    session = shop.session(vanish(shop, 6))
    shop.clock.run(session, when_paused(session, session.resume))
    shop.clock.advance(DAY_S)
    shop.open(missing={*range(1, 7), *range(100, 120)})
    again = shop.run([*range(1, 7), *range(100, 120)])
    assert (again.state, again.counts.failed) == ("completed", 26)
    assert sorted(shop.library.absent()["times"]) == [1] * 20 + [2] * 6


def test_believe_goes_on(shop: Shop) -> None:
    session = shop.run(vanish(shop, 20), on_vanished="believe")
    assert (session.state, len(shop.library.absent())) == ("completed", 20)


def test_fail_ends_the_session_and_marks_nothing(shop: Shop) -> None:
    session = shop.run(vanish(shop, 20), on_vanished="fail", limits=SLOW)
    assert session.state == "failed"
    assert session.reason.startswith("5 of 20 records that this call asks for are said not to be there any more")
    assert len(shop.asked) == 5
    assert shop.library.absent().empty


def test_a_burst_of_404s_wipes_nothing(azeroth: Azeroth) -> None:
    """Battle.net may answer 404 where it means 429."""
    heroes = characters(26)
    for hero in heroes:
        azeroth.own(hero, days=2)
    script(azeroth, heroes[10:], times=2)
    session = azeroth.session(heroes)
    azeroth.clock.run(session, when_paused(session, session.cancel))
    assert azeroth.library.absent().empty
    script(azeroth, heroes, times=0)
    assert azeroth.run(heroes).counts.failed == 0
    assert azeroth.library.by_staleness(now_s=azeroth.clock.unix_s())["fresh"] == 26


def test_a_short_burst_of_404s_fails_nothing_that_is_held(azeroth: Azeroth) -> None:
    """What is held is asked for once more, a moment later, with a permit of its own."""
    heroes = characters(4)
    for hero in heroes:
        azeroth.own(hero, days=2)
    script(azeroth, heroes)
    session = azeroth.run(heroes, limits=Limits(concurrency=4, rates=[Rate(5, per_s=60)]))
    assert session.counts.completed == 4
    assert len(azeroth.asked) == 8
    assert azeroth.clock.now_s() >= 60  # the windows count both
    assert azeroth.library.absent().empty


def test_a_session_that_ends_otherwise_waits_for_no_answer(shop: Shop) -> None:
    """What was on its way when it paused may end it: the breaker opens, and gives up."""

    async def answer(request: httpx.Request) -> httpx.Response:
        app_id = request.url.params["appids"]
        if app_id == "7":
            await asyncio.sleep(30)
            return httpx.Response(500)
        return httpx.Response(200, json={app_id: {"success": False}})

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    session = shop.session(
        vanish(shop, 6, held=8),
        source=SteamStore("https://steam.invalid", client=client),
        limits=Limits(concurrency=7),
        breaker=Breaker(failures=1, give_up_after=1),
        retry=Retry(attempts=1),
    )
    shop.clock.run(session)
    assert session.state == "failed"
    assert shop.library.absent().empty


def test_a_session_that_was_cancelled_at_the_question_asks_it_again(shop: Shop) -> None:
    session = shop.session(vanish(shop, 8), limits=SLOW)
    for _ in range(2):
        shop.clock.run(session, when_paused(session, session.cancel))
        assert session.state == "cancelled"
    assert shop.library.absent().empty


def test_an_unknown_answer_is_refused(library: Library, shop: Shop) -> None:
    with pytest.raises(InputError, match="on_vanished must be one of 'ask', 'believe', 'fail', got 'maybe'"):
        refresh([1], source=shop.store(), library=library, on_vanished="maybe")  # type: ignore[arg-type]
