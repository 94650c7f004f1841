"""A budget is a bound: what the service has billed never exceeds it, whatever goes wrong and whoever is killed when.

The ledger of the service is the judge: it bills by public prices, with a calculator that is not ours.
"""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytest.importorskip("google.genai")

from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from ipybatch import Retry
from ipybatch.errors import InputError, Permanent
from ipybatch.gemini import generate
from ipybatch.gemini.service.api import Api
from ipybatch.simulators import serve
from tests.gemini.conftest import KEY, MODEL, names
from tests.open_files import close_journal

LITE, OWN = "gemini-2.5-flash-lite", "my-own"
PRICES = {OWN: {"in": 3, "out": 20, "flex": 0.7}}
# Of a call: 256 tokens in, of 3 in truth, and 40 out, which most answers have.
MOST_USD = {MODEL: 0.3 * 256e-6 + 2.5e-6 * 40, LITE: 0.1 * 256e-6 + 0.4e-6 * 40, OWN: 3 * 256e-6 + 20e-6 * 40}

faults = st.dictionaries(
    st.sampled_from(
        ["rate_drop", "rate_drop_after", "rate_truncated", "rate_html", "rate_503", "rate_429", "rate_slow"]
    ),
    st.sampled_from([0.1, 0.3]),
    max_size=2,
)
flaws = st.dictionaries(
    st.sampled_from(["no_usage", "total_only", "cut", "safety", "blocked", "empty", "max_tokens"]),
    st.sampled_from([0.1, 0.3]),
    max_size=3,
)
MOMENTS = ("before it is sent", "while it is sent", "when it is answered")
kills = st.lists(st.tuples(st.integers(1, 8), st.sampled_from(MOMENTS)), max_size=2)


def usd_of(rows):
    """What the service has billed, USD; a model without a public price at that which was agreed upon."""
    total = 0.0
    for row in rows:
        if row["usd"] is None:
            share = 0.7 if row["lane"] == "flex" else 1.0
            out = row["tokens_out"] + row["tokens_thoughts"]
            total += share * (row["tokens_in"] * 3 + out * 20) / 1e6
        else:
            total += row["usd"]
    return total


class Process:
    """A session that dies at its nth call: nothing more is sent, and of its journal remains what was there."""

    def __init__(self, journal, kill):
        self.journal, self.kill = journal, kill
        self.left = None  # the journal, as it was then
        self.calls = 0

    def is_now(self, moment):
        return self.kill is not None and self.kill == (self.calls, moment) and self.left is None

    def die(self):
        self.left = self.journal.with_name(f"after {self.journal.name}")
        with (
            contextlib.closing(sqlite3.connect(self.journal)) as source,
            contextlib.closing(sqlite3.connect(self.left)) as copy,
        ):
            source.backup(copy)
            copy.execute("UPDATE run SET owner = NULL")
            copy.commit()

    @contextlib.contextmanager
    def lives(self):
        generate = Api.generate

        async def sent(api, model, request):
            self.calls += 1
            call = self.calls
            if self.is_now(MOMENTS[0]):
                self.die()
            if self.left is not None:
                raise Permanent("its process is dead")
            if self.is_now(MOMENTS[1]):
                self.die()
            reply = await generate(api, model, request)
            if self.kill == (call, MOMENTS[2]) and self.left is None:
                self.die()
            return reply

        Api.generate = sent
        try:
            yield
        finally:
            Api.generate = generate
            close_journal(self.journal)


@settings(
    max_examples=settings().max_examples // 3,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@given(
    lane=st.sampled_from(["online", "flex"]),
    models=st.lists(st.sampled_from([MODEL, LITE, OWN]), min_size=1, max_size=2, unique=True),
    calls=st.floats(1.5, 8.0),
    prompts=st.integers(6, 18),
    faults=faults,
    flaws=flaws,
    thoughts=st.sampled_from([0, 15, 200]),
    kills=kills,
    seed=st.integers(0, 99),
)
def test_no_more_is_billed_than_the_budget(  # noqa: PLR0917  # what hypothesis draws
    lane, models, calls, prompts, faults, flaws, thoughts, kills, seed
):
    """And what is told as spent is no less than what was billed."""
    share = {"online": 1.0, "flex": 0.5}[lane]
    budget_usd = calls * MOST_USD[models[0]] * share
    own = {model: {"rpd": 6} if model != models[-1] else {} for model in models}  # then the next one's turn
    answers = {"thought_tokens": thoughts, "answer_faults": flaws, "flex_shed_rate": 0.3}
    server = serve("gemini", key=KEY, latency_s=0.003, slow_s=1.0, models=own, seed=seed, **answers, **faults)
    with server, tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as environment:
        environment.setenv("NO_PROXY", "127.0.0.1")
        journal, session = Path(folder).resolve() / "journal.db", None
        for kill in [*kills, None]:
            process = Process(journal, kill)
            with process.lives(), contextlib.suppress(InputError):  # a budget below one call
                session = generate(
                    names(prompts),
                    models=models,
                    lane=lane,
                    config={"max_output_tokens": 40},
                    budget_usd=budget_usd,
                    prices=PRICES,
                    name="stars",
                    journal=journal,
                    base_url=server.url,
                    api_key=KEY,
                    timeout_s=0.1,
                    retry=Retry(attempts=2, initial_s=0.01, max_s=0.02),
                    breaker=None,
                )
                session.run()
            journal = process.left or journal
        billed_usd = usd_of(server.simulator.ledger(server.now_s()))
        event(f"billed {min(1.0, billed_usd / budget_usd):.1f} of the budget")
        assert billed_usd <= budget_usd + 1e-12
        if session is not None:
            assert billed_usd <= session.statement()[["usd", "usd_unknown"]].sum().sum() + 1e-12
            assert billed_usd - 1e-12 <= session.usage()["usd"].sum() <= budget_usd + 1e-12
            assert session.snapshot.spent_usd <= billed_usd + 1e-12


VICTIM = """
import sys
from ipybatch import Retry
from ipybatch.gemini import generate

url, journal, budget_usd = sys.argv[1:]
generate(
    [f"Name star {number}" for number in range(60)],
    config={"max_output_tokens": 40},
    budget_usd=float(budget_usd),
    name="stars",
    journal=journal,
    base_url=url,
    api_key="%s",
    retry=Retry(attempts=2, initial_s=0.01),
    breaker=None,
).run()
"""


@pytest.mark.parametrize("kills", [(8,), pytest.param((1, 6, 11, 16), marks=pytest.mark.chaos)], ids=["once", "often"])
def test_no_more_is_billed_than_the_budget_through_kill_9(journal, monkeypatch, kills):
    """What was in flight when its process was killed costs its bound from then on; the rest goes to the next one."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    budget_usd = (25 + 10 * len(kills)) * MOST_USD[MODEL]
    server = serve("gemini", key=KEY, latency_s=0.1, thought_tokens=10, rate_drop_after=0.1)
    with server:
        command = [sys.executable, "-W", "ignore", "-c", VICTIM % KEY, server.url, str(journal), str(budget_usd)]
        for billed in kills:
            with subprocess.Popen(command) as process:
                while len(server.simulator.ledger()) < billed and process.poll() is None:
                    time.sleep(0.005)
                os.kill(process.pid, signal.SIGKILL)
            assert process.returncode == -signal.SIGKILL
        where = {"journal": journal, "base_url": server.url, "api_key": KEY}
        more = {"config": {"max_output_tokens": 40}, "retry": Retry(attempts=2, initial_s=0.01), "breaker": None}
        session = generate(names(60), budget_usd=budget_usd, name="stars", **where, **more)
        session.run()
        billed_usd = usd_of(server.simulator.ledger(server.now_s()))
    row = session.usage().iloc[0]
    assert row["unanswered"] > 0
    assert row["usd_unconfirmed"] > 0
    assert 0.3 * budget_usd < billed_usd <= row["usd"] <= budget_usd
