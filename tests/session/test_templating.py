"""A template of a session, and a session of a template: what is kept, what is asked for, what is refused.

One subject, by kind of session: there and back.
"""

import datetime as dt
import json
import sys
import types
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import BatchSession, Breaker, InputError, Limits, Rate, Retry, notify, secret, templates
from ipybatch.backends import Processes
from ipybatch.forecast import ForecastSession, forecast
from ipybatch.gemini import Auto, Batch, CreditAccount, Flex, GeminiSession, Model, Online, generate
from ipybatch.library import BattleNet, Library, RefreshSession, SteamStore, refresh
from ipybatch.templates.template import OF_CALL
from tests.session.test_workload import Shout, ShoutSession

KEY = "AKEYTHATISNOTTOBESEEN"


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """Settings, journal and library of this test's own, and no keys but one."""
    monkeypatch.setenv("IPYBATCH_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(tmp_path / "journal.sqlite3"))
    monkeypatch.setenv("IPYBATCH_LIBRARY", str(tmp_path / "library.sqlite3"))
    for name in ("GOOGLE_API_KEY", "BNET_CLIENT_ID", "BNET_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)


async def work(item):
    return item


def upper(item):
    return item.upper()


def as_file(session, **given):
    """What the file of a session says, all of it as data."""
    path = session.save_template("night", **given)
    assert KEY not in path.read_text()
    return templates.load("night")


# A session of one function


def test_what_is_said_of_a_session_comes_back():
    limits = Limits(concurrency=3, spacing_s=1.5, batch_size=15, batch_pause_s=15, rates=[Rate(200, per_s=300)])
    made = BatchSession(
        "wishlist", work, [1], limits=limits, retry=Retry(attempts=7), breaker=None, timeout_s=5, on_failure="stop",
        resource="shop", group_word="Page", settings={"country": "de"},
    )  # fmt: skip
    session = BatchSession.from_template(made.save_template("night").stem, [2, 3], work=work)
    assert (session.name, session.counts.total) == ("night", 2)
    for field in ("limits", "retry", "breaker", "timeout_s", "on_failure", "resource", "group_word"):
        assert getattr(session.policy, field) == getattr(made.policy, field)
    assert session._spec.keying == made._spec.keying
    assert session.run().counts.completed == 2


def test_what_is_as_by_default_is_not_written():
    assert as_file(BatchSession("wishlist", json.dumps, [1])).params == {"work": "json:dumps"}
    assert as_file(BatchSession("wishlist", work, [1]), description="Mine").description == "Mine"


def test_function_of_a_module_comes_back_by_its_name():
    template = as_file(BatchSession("wishlist", json.dumps, [1], key=str))
    assert (template.params, template.asks) == ({"work": "json:dumps", "key": "builtins:str"}, [])
    session = BatchSession.from_template("night", ["a"])
    assert session.run().counts.completed == 1
    assert list(session.results()["result"]) == ['"a"']


def test_function_of_a_notebook_is_asked_for(monkeypatch):
    monkeypatch.setattr(upper, "__module__", "__main__")
    session = BatchSession("wishlist", upper, ["a"], per=lambda item: "x", limits=Limits(each=Limits()))
    template = as_file(session)
    assert template.asks == ["work", "per"]
    assert session.notes[-1] == "template 'night' was saved without work and per: pass them to from_template()"
    with pytest.raises(InputError, match="needs work and per, which no template holds: pass work= and per= to go on"):
        BatchSession.from_template("night", ["a"])
    assert BatchSession.from_template("night", ["a"], work=upper, per=lambda item: "x").run().counts.completed == 1


def test_who_is_told_and_when_it_starts(tmp_path):
    notify.add_channel("mail", "json://127.0.0.1:9")
    made = BatchSession("wishlist", json.dumps, [1], notify=notify.Notify("mail", on="failed"), start_at="22:00")
    template = as_file(made)
    assert (template.notify, template.start_at) == ({"channels": ["mail"], "on": ["failed"]}, "22:00")
    session = BatchSession.from_template("night", [1])
    assert session._made.notify == made._made.notify
    assert session._made.start_at_s == made._made.start_at_s
    assert BatchSession.from_template("night", [1], notify=None, start_at=None)._made.start_at_s is None
    stars = as_file(generate(["A star"], notify="mail", start_at="22:00"))
    assert (stars.notify, stars.start_at) == ("mail", "22:00")
    assert {"notify", "start_at"}.isdisjoint({*stars.params, *stars.asks})
    assert GeminiSession.from_template("night", ["A star"])._made.notify == notify.Notify("mail")


def test_start_of_a_date_is_kept_as_its_time_of_day_in_its_zone():
    limits = Limits(zone="Asia/Kolkata")
    made = BatchSession("wishlist", json.dumps, [1], limits=limits, start_at="2099-01-01T22:00:00")
    template = as_file(made)
    assert (template.start_at, template.zone) == ("22:00", "Asia/Kolkata")
    session = BatchSession.from_template("night", [1])
    at = dt.datetime.fromtimestamp(session._made.start_at_s, ZoneInfo("Asia/Kolkata"))
    assert (at.hour, at.minute) == (22, 0)
    with pytest.raises(InputError, match="start_at"):
        BatchSession.from_template("night", [1], start_at="soon")


@pytest.mark.parametrize(("field", "value"), [("start_at", "25:00"), ("notify", 5)])
def test_what_stands_beside_the_arguments_is_told_with_its_template(field, value):
    templates.save("night", templates.Template(based_on="session", **{field: value}))
    with pytest.raises(templates.WrongField, match=f"^template 'night': {field}: {field} must be") as refused:
        BatchSession.from_template("night", [1], work=work)
    assert (refused.value.field, refused.value.value) == (field, value)


def test_items_are_asked_for():
    BatchSession("wishlist", json.dumps, [1]).save_template("night")
    with pytest.raises(InputError, match="needs items, which no template holds: pass items= to go on"):
        BatchSession.from_template("night")
    with pytest.raises(InputError, match="items must be given once"):
        BatchSession.from_template("night", [1], items=[2])
    assert BatchSession.from_template("night", items=[2]).counts.total == 1
    assert BatchSession.from_template("night", []).counts.total == 0
    assert BatchSession.from_template("night", pd.DataFrame({"id": [1, 2]})).counts.total == 2


def test_changes_win():
    BatchSession("wishlist", json.dumps, [1], limits=Limits(concurrency=3), breaker=None).save_template("night")
    session = BatchSession.from_template("night", [1], limits=None, breaker=Breaker(), name="other", work=work)
    assert (session.name, session.policy.limits, session.policy.breaker) == ("other", Limits(), Breaker())
    assert session.policy.work.call is work


def test_limits_of_which_a_part_is_no_data_are_asked_for():
    """What is left of them would be faster than was asked for."""
    session = BatchSession("wishlist", json.dumps, [1], limits=Limits(concurrency=2, also=[Shut()]))
    assert as_file(session).asks == ["limits"]
    with pytest.raises(InputError, match="needs limits"):
        BatchSession.from_template("night", [1])


class Shut:
    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass


def test_what_is_of_one_call_is_not_asked_for(tmp_path):
    session = BatchSession(
        "wishlist", json.dumps, [1], on_progress=print, verbose=True, journal=tmp_path / "other.sqlite3", fresh=True
    )
    template = as_file(session)
    assert (template.params, template.asks) == ({"work": "json:dumps"}, [])


def test_backend_of_ones_own_is_asked_for():
    assert as_file(BatchSession("wishlist", json.dumps, [1], backend=Processes())).asks == ["backend"]
    assert as_file(BatchSession("wishlist", json.dumps, [1], backend="threads")).asks == []


def test_secret_in_settings_is_asked_for():
    secret("a-secret-word")
    template = as_file(BatchSession("wishlist", json.dumps, [1], settings={"header": "x a-secret-word"}))
    assert (template.params, template.asks) == ({"work": "json:dumps"}, ["settings"])


values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text("abc\n\"'\\é", max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.integers(1, 99),
    st.none() | st.integers(1, 99),
    st.none() | st.floats(0.5, 99),
    st.sampled_from(["continue", "stop", "rollback"]),
    values,
)
def test_round_trip(concurrency, batch_size, timeout_s, on_failure, settings):
    made = BatchSession(
        "wishlist", json.dumps, [1], limits=Limits(concurrency=concurrency, batch_size=batch_size),
        timeout_s=timeout_s, on_failure=on_failure, settings=settings,
    )  # fmt: skip
    made.save_template("night")
    session = BatchSession.from_template("night", [1], name="wishlist")
    for field in ("limits", "retry", "breaker", "timeout_s", "on_failure", "keying"):
        assert getattr(session._made, field) == getattr(made._made, field)


# The workloads


def table(**columns):
    days = pd.date_range("2026-01-01", periods=28).strftime("%Y-%m-%d")
    return pd.DataFrame({"site": "a", "part": "p", "date": days, "quantity": 1.0, **columns})


GENERATED = {
    "defaults": ({}, "text", {"model": "gemini-2.5-flash", "lane": "online"}, []),
    "words": (
        {"model": "gemini-2.5-pro", "lane": "batch", "poll_s": 5, "system": "Be short.", "samples": 2},
        "text",
        {"model": "gemini-2.5-pro", "lane": "batch", "poll_s": 5, "system": "Be short.", "samples": 2},
        [],
    ),
    "a lane with settings": (
        {"lane": Batch(poll_s=5)},
        "text",
        {"model": "gemini-2.5-flash", "lane": "batch", "poll_s": 5},
        [],
    ),
    "flex": (
        {"lane": Flex(tries=2, fallback=None)},
        "text",
        {"lane": "flex", "flex_tries": 2, "flex_fallback": None},
        [],
    ),
    "online": ({"lane": Online(concurrency=4)}, "text", {"lane": "online", "concurrency": 4}, []),
    "auto": (
        {"lane": Auto(deadline_s=60, batch=Batch(poll_s=9))},
        "text",
        {"lane": "auto", "deadline_s": 60, "poll_s": 9},
        [],
    ),
    "several models": ({"models": ["b", Model("a")]}, "text", {"models": ["b", "a"], "model": None}, []),
    "models with quotas": ({"models": [Model("a", rpm=5)]}, "text", {"model": None}, ["models"]),
    "template, config, schema": (
        {"template": "About {id}", "config": {"temperature": 0.1}, "schema": {"type": "object", "default": None}},
        "text",
        {"template": "About {id}", "config": {"temperature": 0.1}, "schema": {"type": "object", "default": None}},
        [],
    ),
    "a class as schema": ({"schema": dict[str, int]}, "text", {}, ["schema"]),
    "policies": (
        {"limits": Limits(rates=[Rate(3, per_s=1)]), "retry": Retry(attempts=2), "breaker": None, "timeout_s": 60},
        "text",
        {"limits": {"concurrency": 10, "rates": [{"limit": 3, "per_s": 1}]}, "retry": {"attempts": 2}, "breaker": None,
         "timeout_s": 60},
        [],
    ),
    "pictures": (
        {"model": "gemini-2.5-flash-image", "operation": "food", "images_to": "pictures", "modalities": ("IMAGE",)},
        "food",
        {"operation": "food", "images_to": "pictures", "modalities": ["IMAGE"]},
        [],
    ),
    "pictures without modalities": (
        {"model": "gemini-2.5-flash-image", "operation": "character", "images_to": False},
        "character",
        {"operation": "character", "images_to": False, "modalities": None},
        [],
    ),
    "a label of one's own": ({"operation": "summaries"}, "text", {"operation": "summaries"}, []),
    "money": (
        {"budget_usd": 5, "config": {"max_output_tokens": 9}, "account": CreditAccount("lab")},
        "text",
        {"budget_usd": 5},
        ["account"],
    ),
    "a key": ({"api_key": "ANOTHERKEYOFMINE"}, "text", {}, []),
    "a function": ({"key": lambda row: row["id"]}, "text", {}, ["key"]),
    "paid again": ({"replace": True, "fresh": True}, "text", {}, []),
}  # fmt: skip


@pytest.mark.parametrize("name", GENERATED)
def test_what_is_kept_of_prompts(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given_, base, params, asks = GENERATED[name]
    made = generate([{"id": 1, "prompt": "A star"}], **given_)
    template = as_file(made)
    assert (template.based_on, template.asks) == (base, asks)
    assert {field: template.params.get(field) for field in params} == params
    assert {"name", "prompts", "journal", "fresh", "replace", "api_key"}.isdisjoint(template.params)
    assert "ANOTHERKEYOFMINE" not in templates.path("night").read_text()
    again = GeminiSession.from_template(
        "night", [{"id": 1, "prompt": "A star"}], **{each: given_[each] for each in asks}
    )
    assert type(again) is GeminiSession
    assert {**again.workload.about} == {"operation": "text", **made.workload.about}
    assert again.name == made.name, "it follows from the prompts and all that is sent with them"
    assert again.policy.limits.rates == made.policy.limits.rates
    assert (again.policy.retry, again.policy.breaker) == (made.policy.retry, made.policy.breaker)


def test_prompts_of_a_template_that_ships():
    session = BatchSession.from_template("text", ["A star"])
    assert session.workload.about["lane"] == "batch"
    assert BatchSession.from_template("text", prompts=["A star"], lane="online").workload.about["lane"] == "online"
    with pytest.raises(InputError, match=r"images_to must say where images go"):
        BatchSession.from_template("food", ["A pie"])
    drawn = BatchSession.from_template("food", ["A pie"], images_to=False)
    assert (drawn.workload.about["operation"], drawn.workload.about["models"]) == ("food", ["gemini-2.5-flash-image"])


def test_a_change_of_the_model_or_the_lane_drops_what_belongs_to_the_former():
    generate(["A star"], lane="batch", poll_s=5, models=["a", "b"]).save_template("night")
    about = GeminiSession.from_template("night", ["A star"], model="c", lane=Online(concurrency=2)).workload.about
    assert (about["models"], about["lane"], about["concurrency"], about["poll_s"]) == (["c"], "online", 2, 30.0)


def test_fields_of_the_config_may_stand_beside_it():
    """As the parameters of a submission have them."""
    template = templates.Template(based_on="text", params={"temperature": 0.5, "config": {"top_k": 3}})
    templates.save("night", template)
    session = GeminiSession.from_template("night", ["A star"])
    assert session.workload.about["config"] == {"top_k": 3, "temperature": 0.5}
    templates.save("night", templates.Template(based_on="text", params={"top_k": 4, "config": {"top_k": 3}}))
    with pytest.raises(InputError, match=r"template 'night': params.top_k: top_k must be given once"):
        GeminiSession.from_template("night", ["A star"])


def test_what_is_kept_of_a_refresh(tmp_path, monkeypatch):
    source = SteamStore(cc=("us", "de"), language="german")
    made = refresh([440], source=source, force=True, timeout_s=9, on_vanished="believe")
    template = as_file(made)
    assert (template.based_on, template.asks) == ("refresh", [])
    assert template.params == {
        "source": "steam", "cc": ["us", "de"], "language": "german", "force": True, "timeout_s": 9,
        "on_vanished": "believe",
    }  # fmt: skip
    session = RefreshSession.from_template("night", [440, 570])
    assert type(session) is RefreshSession
    assert (session.name, session.counts.total, session.policy.timeout_s) == ("night", 2, 9)
    assert session._spec.keying.settings == made._spec.keying.settings
    assert session.policy.limits == made.policy.limits


def test_what_is_kept_of_battle_net(monkeypatch):
    source = BattleNet("the-client-id", "the-client-secret", region="eu", max_concurrent=3)
    template = as_file(refresh(["guild/a/b"], source=source, expand="roster"))
    assert template.params == {"source": "battlenet", "region": "eu", "max_concurrent": 3, "expand": "roster"}
    assert "the-client" not in templates.path("night").read_text()
    with pytest.raises(InputError, match="BNET_CLIENT_ID and BNET_CLIENT_SECRET in the environment"):
        BatchSession.from_template("night", ["guild/a/b"])
    monkeypatch.setenv("BNET_CLIENT_ID", "the-client-id")
    monkeypatch.setenv("BNET_CLIENT_SECRET", "the-client-secret")
    session = BatchSession.from_template("night", ["guild/a/b"])
    assert (session.policy.resource, session.policy.limits.concurrency) == (source.defaults().resource, 3)


def test_library_of_a_refresh(tmp_path):
    elsewhere = tmp_path / "a" / "b.db"
    elsewhere.parent.mkdir()
    for path, held in ((None, None), (tmp_path / "mine.db", "mine.db"), (elsewhere, str(elsewhere))):
        made = refresh([440], source=SteamStore(), library=None if path is None else Library(path))
        assert as_file(made).params.get("library") == held
        assert BatchSession.from_template("night", [440]).workload._library.path == made.workload._library.path


def test_source_of_ones_own_is_asked_for():
    class Mine(SteamStore):
        pass

    for source in (Mine(), SteamStore(client=Client())):
        assert as_file(refresh([440], source=source)).asks == ["source"]
    with pytest.raises(InputError, match="needs source"):
        BatchSession.from_template("night", [440])
    assert BatchSession.from_template("night", [440], source=Mine()).counts.total == 1


class Client:
    async def get(self, *_, **__):
        raise NotImplementedError


def test_pace_of_steam_in_a_template():
    params = {"max_retries": 4, "request_delay_ms": 0, "cc": "de"}
    templates.save("night", templates.Template(based_on="refresh", params=params))
    session = BatchSession.from_template("night", [440])
    assert (session.policy.retry.attempts, session.policy.limits.spacing_s) == (5, 0)
    session = BatchSession.from_template("night", [440], retry=Retry(attempts=1))
    assert session.policy.retry.attempts == 1


def test_what_is_kept_of_a_forecast(tmp_path):
    made = forecast(
        table(), horizon=7, by=None, timeout_s=None, models=["ses", "tsb"], repair={"net_returns"}, workers=1,
        output=tmp_path / "out.csv", columns={"site": "site"}, on_failure="stop",
    )  # fmt: skip
    template = as_file(made)
    assert (template.based_on, template.asks) == ("forecast", [])
    assert template.params == {
        "horizon": 7, "by": None, "timeout_s": None, "models": ["ses", "tsb"], "repair": ["net_returns"], "workers": 1,
        "output": str(tmp_path / "out.csv"), "columns": {"site": "site"}, "on_failure": "stop",
    }  # fmt: skip
    again = ForecastSession.from_template("night", table(), name="forecast")
    assert {**again.workload.about} == {**made.workload.about}
    days = pd.date_range("2026-01-01", periods=35).strftime("%Y-%m-%d")
    known = pd.DataFrame({"date": days, "price": 1.0})
    assert as_file(forecast(table(), horizon=7, known=known)).asks == ["known"]


def test_data_is_not_held_in_memory_for_a_template():
    rows = table()
    made = forecast(rows, horizon=7)
    assert not any(value is rows for value in made.workload.given.values())
    assert "prompts" not in generate(["A star"]).workload.given
    assert "items" not in refresh([440], source=SteamStore()).workload.given


def test_a_forecast_by_the_names_of_the_other_system():
    params = {"partition_strategy": "auto", "max_execution_time": 60, "max_rows_per_partition": 100, "horizon": 7}
    templates.save("night", templates.Template(based_on="forecast", params=params))
    session = BatchSession.from_template("night", demand=table())
    about = session.workload.about
    assert (session.name, about["by"], about["timeout_s"], about["max_rows"]) == ("night", "size", 60, 100)
    assert BatchSession.from_template("night", table(), by="site").workload.about["by"] == "site"


# What is refused


def test_of_another_class():
    BatchSession("wishlist", json.dumps, [1]).save_template("night")
    with pytest.raises(InputError, match=r"makes a BatchSession, not a GeminiSession: use BatchSession.from_template"):
        GeminiSession.from_template("night", ["a"])


def test_of_no_template():
    with pytest.raises(InputError, match=r"there is no template 'nigth'"):
        BatchSession.from_template("nigth", [1])
    with pytest.raises(InputError, match="name must be"):
        BatchSession.from_template("../night", [1])


@pytest.mark.parametrize("name", ["text", "Refresh", "session", "../x", "", "a/b"])
def test_name_that_cannot_be_saved(name):
    with pytest.raises(InputError, match=r"^name must"):
        BatchSession("wishlist", json.dumps, [1]).save_template(name)


def test_session_that_was_opened_for_reading():
    generate(["A star"], name="stars").start()
    session = BatchSession.open("stars")
    session.cancel()
    reader = BatchSession.open("stars") if session.lacks else None
    if reader is not None:
        with pytest.raises(InputError, match="was opened for reading: pass prompts= to go on"):
            reader.save_template("night")


EDITED = [
    ({"limts": {"concurrency": 3}}, "params.limts", "unexpected keyword argument 'limts'"),
    ({"limits": {"concurrency": 0}}, "params.limits.concurrency", "must be a whole number >= 1, got 0"),
    ({"limits": {"hours": "22-06"}}, "params.limits.hours", "hours must be"),
    ({"timeout_s": "soon"}, "params.timeout_s", "timeout_s must be"),
    ({"on_failure": "hope"}, "params.on_failure", "must be one of 'continue'"),
    ({"work": "json:nothing"}, "params.work", "must name a function that can be imported"),
    ({"key": 3}, "params.key", "key must be a function"),
]


@pytest.mark.parametrize(("params", "field", "said"), EDITED, ids=[field for _, field, _ in EDITED])
def test_template_that_was_edited_wrongly(params, field, said):
    templates.save("night", templates.Template(based_on="session", params={"work": "json:dumps", **params}))
    with pytest.raises(templates.WrongField) as refused:
        BatchSession.from_template("night", [1])
    assert refused.value.field == field
    assert str(refused.value).startswith("template 'night': ")
    assert said in str(refused.value)


def test_argument_of_the_call_that_is_wrong_is_not_laid_to_the_template():
    templates.save("night", templates.Template(based_on="session", params={"work": "json:dumps", "timeout_s": 5}))
    with pytest.raises(InputError, match=r"^timeout_s must be"):
        BatchSession.from_template("night", [1], timeout_s=-1)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("text", {"work": len}, "template 'text' takes no argument work"),
        ("text", {"modle": "gemini-2.5-pro"}, "template 'text' takes no argument modle: did you mean 'model'"),
        ("refresh", {"work": len}, "template 'refresh' takes no argument work"),
        ("own", {"bogus": 1}, "template 'own' takes no argument bogus"),
    ],
)
def test_argument_that_no_session_of_it_takes(name, changes, said):
    BatchSession("own", json.dumps, [1]).save_template("own")
    with pytest.raises(InputError, match=said):
        BatchSession.from_template(name, [1], **changes)


def test_prompts_edited_wrongly():
    templates.save("night", templates.Template(based_on="text", params={"lane": "bach"}))
    with pytest.raises(templates.WrongField, match=r"template 'night': params.lane: lane must be one of") as refused:
        BatchSession.from_template("night", ["a"])
    assert (refused.value.field, refused.value.value) == ("params.lane", "bach")


def test_work_of_another_package_has_no_template(journal):
    """A workload that ships no template is refused by name, and a session of it can be run all the same."""
    session = ShoutSession("party", Shout(2), ["hey"], journal=journal)
    with pytest.raises(InputError, match="is a ShoutSession, of which no template can be made"):
        session.save_template("night")


def test_names_of_what_is_of_one_call_are_arguments():
    """None of them was renamed."""
    import inspect

    known = {*inspect.signature(BatchSession.__init__).parameters, "api_key", "replace"}
    assert known >= OF_CALL


def test_module_that_changed(monkeypatch):
    """The function is imported anew each time: what runs is what the module has now."""
    module = types.ModuleType("mine_of_tests")
    module.work = lambda item: 1
    module.work.__module__, module.work.__qualname__ = "mine_of_tests", "work"
    monkeypatch.setitem(sys.modules, "mine_of_tests", module)
    assert as_file(BatchSession("wishlist", module.work, [1])).params == {"work": "mine_of_tests:work"}
    module.work = lambda item: 2
    session = BatchSession.from_template("night", [1])
    session.run()
    assert list(session.results()["result"]) == [2]
