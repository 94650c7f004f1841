"""What a session makes of a service in trouble: quotas, faults, refused keys, clients of the user's own."""

import asyncio
import threading
from collections import Counter

import pytest

pytest.importorskip("google.genai")
import httpx2
from google import genai
from google.genai import types

import ipybatch
from ipybatch import Breaker, Limits, Retry
from ipybatch.engine.run.engine_thread import engine_thread
from ipybatch.gemini import Model
from ipybatch.simulators.gemini.quotas import as_error, detail
from tests.gemini.conftest import KEY, MODEL, names

# google-genai derives a class from aiohttp's session, which aiohttp discourages
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
LITE = "gemini-2.5-flash-lite"
QUICK = Retry(attempts=6, initial_s=0.02, max_s=0.1)
SHAPES = ["a", "b", "c"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_quota_that_nobody_told_is_learnt(desk, shape):
    """Whatever a 429 tells or leaves out: all are answered, few are refused, nobody is asked twice for an answer."""
    desk.open(windows=[(20, 1.0)], shape=shape, latency_s=0.02)
    session = desk.run(names(40), retry=Retry(initial_s=0.5))
    assert session.counts.completed == 40
    assert 1 <= desk.refused <= 12
    assert desk.truth["billed_twice"] == []
    assert [status for _, _, status, *_ in desk.calls()].count("429") == desk.refused


def test_a_429_is_no_failure_of_the_service(desk):
    desk.open(rate_429=0.3, shape="c", seed=4)
    session = desk.run(names(12), retry=Retry(attempts=20, initial_s=0.01), breaker=Breaker(failures=1))
    assert desk.refused > 1
    assert session.counts.completed == 12
    assert "breaker_moved" not in set(session.log()["event"])


def test_a_used_up_day_moves_on_to_the_next_model(desk):
    desk.open(models={MODEL: {"rpd": 5}, LITE: {}})
    session = desk.run(names(20), models=[MODEL, LITE])
    assert session.counts.completed == 20
    assert Counter(session.results()["model"]) == {MODEL: 5, LITE: 15}
    assert desk.refused <= 10  # those that were under way
    assert session.results()["attempts"].max() == 1


def test_models_are_used_by_their_priority(desk):
    desk.open(models={MODEL: {"rpd": 5}, LITE: {"rpd": 5}})
    session = desk.run(names(10), models=[Model(MODEL, priority=2), LITE], concurrency=1)
    assert session.results()["model"].tolist() == [LITE] * 5 + [MODEL] * 5


def test_a_model_is_asked_again_when_its_day_is_renewed(desk, clock):
    """Also while the session runs."""
    session = desk.session(names(20), models=[MODEL, LITE], clock=clock, limits=Limits(spacing_s=10.0))
    session.spec.pacer.of(MODEL).used_up_until_s = clock.unix_s() + 60.0
    clock.run(session)
    used = session.results()["model"].tolist()
    assert 5 <= used.count(LITE) <= 9
    assert used[-10:] == [MODEL] * 10


def test_when_no_model_has_a_day_left_the_rest_waits(desk):
    """It ends with the reason, those not sent are skipped, and the next day does the rest."""
    desk.open(models={MODEL: {"rpd": 4}, LITE: {"rpd": 4}})
    session = desk.run(names(30), models=[MODEL, LITE])
    assert session.state == "failed"
    assert "the quota of every model for today is used up: run again after midnight Pacific" in session.reason
    assert (session.counts.completed, session.counts.skipped, session.counts.failed) == (8, 22, 0)
    desk.open()
    again = desk.run(names(30), models=[MODEL, LITE])
    assert again.counts.completed == 30
    assert desk.sent == 22


def test_models_share_the_work_by_their_quotas(desk):
    """Neither waits for the other, and none is refused."""
    desk.open(models={MODEL: {"rpm": 600, "burst": 10}, LITE: {"rpm": 6000, "burst": 100}}, network_s=0.01)
    session = desk.run(names(60), models=[Model(MODEL, rpm=600), Model(LITE, rpm=6000)])
    used = Counter(session.results()["model"])
    assert used[MODEL] >= 5
    assert used[LITE] >= 30
    assert desk.refused == 0
    assert session.usage().set_index("model")["requests"].to_dict() == used


@pytest.mark.parametrize("shape", ["b", "c"])
def test_a_model_that_goes_on_refusing_without_a_word_rests(desk, clock, shape):
    """Its day may be used up: the other one does the rest, and it is asked again later and later."""
    desk.open(models={MODEL: {"rpd": 5}, LITE: {}}, shape=shape)
    session = desk.session(names(60), models=[MODEL, LITE], concurrency=2, clock=clock)
    clock.run(session)
    assert session.counts.completed == 60
    assert Counter(session.results()["model"]) == {MODEL: 5, LITE: 55}
    assert session.results()["attempts"].max() == 1
    assert 1 <= desk.refused <= 10


@pytest.mark.parametrize("lane", ["online", "flex"])
def test_a_model_that_asks_for_centuries_leaves_the_work_to_the_others(desk, clock, lane):
    """Told once with the way out, and bounded."""
    desk.open(models={MODEL: {}, LITE: {}}, refusals={MODEL: "centuries"})
    session = desk.session(names(12), models=[MODEL, LITE], clock=clock, lane=lane)
    clock.run(session)
    assert Counter(session.results()["model"]) == {LITE: 12}
    assert clock.now_s() < 60
    (note,) = [note for note in session.snapshot.notes if "is not asked" in note]
    assert note.startswith(f"{MODEL} is not asked for 1,440 min (asked for ever: asked again in 24 h): 429")
    assert note.endswith("The other models go on; ipybatch.lift() asks it at once")


def test_a_rest_of_one_model_is_lifted_by_the_same_call(desk, clock):
    """Though the resource as a whole does not cool down."""
    desk.open(models={MODEL: {}, LITE: {}}, refusals={MODEL: "centuries"})
    limits = Limits(spacing_s=5.0)
    session = desk.session(names(12), models=[MODEL, LITE], clock=clock, resource="the key", limits=limits)

    async def lift():
        await asyncio.sleep(27.0)
        desk.server.simulator._refusals._told.clear()
        assert ipybatch.lift("the key", journal=desk.journal)
        assert not ipybatch.lift("the key", journal=desk.journal)

    clock.run(session, lift())
    used = session.results()["model"].tolist()
    assert used[:5] == [LITE] * 5
    assert used[-5:] == [MODEL] * 5


def test_an_estimate_counts_on_all_models(desk):
    """600 prompts, 10 and 100 a minute: five and a half minutes, not an hour."""
    session = desk.session(names(600), models=[Model(MODEL, rpm=10), Model(LITE, rpm=100)])
    assert 5 * 60 < session.estimate(latency_s=0.5).seconds < 6 * 60


@pytest.mark.parametrize("models", [[MODEL], [MODEL, LITE]], ids=["one model", "two"])
def test_centuries_for_all_are_told_bounded_and_lifted(desk, clock, models):
    """By the same call as any cool-down; what comes after it is answered."""
    desk.open(models=models, refusals={"*": "centuries"})
    session = desk.session(names(3), models=models, clock=clock, resource="the key")
    reasons = []

    async def look_and_lift():
        await asyncio.sleep(30.0)
        reasons.append(session.reason)
        desk.server.simulator._refusals._told.clear()
        assert ipybatch.lift("the key", journal=desk.journal)

    clock.run(session, look_and_lift())
    assert session.counts.completed == 3
    assert "asked for ever: asked again in 24 h" in reasons[0]
    assert reasons[0].endswith("ipybatch.lift('the key') ends it")
    assert clock.now_s() < 60
    assert desk.refused <= 10


@pytest.mark.parametrize("models", [[MODEL], [MODEL, LITE]], ids=["one model", "two"])
def test_what_never_ends_ends_the_session(desk, clock, models):
    """After an hour without one answer, with the service's own sentence; nothing is held against the prompts."""
    desk.open(models=models, refusals={"*": "credits"})
    session = desk.session(names(3), models=models, clock=clock)
    clock.run(session)
    assert session.state == "failed"
    assert "nothing was let through for" in session.reason
    assert "credits are depleted" in session.reason
    (note,) = [note for note in session.snapshot.notes if "lets nothing through" in note]  # meanwhile
    assert note.startswith("the service lets nothing through, after 60 min of it the session ends: ")
    assert "credits are depleted" in note
    assert session.counts.skipped == 3


def test_answers_that_take_no_time_by_the_clock_are_kept(desk, clock):
    """A clock may be coarse, and a virtual one stands still while a service answers."""
    session = desk.session(names(30), model=Model(MODEL, rpm=6000), clock=clock)
    clock.run(session)
    assert session.counts.completed == 30


@pytest.mark.parametrize("told", ["0s", "0.01s"])
@pytest.mark.parametrize(
    ("lane", "given"),
    [
        ("online", {}),
        ("online", {"models": [MODEL, LITE]}),
        ("online", {"fallback": LITE}),
        ("flex", {}),
        ("batch", {}),
    ],
    ids=["one model", "two", "fallback", "flex", "batch"],
)
def test_a_service_that_tells_a_moment_again_and_again_is_not_stormed(desk, clock, lane, given, told):
    """In two minutes of refusals at most one request a second, and as ever the rest when it accepts again."""
    desk.open(batch_delay_s=0.005)
    answer, refused, beside = desk.server.simulator.refused, [], given.get("fallback")

    def refuse(request, now_s):
        if not request.path.endswith(("generateContent", "batchGenerateContent")):
            return answer(request, now_s)
        if clock.now_s() > began_s + 120 or (beside and beside not in request.path):
            return answer(request, now_s)
        refused.append(clock.now_s())
        return as_error(429, "Quota.", [detail("RetryInfo", retryDelay=told)])

    desk.server.simulator.refused = refuse
    began_s = clock.now_s()
    prompts = [f"[[safety:1]] {name}" if beside else name for name in names(3)]
    session = desk.session(prompts, lane=lane, clock=clock, **given)
    clock.run(session)
    assert session.counts.completed == 3
    assert 1 <= len(refused) <= 130 * len(given.get("models", "1"))


@pytest.mark.parametrize("fault", ["500", "503", "504", "drop", "html", "truncated"])
def test_trouble_of_the_service_is_tried_again(desk, fault):
    desk.open(**{f"rate_{fault}": 0.3, "seed": 3})
    session = desk.run(names(20), retry=QUICK, breaker=None)
    assert desk.stats["faults"][fault] >= 3
    assert session.counts.completed == 20
    accepted = {prompt: seen["accepted"] for prompt, seen in desk.truth["prompts"].items()}
    assert sum(accepted.values()) == 20 + (desk.stats["faults"][fault] if fault == "truncated" else 0)


def test_a_dead_service_is_left_alone(desk):
    desk.open(outages=[(0, 1e9)], outage_kind="503")
    breaker = Breaker(failures=3, break_s=0.05, give_up_after=2)
    session = desk.run(names(50), retry=QUICK, breaker=breaker)
    assert session.state == "failed"
    assert "breaker opened 2 times" in session.reason
    assert desk.stats["requests"] <= 3 + 10 + 1
    assert session.counts.completed == 0


def test_a_wrong_key_ends_the_session_at_once(desk):
    desk.open(latency_s=0.2)
    session = desk.run(names(50), api_key="WRONG-k3y", concurrency=1)
    assert session.state == "failed"
    assert "Gemini refuses the key" in session.reason
    assert "check api_key" in session.reason
    assert (session.counts.failed, session.counts.skipped) == (1, 49)
    assert desk.stats["statuses"] == {"400": 1}


def test_after_a_wrong_key_the_right_one_does_all(desk):
    desk.run(names(5), api_key="WRONG-k3y")
    assert desk.run(names(5)).counts.completed == 5


class Halfway:
    """Call a function once, when some prompts are done."""

    def __init__(self, done, call):
        self._done, self._call = done, call
        self.called = threading.Event()

    def __call__(self, done, total):
        if done >= self._done and not self.called.is_set():
            self.called.set()
            self._call()


@pytest.mark.parametrize("stop", ["pause", "cancel"])
def test_what_is_in_flight_when_it_stops_is_paid_for_and_recorded(desk, wait_for, stop):
    """Nothing new starts; what the service has taken comes back, so that nothing is bought twice."""
    desk.open(latency_s=0.2)
    session = desk.session(names(40))
    halfway = Halfway(5, getattr(session, stop))
    session.on(lambda event: halfway(session.counts.completed, 40))
    session.start()
    assert halfway.called.wait(10)
    sent = _settled(session, desk)
    assert 5 < sent < 40
    assert session.counts.completed == sent
    session.resume()
    assert wait_for(session).counts.completed == 40
    assert set(desk.asked.values()) == {1}


def _settled(session, desk):
    """Return how many were sent, once nothing runs any more."""
    while session.ask(lambda: session.counts.running) or session.state == "running":
        pass
    return desk.sent


@pytest.fixture(params=["aiohttp", "httpx"])
def client(request, desk):
    """A client of the user's own with default options: left alone, one of them posts again after a dropped line."""
    made = []

    def make(**options):
        desk.open(**options)
        arguments = {"transport": httpx2.AsyncHTTPTransport()} if request.param == "httpx" else None
        options = types.HttpOptions(base_url=desk.server.url, async_client_args=arguments)
        made.append(genai.Client(api_key=KEY, http_options=options))
        return made[-1]

    yield make
    for one in made:
        engine_thread().spawn(one.aio.aclose()).result()  # where it was used
        one.close()


def test_a_client_of_the_users_own_is_used(desk, client):
    assert desk.run(names(10), client=client()).counts.completed == 10


def test_a_client_of_the_users_own_meets_the_same_trouble(desk, client):
    mine = client(rate_500=0.1, rate_drop=0.15, rate_html=0.1, rate_truncated=0.1, seed=2)
    session = desk.run(names(20), client=mine, retry=QUICK, breaker=None)
    assert desk.stats["faults"].keys() == {"500", "drop", "html", "truncated"}
    assert session.counts.completed == 20


def test_a_line_that_drops_after_the_service_took_it_is_posted_once_an_attempt(desk, client):
    """One attempt, one request, whatever the client is made of: retry is ours alone."""
    mine = client(rate_drop_after=1.0)
    session = desk.run(names(4), client=mine, retry=Retry(attempts=1), breaker=None)
    assert session.counts.failed == 4
    assert set(desk.asked.values()) == {1}


def test_a_client_of_the_users_own_stays_open(desk, client):
    """It is theirs: it answers after our session as before, by its synchronous side too."""
    mine = client()
    desk.run(names(2), client=mine)
    desk.run(names(3), client=mine)
    assert mine.models.generate_content(model=MODEL, contents="Still there?").text
