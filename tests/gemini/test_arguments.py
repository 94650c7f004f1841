"""What `generate` takes: settings of a lane in its class or as keywords, and everything else by keyword."""

import inspect
import re
import sqlite3
from contextlib import closing

import pytest

pytest.importorskip("google.genai")
import msgspec

from ipybatch import BatchSession, InputError
from ipybatch.gemini import Auto, Batch, CreditAccount, Flex, Online, generate
from ipybatch.gemini.arguments import FIRST, RECORDED, GenerateArguments, LaneArguments
from ipybatch.session.arguments import SessionArguments
from tests.gemini.conftest import KEY, names

JOBS = {"max_requests_per_job": 20, "max_active_jobs": 3, "poll_s": 0.5, "wait_s": 60.0}
# lane with settings, the same in keywords
SPELLINGS = {
    "online": (Online(), {"lane": "online"}),
    "online paced": (Online(concurrency=7), {"lane": "online", "concurrency": 7}),
    "online sequential": (Online(sequential=True), {"lane": "online", "sequential": True}),
    "batch": (Batch(), {"lane": "batch"}),
    "batch with all": (Batch(**JOBS), {"lane": "batch", **JOBS}),
    "flex": (Flex(tries=5, concurrency=4), {"lane": "flex", "flex_tries": 5, "concurrency": 4}),
    "flex alone": (Flex(fallback=None, sequential=True), {"lane": "flex", "flex_fallback": None, "sequential": True}),
    "flex, batch": (Flex(fallback="batch"), {"lane": "flex", "flex_fallback": "batch"}),
    "flex, batch with all": (Flex(fallback=Batch(**JOBS)), {"lane": "flex", "flex_fallback": "batch", **JOBS}),
    "auto": (Auto(), {"lane": "auto"}),
    "auto with all": (
        Auto(deadline_s=7200, batch=Batch(**JOBS), flex=Flex(tries=2, concurrency=9)),
        {"lane": "auto", "deadline_s": 7200, "flex_tries": 2, "concurrency": 9, **JOBS},
    ),
}
BAD = {
    "Online concurrency": (lambda: Online(concurrency=0), "concurrency must be a whole number >= 1, got 0"),
    "Online sequential": (lambda: Online(sequential=5), "sequential must be True or False, got 5"),
    "Batch size": (lambda: Batch(max_requests_per_job=0), "max_requests_per_job must be a whole number >= 1, got 0"),
    "Batch active": (lambda: Batch(max_active_jobs=1.5), "max_active_jobs must be a whole number >= 1, got 1.5"),
    "Batch poll": (lambda: Batch(poll_s=0), "poll_s must be > 0, got 0"),
    "Batch wait": (lambda: Batch(wait_s="1"), "wait_s must be > 0, got '1'"),
    "Flex tries": (lambda: Flex(tries=0), "tries must be a whole number >= 1, got 0"),
    "Flex fallback": (lambda: Flex(fallback="auto"), "fallback must be one of 'online', 'batch', None, got 'auto'"),
    "Flex fallback Online": (lambda: Flex(fallback=Online()), "fallback must be one of"),
    "Auto deadline": (lambda: Auto(deadline_s=0), "deadline_s must be > 0, got 0"),
    "Auto batch": (lambda: Auto(batch="batch"), r"batch must be Batch\(...\), got 'batch'"),
    "Auto flex": (lambda: Auto(flex=Online()), r"flex must be Flex\(...\), got Online"),
    "Auto sequential": (lambda: Auto(flex=Flex(sequential=True)), "flex must not be sequential here"),
    "Auto fallback": (lambda: Auto(flex=Flex(fallback="batch")), "flex must have fallback 'online' or None here"),
}
REPRS = {
    "Online(concurrency=None, sequential=False)": Online(),
    "Flex(tries=3, fallback='online', concurrency=None, sequential=False)": Flex(),
    "Batch(max_requests_per_job=10000, max_active_jobs=10, poll_s=30.0, wait_s=7200.0)": Batch(),
    f"Auto(deadline_s=60, batch={Batch()!r}, flex={Flex()!r})": Auto(deadline_s=60),
}
# Keywords of the first release: each goes on working, alone and as it was.
KEYWORDS = {
    "model": "gemini-2.5-flash",
    "models": ["gemini-2.5-flash"],
    "lane": "batch",
    "system": "Be brief.",
    "config": {"temperature": 1},
    "schema": {"type": "object"},
    "modalities": ["TEXT"],
    "template": "{prompt}",
    "key": "id",
    "images_to": "memory://keywords",
    "operation": "product",
    "project": "spring",
    "concurrency": 4,
    "sequential": True,
    "output_tokens": 50,
    "flex_tries": 2,
    "flex_fallback": None,
    "max_requests_per_job": 5,
    "max_active_jobs": 2,
    "poll_s": 1,
    "wait_s": 10,
    "deadline_s": None,
    "budget_usd": 5,
    "account": None,
    "prices": {"gemini-2.5-flash": {"in": 1, "out": 1}},
    "api_key": "SIMULATED",
    "base_url": "http://127.0.0.1:9",
    "client": None,
    "name": "stars",
    "replace": True,
    "timeout_s": 9,
}
# Not recorded: secrets, what names a session, and what `generate` records in another form.
UNRECORDED = {"api_key", "backend", "name", "replace", "models", "images_to"}


@pytest.fixture
def made(desk, journal):
    """Return a session that is never started."""
    reached = {"base_url": "http://127.0.0.1:9", "api_key": KEY}
    return lambda **arguments: generate([{"id": 1, "prompt": "a star"}], journal=journal, **{**reached, **arguments})


def settings(session):
    """What a session does with its lane."""
    spec, limits = session.spec, session._made.limits
    fields = ("lane", "policy", "flex_tries", "flex_fallback", "deadline_s", "at_once", "has_batch")
    return [*(getattr(spec, field) for field in fields), limits.concurrency, limits.batch_size, session.workload.about]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_settings_in_a_class_or_as_keywords_are_the_same(made, spelling):
    lane, keywords = SPELLINGS[spelling]
    assert settings(made(lane=lane)) == settings(made(**keywords))


def test_each_setting_changes_something(made):
    """The spellings above do not all agree because none is read."""
    shown = [msgspec.json.encode(made(lane=lane).workload.about) for lane, _ in SPELLINGS.values()]
    assert len(set(shown)) == len(shown)
    spec = made(lane=Auto(deadline_s=7200, batch=Batch(**JOBS), flex=Flex(tries=2, concurrency=9))).spec
    policy = spec.policy
    assert (policy.max_requests, policy.max_active, policy.poll_s, policy.wait_s) == (20, 3, 0.5, 60.0)
    assert (spec.lane, spec.deadline_s, spec.flex_tries, spec.at_once) == ("auto", 7200, 2, 9)


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_setting_is_refused_where_it_is_made(bad):
    make, message = BAD[bad]
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("told", REPRS)
def test_a_lane_shows_all_its_settings(told):
    assert repr(REPRS[told]) == told
    assert eval(told) == REPRS[told]


@pytest.mark.parametrize("lane", [Online(), Flex(), Batch(), Auto()], ids=lambda lane: lane.word)
@pytest.mark.parametrize("keyword", LaneArguments.__annotations__)
def test_settings_are_given_once(made, lane, keyword):
    """In the class or as keywords: also where both are the same, or the lane has no such setting."""
    value = KEYWORDS[keyword] or "online" if keyword == "flex_fallback" else KEYWORDS[keyword] or 60
    kind = type(lane).__name__
    with pytest.raises(
        InputError, match=rf'give {keyword}= beside lane="{lane.word}", or .* in lane={kind}\(...\), not'
    ):
        made(lane=lane, **{keyword: value})


@pytest.mark.parametrize("given", [{"sequential": False}, {"flex_tries": 0}, {"poll_s": 30.0}], ids=str)
def test_settings_that_change_nothing_are_given_once_too(made, given):
    with pytest.raises(InputError, match="not both"):
        made(lane=Batch(), **given)


def test_a_keyword_holds_no_lane(made):
    with pytest.raises(InputError, match="flex_fallback must be one of 'online', 'batch', None, got Batch"):
        made(lane="flex", flex_fallback=Batch())


@pytest.mark.parametrize("lane", [3, None, Batch, ["batch"]], ids=repr)
def test_what_is_no_lane_is_refused(made, lane):
    with pytest.raises(InputError, match=r"lane must be one of 'online', .* Batch\(...\), Auto\(...\), got "):
        made(lane=lane)


def test_a_job_has_no_time_limit_of_a_request(made):
    with pytest.raises(InputError, match="timeout_s is for one request"):
        made(lane=Batch(), timeout_s=3)


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_every_keyword_of_the_first_release_works(made, keyword):
    assert made(**{keyword: KEYWORDS[keyword]}).state == "planned"


@pytest.mark.parametrize(
    ("keyword", "meant"),
    [("flx_tries", "flex_tries"), ("modle", "model"), ("budget", "budget_usd"), ("limit", "limits"), ("zzz", "")],
)
def test_an_unknown_keyword_is_refused(made, keyword, meant):
    """As Python does, and before anything is made of the others."""
    hint = f": did you mean '{meant}'?" if meant else ""
    with pytest.raises(TypeError) as raised:
        made(**{keyword: 1, "lane": "nonsense"})
    assert str(raised.value) == f"generate() got an unexpected keyword argument '{keyword}'{hint}"


@pytest.mark.parametrize("keyword", ["temperature", "max_output_tokens", "seed"])
def test_a_setting_of_the_config_is_sent_there(made, keyword):
    """And not to the argument whose name is nearest."""
    with pytest.raises(TypeError, match=rf"'{keyword}': pass config={{'{keyword}': \.\.\.}}$"):
        made(**{keyword: 1})


@pytest.mark.parametrize("modalities", [["IMAGE"], "IMAGE", ("IMAGE",), {"IMAGE"}, iter(["IMAGE"])])
def test_modalities_may_be_one_or_several(made, modalities):
    session = made(modalities=modalities, images_to=False)
    assert session.spec.request_configs["online"].modalities == ("IMAGE",)


def test_no_modalities_are_those_of_the_model(made):
    assert made(modalities=None).spec.request_configs["batch"].modalities == ()


def test_the_signature_holds_the_six_most_used():
    parameters = [name for name in inspect.signature(generate).parameters if name not in ("prompts", "arguments")]
    assert tuple(parameters) == FIRST
    assert not set(FIRST) & set(GenerateArguments.__annotations__)


def test_every_argument_is_told():
    """In the docstring by name, or as one that every session takes."""
    told = re.search(r"Args:\n(.*?)Raises:", inspect.getdoc(generate), flags=re.DOTALL)[1]
    entries = {name for line in re.findall(r"^    ([\w, ]+):", told, flags=re.MULTILINE) for name in line.split(", ")}
    assert set(GenerateArguments.__annotations__) - set(SessionArguments.__annotations__) <= entries
    assert set(SessionArguments.__annotations__) <= set(re.findall(r"\w+", told))


def test_every_argument_is_recorded_or_said_not_to_be():
    own = {*GenerateArguments.__annotations__, *FIRST} - {*SessionArguments.__annotations__}
    assert own - {*LaneArguments.__annotations__, "lane", "model"} == {*RECORDED} | UNRECORDED


def record(desk, about):
    """Leave a session in the journal that recorded these arguments, and has no prompts yet."""
    desk.run([])
    with closing(sqlite3.connect(desk.journal)) as database, database:
        database.execute("UPDATE run SET about = ?", [msgspec.json.encode(about).decode()])


def opened(desk, prompts, **arguments):
    reached = {"base_url": desk.server.url, "api_key": KEY}
    return BatchSession.open("stars", journal=desk.journal, prompts=prompts, **{**reached, **arguments})


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_session_goes_on_with_its_settings(desk, made, spelling):
    """With its prompts alone, whichever way they were given."""
    desk.open()
    lane, _ = SPELLINGS[spelling]
    first = desk.session(names(3), lane=lane, system="Be brief.")
    record(desk, first.workload.about)
    assert settings(opened(desk, names(3))) == settings(first)


@pytest.mark.parametrize("images_to", [None, False, "memory://goes-on"])
def test_a_session_goes_on_with_its_place_for_images(desk, images_to):
    desk.open()
    first = desk.session(names(3), images_to=images_to)
    record(desk, first.workload.about)
    assert opened(desk, names(3)).workload.about["images_to"] == images_to


def test_what_is_given_anew_takes_the_place_of_what_is_recorded(desk):
    desk.open()
    lane = Auto(deadline_s=60, batch=Batch(**JOBS), flex=Flex(concurrency=9))
    record(desk, desk.session(names(3), lane=lane).workload.about)
    assert opened(desk, names(3), poll_s=2).workload.about["poll_s"] == 2
    assert opened(desk, names(3), deadline_s=90).workload.about["deadline_s"] == 90
    batch = opened(desk, names(3), lane="batch").workload.about
    assert (batch["lane"], batch["poll_s"], batch["deadline_s"]) == ("batch", 0.5, None)
    anew = opened(desk, names(3), lane=Batch(wait_s=5)).workload.about
    assert (anew["lane"], anew["poll_s"], anew["wait_s"], anew["concurrency"]) == ("batch", 30.0, 5, None)


def test_another_model_takes_the_place_of_those_recorded(desk):
    desk.open()
    record(desk, desk.session(names(3), models=["gemini-2.5-pro", "gemini-2.5-flash"]).workload.about)
    assert [one.name for one in opened(desk, names(3)).spec.models] == ["gemini-2.5-pro", "gemini-2.5-flash"]
    assert [one.name for one in opened(desk, names(3), model="gemini-2.5-flash-lite").spec.models] == [
        "gemini-2.5-flash-lite"
    ]


# As the first release recorded it.
FORMER = {
    "unrecorded": [],
    "lane": "flex",
    "system": "Be brief.",
    "config": None,
    "schema": None,
    "modalities": [],
    "template": None,
    "key": None,
    "operation": "text",
    "project": "",
    "concurrency": None,
    "sequential": False,
    "output_tokens": 1000.0,
    "flex_tries": 2,
    "flex_fallback": "batch",
    "max_requests_per_job": 20,
    "max_active_jobs": 10,
    "poll_s": 0.5,
    "wait_s": 7200.0,
    "deadline_s": None,
    "budget_usd": 5.0,
    "prices": None,
    "account": None,
    "client": None,
    "base_url": None,
    "models": ["gemini-2.5-flash"],
    "images_to": None,
}


def test_a_session_of_the_first_release_goes_on(desk):
    desk.open()
    record(desk, FORMER)
    session = opened(desk, names(3))
    spec = session.spec
    assert (spec.lane, spec.flex_tries, spec.flex_fallback, spec.budget_usd) == ("flex", 2, "batch", 5.0)
    assert spec.policy == desk.session(names(3), lane=Batch(max_requests_per_job=20, poll_s=0.5)).spec.policy
    assert session.run().counts.completed == 3


def test_what_no_journal_holds_is_asked_for(desk):
    desk.open()
    account = CreditAccount("studio", journal=desk.journal)
    record(desk, desk.session(names(1), lane=Online(concurrency=2), account=account).workload.about)
    with pytest.raises(InputError, match="was made with account=, which the journal cannot hold"):
        opened(desk, names(1))


def test_a_session_with_settings_runs_records_them_and_goes_on(desk):
    """The whole way once: nothing is written by hand."""
    desk.run(names(3), lane=Online(concurrency=2), system="Be brief.")
    session = opened(desk, names(4))
    assert (session.spec.at_once, session.workload.about["system"]) == (2, "Be brief.")
    assert (session.run().counts.completed, desk.sent) == (4, 4)
