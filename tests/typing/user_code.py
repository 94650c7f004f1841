"""What a user's editor knows: this file is checked by mypy --strict, and never run.

Each `assert_type` is a type that must be known. A line with ``# type: ignore[...]`` is a mistake that must be reported:
strict mypy complains about an ignore that silences nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import pandas as pd

import ipybatch
from ipybatch import (
    Attempt,
    BatchError,
    BatchSession,
    Breaker,
    Counts,
    Estimate,
    InputError,
    JournalError,
    Limits,
    Outcome,
    Permanent,
    Rate,
    RateLimited,
    Retry,
    Summary,
    Transient,
    templates,
)
from ipybatch.backends import Dask, Killed, Processes
from ipybatch.events import AttemptFailed, Event, ItemEnded, State, StateChanged, Status
from ipybatch.forecast import ForecastSession, analyze, evaluate, forecast
from ipybatch.gemini import (
    Auto,
    Batch,
    CreditAccount,
    Flex,
    GeminiSession,
    InsufficientCredits,
    Model,
    Online,
    compare,
    generate,
    usage,
)
from ipybatch.library import BattleNet, Guild, Library, RefreshSession, SteamStore, refresh
from ipybatch.notify import Notify, add_channel, channels, outbox
from ipybatch.simulators import Faults, serve
from ipybatch.testing import VirtualClock


async def fetch(app_id: int, attempt: Attempt) -> dict[str, Any]:
    """Work that asks for a permit of its own, and says how an attempt failed."""
    async with attempt.permit({"tokens": 500.0}):
        pass
    attempt.settle(tokens=731)
    assert_type(attempt.add([app_id + 1]), int)
    assert_type(attempt.number, int)
    if app_id == 0:
        raise Permanent("there is no such app")
    raise RateLimited(retry_after_s=2.5)


def sessions(journal: Path) -> BatchSession:
    """Make a session, change it, open it again."""
    session = BatchSession(
        "wishlist",
        fetch,
        range(500),
        limits=Limits(concurrency=3, spacing_s=1.5, rates=[Rate(200, per_s=300)], each=Limits(concurrency=1)),
        retry=Retry(attempts=3, on=(OSError,)),
        breaker=Breaker(failures=3, break_s=60),
        timeout_s=30,
        on_failure="continue",
        priority=lambda item: "high" if item < 10 else "low",
        per=lambda item: item % 2,
        journal=journal,
        backend=Processes(),
        notify=Notify(["team-mail"], on={"failed", "breaker"}, breaker_min=30),
    )
    BatchSession("wishlist", fetch, [1], notify="team-mail")
    Notify("team-mail", on="finnished")  # type: ignore[arg-type]
    session.start()
    session.adjust(concurrency=2, rates=[20])
    session.pause()
    session.resume()
    session.cancel()
    assert_type(session.prioritize([440], "high"), int)
    assert_type(session.state, State)
    assert_type(session.counts, Counts)
    assert_type(session.counts.completed, int)
    assert_type(session.counts.total, int | None)
    assert_type(session.reason, str)
    assert_type(session.estimate(latency_s=0.2), Estimate)
    assert_type(session.run(), Summary)
    assert_type(session.export_html("page.html"), Path)
    assert_type(BatchSession.open("wishlist", fetch, journal=journal), BatchSession)
    return session


async def results(session: BatchSession) -> None:
    """Wait for it, and read what it came to."""
    assert_type(await session, Summary)
    async for outcome in session.stream():
        assert_type(outcome, Outcome)
        assert_type(outcome.status, Status)
        assert_type(outcome.seconds, float)
    assert_type(session.results(), pd.DataFrame)
    assert_type(session.log(), pd.DataFrame)
    assert_type(session.save("out.csv"), Path)
    assert_type(ipybatch.history(), pd.DataFrame)
    add_channel("team-mail", "mailto://user:password@host", keyring=True)
    assert_type(channels(), dict[str, str])
    assert_type(outbox(), pd.DataFrame)
    assert_type(ipybatch.history(everywhere=True), pd.DataFrame)
    assert_type(ipybatch.prune(86_400), int)


def listeners(session: BatchSession) -> None:
    """Hear every event, or those of a name; a type narrows what is known."""

    def hear(event: Event) -> None:
        assert_type(event.at_s, float)
        if isinstance(event, StateChanged):
            assert_type(event.state, State)
        elif isinstance(event, AttemptFailed):
            assert_type(event.wait_s, float)
        elif isinstance(event, ItemEnded):
            assert_type(event.status, Status)

    stop = session.on(hear)
    assert_type(stop(), None)
    session.on("retry", hear)


def errors(session: BatchSession) -> float | None:
    """Catch what may go wrong; facts are attributes."""
    try:
        session.start()
    except InputError as error:
        assert_type(error, InputError)
    except (Killed, Transient) as error:
        assert_type(error.retry_after_s, float | None)
        return error.retry_after_s
    except InsufficientCredits:
        raise
    except (JournalError, BatchError):
        return None
    return 0.0


def refreshed() -> None:
    """Keep a library of games fresh."""
    library = Library("games.db")
    with serve("steam", faults=Faults()) as url:
        session = refresh([440, 570], source=SteamStore(url), library=library, timeout_s=10, priority=lambda _: "low")
    assert_type(session, RefreshSession)
    assert_type(library.outdated(older_than_s=3600), list[Any])
    assert_type(library.to_frame(), pd.DataFrame)
    guilds = [Guild("Aerie Peak", "Méchants Loups")]
    refresh(guilds, source=BattleNet("id", "secret", region="eu"), expand="roster")


def generated(prompts: pd.DataFrame) -> None:
    """Generate in bulk, and see what it costs."""
    account = CreditAccount("shop")
    session = generate(prompts, model=Model("gemini-2.5-flash", rpm=30), lane="batch", budget_usd=5, account=account)
    assert_type(session, GeminiSession)
    generate(prompts, lane=Online(concurrency=20), name="stars", timeout_s=60)
    generate(prompts, lane=Flex(tries=5, fallback=Batch(wait_s=600)))
    generate(prompts, lane=Auto(deadline_s=7200, batch=Batch(max_requests_per_job=20), flex=Flex(concurrency=5)))
    generate(prompts, lane="auto", deadline_s=7200, poll_s=5, client=None)
    generate(prompts, poll=5)  # type: ignore[call-arg]  # no such argument
    assert_type(session.usage(), pd.DataFrame)
    assert_type(session.estimate(), Estimate)
    assert_type(usage(last_s=3600), pd.DataFrame)
    compare(["a prompt"], model="gemini-2.5-flash", output_tokens=400)


def forecasted(demand: pd.DataFrame, client: Any) -> None:
    """Forecast a table, a partition at a time."""
    analyze(demand, horizon=14)
    score = evaluate(demand, horizon=14, origins=2, by="size", baselines=["naive"])
    score.by_series()
    score.chart(worst=3, by="mase")
    session = forecast(demand, horizon=30, by="site", timeout_s=300, output="forecast.csv", on_failure="rollback")
    assert_type(session, ForecastSession)
    assert_type(session.results(), pd.DataFrame)
    assert_type(session.partitions(), pd.DataFrame)
    forecast(demand, backend=Dask(client))


def tested(session: BatchSession) -> None:
    """Run hours in milliseconds."""
    assert_type(VirtualClock().run(session), Summary)


def mistaken(session: BatchSession) -> None:
    """Be told what is wrong before anything runs."""
    Limits(concurrency="three")  # type: ignore[arg-type]
    BatchSession("wishlist", fetch, [1], on_failure="give up")  # type: ignore[arg-type]
    refresh([1], source=SteamStore(), timeout="10 s")  # type: ignore[call-arg]
    session.on("finished", print)  # type: ignore[arg-type]
    session.counts.succeeded  # type: ignore[attr-defined]  # noqa: B018


def templates_of_sessions(session: GeminiSession) -> None:
    """A template, and what is made of it: the class that is asked for."""
    assert_type(session.save_template("night", description="Mine"), Path)
    assert_type(GeminiSession.from_template("night", ["a"], lane="online"), GeminiSession)
    assert_type(BatchSession.from_template("night", items=[1], work=fetch), BatchSession)
    assert_type(templates.templates(), pd.DataFrame)
    assert_type(templates.load("night").params, dict[str, Any])
