"""Templates of the user's own, in submissions: what they say, what a request says instead, and what is refused."""

import json

import pytest

from ipybatch import BatchSession, templates
from ipybatch.server.submission_order import canonical, to_order, to_quote
from ipybatch.server.templates import WrongField, check_own, find_template, resolve
from ipybatch.server.wire import SubmissionRequest
from ipybatch.simulators import serve
from ipybatch.templates import Template
from tests.server.templates.conftest import OPTIONS


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYBATCH_CONFIG", str(tmp_path / "config"))


def save(**given):
    templates.save("night", Template(**{"based_on": "text", **given}))


def asked(template="night", **given):
    return SubmissionRequest(template=template, **given)


def test_what_a_template_says_holds_where_the_request_does_not():
    save(params={"lane": "online", "system": "Be short.", "config": {"seed": 1}}, start_at="22:00", priority="high")
    found = resolve(asked(requests=["a"], name="mine", params={"system": "Be long.", "config": {"top_k": 3}}))
    assert found == SubmissionRequest(
        template="text",
        name="mine",
        requests=["a"],
        params={"lane": "online", "system": "Be long.", "config": {"top_k": 3}},
        start_at="22:00",
        priority="high",
    )
    save(start_at="22:00", zone="Asia/Kolkata", priority="high", notify="mail")
    found = resolve(asked(start_at="23:00", priority="low", notify=["desk"]))
    assert (found.start_at, found.zone, found.priority, found.notify) == ("23:00", None, "low", ["desk"])
    found = resolve(asked())
    assert (found.start_at, found.zone, found.priority, found.notify) == ("22:00", "Asia/Kolkata", "high", "mail")


def test_what_says_the_same_is_dropped():
    save(params={"model": "a", "lane": "batch", "poll_s": 5})
    assert resolve(asked(params={"models": ["b"]})).params == {"models": ["b"], "lane": "batch", "poll_s": 5}
    assert resolve(asked(params={"lane": "online"})).params == {"model": "a", "lane": "online"}


def test_template_that_ships_stays_as_it_is():
    request = asked("text", requests=["a"], params={"lane": "online"})
    assert resolve(request) == asked("text", requests=["a"], params={"lane": "online"}, priority="medium")
    assert resolve(resolve(request)) == resolve(request)


def test_what_is_where_in_python_is_left_out():
    save(based_on="food", params={"images_to": "/home/me/pictures", "key": "id", "operation": "food", "lane": "online"})
    assert resolve(asked()).params == {"lane": "online"}
    save(based_on="forecast", params={"output": "out.csv", "storage": "s3://bucket/x", "horizon": 7})
    assert resolve(asked()).params == {"horizon": 7}


def refused(request):
    with pytest.raises(WrongField) as error:
        resolve(request)
    assert error.value.field == "template"
    return str(error.value)


def test_what_cannot_be_submitted():
    assert "template must be one of character" in refused(asked("nothing"))
    assert "template must be one of character" in refused(asked("../../etc/passwd"))
    save(based_on="session", params={"work": "json:dumps"})
    assert "for a function of your own, which a request must not choose" in refused(asked())
    save(asks=["client", "key"])
    assert "asks for client, which no submission can give" in refused(asked())
    save(asks=["key", "images_to"])
    assert resolve(asked()).template == "text"
    templates.path("night").write_text("based_on = ")
    assert "night.toml must be TOML" in refused(asked())


def test_an_order_is_of_what_was_said_and_is_known_by_what_was_asked(desk, monkeypatch):
    """The same request with the same key is one submission, though its template changed meanwhile."""
    monkeypatch.setenv("GEMINI_API_KEY", "k" * 20)
    save(params={"lane": "online", "system": "Be short."})
    request = asked(requests=["a"])
    order = to_order(request, OPTIONS)
    assert (order.template, order.label, order.requests, order.priority) == ("text", "night", 1, 1)
    assert json.loads(order.request)["params"]["system"] == "Be short."
    save(params={"lane": "online", "system": "Be long."})
    assert to_order(request, OPTIONS).digest == order.digest == canonical(request)[1]
    assert to_quote(request, OPTIONS).template == "text"


def test_a_session_saved_in_python_runs_as_a_submission(desk):
    """With its limits, its policy, and the pace of the request."""
    from ipybatch import Limits, Rate, Retry
    from ipybatch.library import SteamStore, refresh

    with serve("steam") as url:
        made = refresh(
            [440], source=SteamStore(url), limits=Limits(rates=[Rate(90, per_s=1)]), breaker=None, force=True
        )
        made.save_template("night")
        request = resolve(asked(requests=[440, 570], params={"retry": {"attempts": 2}}))
        session = desk.session(request.template, request.requests, **request.params)
        assert session.policy.limits == made.policy.limits
        assert (session.policy.retry, session.policy.breaker) == (Retry(attempts=2), None)
        assert session.run().counts.completed == 2


def test_prompts_saved_in_python_run_as_a_submission(desk):
    from ipybatch.gemini import Batch, generate

    with serve("gemini") as url:
        made = generate(["a"], base_url=url, api_key="SIMULATED", lane=Batch(poll_s=0.1), system="Be short.")
        made.save_template("night")
        request = resolve(asked(requests=["A star"]))
        session = desk.session(request.template, request.requests, **request.params)
        about = session.workload.about
        assert (about["lane"], about["poll_s"], about["system"], about["operation"]) == (
            "batch", 0.1, "Be short.", "text",
        )  # fmt: skip


def test_template_text_saved_in_python_is_filled_by_requests(desk):
    """The same prompts as in Python; and no field of a request is read as a file."""
    from ipybatch.gemini import generate

    rows = [{"id": "a", "name": "fox", "price": 2}, {"id": "b", "name": "owl", "price": 3.5}]
    with serve("gemini") as url:
        made = generate(rows, template="A {name} of {price:.2f}", base_url=url, api_key="SIMULATED")
        made.save_template("night")
        request = resolve(asked(requests=[*rows, {"name": "elk", "price": 1, "image": "/etc/passwd"}]))
        session = find_template("text").session(request, name="night", journal=desk.journal)
    tasks = list(session._items.plan)
    assert [task.item.text for task in tasks] == ["A fox of 2.00", "A owl of 3.50", "A elk of 1.00"]
    assert [json.loads(task.key) for task in tasks] == ["a", "b", 3]
    assert "passwd" not in repr(tasks)


@pytest.mark.parametrize("wrong", [3, {"name": "fox"}, {"name": None, "price": 1}, {"name": "a", "price": "x"}])
def test_request_that_does_not_fill_it(desk, wrong):
    params = {"template": "A {name} of {price:.2f}", "base_url": "http://127.0.0.1:9"}
    with pytest.raises(WrongField) as error:
        find_template("text").check(asked("text", requests=[wrong], params=params), OPTIONS)
    assert error.value.field == "requests[0]"


# What a request may write

GOOD = [
    {
        "based_on": "text",
        "params": {"lane": "auto", "deadline_s": 60, "temperature": 0.5, "limits": {"concurrency": 2}},
    },
    {"based_on": "food", "params": {"images_to": "pictures", "modalities": None}},
    {"based_on": "refresh", "params": {"source": "battlenet", "region": "eu", "expand": "roster"}},
    {"based_on": "refresh", "params": {"max_retries": 1, "library": "mine.db"}},
    {"based_on": "forecast", "params": {"horizon": 7, "by": "Lokasi", "max_execution_time": 60}},
    {"based_on": "session", "params": {"limits": {"concurrency": 2}, "retry": {"attempts": 3}, "breaker": None}},
    {"based_on": "session", "params": {"limits": {"each": {"concurrency": 2}}}, "asks": ["per"]},
]


@pytest.mark.parametrize("given", GOOD, ids=lambda given: f"{given['based_on']} {next(iter(given['params']))}")
def test_what_can_be_written(desk, given):
    check_own(Template(**given), None)


WRONG = [
    ({"based_on": "texts"}, "based_on"),
    ({"params": {"lane": "bach"}}, "params.lane"),
    ({"params": {"lanes": "batch"}}, "params.lanes"),
    ({"params": {"samples": 0}}, "params.samples"),
    ({"params": {"base_url": "https://elsewhere.example"}}, "params.base_url"),
    ({"params": {"api_key": "x"}}, "params.api_key"),
    ({"params": {"template": "About nothing"}}, "params.template"),
    ({"params": {"template": "About {x.__class__}"}}, "params.template"),
    ({"params": {"template": "About {x:>99999999}"}}, "params.template"),
    ({"params": {"template": "About {x:{y}}"}}, "params.template"),
    ({"params": {"limits": {"concurrency": 0}}}, "params.limits.concurrency"),
    ({"params": {"retry": 3}}, "params.retry"),
    ({"based_on": "refresh", "params": {"library": "../mine.db"}}, "params.library"),
    ({"based_on": "refresh", "params": {"region": "eu"}}, "params.region"),
    ({"based_on": "refresh", "params": {"max_retries": 1, "retry": {"attempts": 2}}}, "params.max_retries"),
    ({"based_on": "refresh", "params": {"cc": "nowhere"}}, "params.cc"),
    ({"based_on": "forecast", "params": {"horizon": 0}}, "params.horizon"),
    ({"based_on": "forecast", "params": {"max_rows": 1, "max_rows_per_partition": 2}}, "params.max_rows_per_partition"),
    ({"based_on": "session", "params": {"work": "os:system"}}, "params.work"),
    ({"based_on": "session", "params": {"key": "builtins:str"}}, "params.key"),
    ({"based_on": "session", "params": {"timeout_s": -1}}, "params.timeout_s"),
    ({"based_on": "session", "params": {"lane": "batch"}}, "params.lane"),
    ({"based_on": "session", "params": {"journal": "/tmp/x"}}, "params.journal"),
    ({"based_on": "session", "params": {"limits": {"rates": [{"limit": 1}]}}}, "params.limits.rates[0]"),
]


@pytest.mark.parametrize(("given", "field"), WRONG, ids=[f"{given.get('based_on', 'text')} {f}" for given, f in WRONG])
def test_what_is_wrong_is_named(desk, given, field):
    with pytest.raises(WrongField) as error:
        check_own(Template(**{"based_on": "text", **given}), None)
    assert error.value.field == field


def test_code_that_the_file_names_already_may_stay(desk):
    """Its limits can be edited over HTTP, and nothing else can be made to run."""
    before = Template(based_on="session", params={"work": "json:dumps"})
    check_own(Template(based_on="session", params={"work": "json:dumps", "timeout_s": 5}), before)
    with pytest.raises(WrongField, match="a request must not choose code"):
        check_own(Template(based_on="session", params={"work": "json:loads"}), before)


def test_checks_leave_nothing_behind(desk):
    for given in GOOD:
        check_own(Template(**given), None)
    with pytest.raises(ValueError, match="must be that of a recorded session"):
        BatchSession.open("ipybatch check")
