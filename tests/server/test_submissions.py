"""Routes of submissions: made once, told, listed, cancelled; what is refused, and how that is said."""

import datetime as dt
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import httpx2
import msgspec
import pytest

from ipybatch.gemini.money.credits import CreditAccount
from ipybatch.server.submission_store import Submissions
from ipybatch.server.templates import WrongField
from ipybatch.server.watcher import ENDED_S
from tests.kernels import Kernel
from tests.server.submitting import DEAD, OTHER, Words, add_words, order, set_row


@pytest.fixture
def server(served, monkeypatch):
    """The server, with a template of its own; nothing runs."""
    monkeypatch.setattr("ipybatch.server.templates.TEMPLATES", {})
    add_words()
    return served


@pytest.fixture
def store(server):
    return server.services.submissions()


@pytest.fixture
def account(server):
    account = CreditAccount()
    account.grant(10)
    return account


def words(*words, **given):
    return {"template": "words", "requests": list(words or ["one", "two"]), **given}


def refused(response, status, field=""):
    """Return what is said of a request that was refused, as a problem."""
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert (response.status_code, told["status"], told.get("field", "")) == (status, status, field), told
    return told


class TestMaking:
    def test_it_is_accepted(self, server):
        """The answer says where it is, and that it waits."""
        answer = server.post("/submissions", json=words(name="night", priority="high"))
        made = answer.json()
        assert answer.status_code == 202
        assert answer.headers["location"] == f"/ipybatch/api/v1/submissions/{made['id']}" == made["links"]["self"]
        assert (made["state"], made["name"], made["priority"]) == ("PENDING", "night", "high")
        assert (made["request_count"], made["counts"]["pending"], made["progress"]) == (2, 2, 0)
        assert (made["session"], made["credits"], made["starts"]) == (None, None, 0)
        assert server.get(f"/submissions/{made['id']}").json() == made

    def test_the_same_key_twice_is_one(self, server, account):
        ask = {"json": words(params={"paid": True}), "headers": {"Idempotency-Key": "k"}}
        first, again = server.post("/submissions", **ask), server.post("/submissions", **ask)
        assert first.status_code == again.status_code == 202
        assert again.json() == first.json()
        assert again.headers["location"] == first.headers["location"]
        assert len(server.get("/submissions").json()["items"]) == 1
        assert account.available == 6

    def test_spaces_and_order_do_not_matter(self, server):
        headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
        texts = ('{"template":"words","requests":["a"]}', '{ "requests": ["a"],\n "template": "words"}')
        first, again = (server.post("/submissions", content=text, headers=headers).json() for text in texts)
        assert first["id"] == again["id"]

    def test_the_same_key_with_another_body(self, server):
        headers = {"Idempotency-Key": "k"}
        server.post("/submissions", json=words("one"), headers=headers)
        told = refused(server.post("/submissions", json=words("two"), headers=headers), 422, "Idempotency-Key")
        assert "another request" in told["detail"]

    def test_the_same_key_while_the_first_is_made(self, server):
        server.services.creating.add("k")
        refused(server.post("/submissions", json=words(), headers={"Idempotency-Key": "k"}), 409, "Idempotency-Key")
        server.services.creating.clear()
        assert server.post("/submissions", json=words(), headers={"Idempotency-Key": "k"}).status_code == 202

    def test_a_dry_run_reserves_nothing(self, server, account):
        answer = server.post("/submissions?dry_run=1", json=words(params={"paid": True}))
        assert (answer.status_code, answer.json()["request_count"]) == (200, 2)
        assert account.available == 10
        assert server.get("/submissions").json()["items"] == []

    def test_credits_are_reserved(self, server, account):
        made = server.post("/submissions", json=words(params={"paid": True})).json()
        assert made["credits"] == {"account": "default", "cost": 4, "used": None, "balance": 10, "available": 6}

    def test_too_few_credits(self, server, account):
        told = refused(server.post("/submissions", json=words(*"abcdef", params={"paid": True})), 402, "credits")
        assert (told["value"], told["allowed"]) == (12, 10)
        assert "balance of 10" in told["detail"]
        assert server.get("/submissions").json()["items"] == []

    @pytest.mark.parametrize(
        ("given", "status", "field"),
        [
            ({"template": "horoscope"}, 422, "template"),
            ({"requests": None}, 422, "requests"),
            ({"requests": []}, 422, "requests"),
            ({"notify": "nobody"}, 422, "notify"),
            ({"notify": []}, 422, "notify"),
            ({"notify": {"channels": "nobody", "breaker_min": 0}}, 422, "notify"),
            ({"notify": {"mail": "a@example.org"}}, 422, "notify"),
            ({"start_at": "soon"}, 422, "start_at"),
            ({"start_at": "2001-01-01T00:00:00Z"}, 422, "start_at"),
            ({"start_at": "0001-01-01T00:00:00"}, 422, "start_at"),
            ({"start_at": "25:00"}, 422, "start_at"),
            ({"start_at": "22:00", "zone": "Europe/Berln"}, 422, "zone"),
            ({"name": "a\nb"}, 422, "name"),
            ({"name": " "}, 422, "name"),
            ({"priority": "urgent"}, 422, "priority"),
            ({"colour": "red"}, 422, "body"),
        ],
    )
    def test_what_is_wrong_is_named(self, server, given, status, field):
        for path in ("/submissions", "/submissions?dry_run=1"):
            refused(server.post(path, json={**words(), **given}), status, field)
        assert server.get("/submissions").json()["items"] == []

    @pytest.mark.parametrize("query", ["?dry_run=", "?dry_run", "?dry_run=true"])
    def test_a_dry_run_that_does_not_say_so_submits_nothing(self, server, account, query):
        """A shell's variable that is not set, say: it must not be a run that costs."""
        answer = server.post(f"/submissions{query}", json=words(params={"paid": True}))
        assert (answer.status_code, answer.json()["field"]) == (422, "dry_run")
        assert server.get("/submissions").json()["items"] == []

    @pytest.mark.parametrize("query", ["", "?dry_run=1"])
    def test_nothing_else_waits_for_a_check_that_takes_long(self, server, monkeypatch, query):
        """Such as of a table, which is read for seconds."""
        begun, go_on = threading.Semaphore(0), threading.Event()
        check = Words.check

        def slow(*given):
            begun.release()
            assert go_on.wait(20)
            return check(*given)

        monkeypatch.setattr(Words, "check", slow)
        with ThreadPoolExecutor(4) as clients:

            def ask(number):
                headers = {"Authorization": server.client.headers["Authorization"]}
                url = f"{server.url}/ipybatch/api/v1/submissions{query}"
                return httpx2.post(url, json=words(name=f"night {number}"), headers=headers, timeout=30)

            asked = [clients.submit(ask, number) for number in range(4)]
            assert begun.acquire(timeout=20)
            assert begun.acquire(timeout=20)
            try:
                assert server.get("/sessions").status_code == 200
                assert server.get("/submissions").status_code == 200
                assert not any(each.done() for each in asked)
            finally:
                go_on.set()
            assert {each.result().status_code for each in asked} == {200 if query else 202}

    @pytest.mark.parametrize("value", ["x" * 5000, ["x" * 5000], {"key": "AIzaSyD-" + "b" * 31}, 10**400])
    def test_an_error_repeats_little_of_what_was_asked(self, server, monkeypatch, value):
        def check(template, request, options):
            msg = f"params.word must be short, got {request.params['word']!r}"
            raise WrongField("params.word", msg, value=request.params["word"])

        monkeypatch.setattr(Words, "check", check)
        answer = server.post("/submissions", json=words(params={"word": value}))
        told = refused(answer, 422, "params.word")
        assert len(answer.text) < 3000
        assert len(str(told["value"])) <= 200
        assert "AIza" not in answer.text

    def test_an_unknown_template_is_told_which_there_are(self, server):
        assert refused(server.post("/submissions", json=words(template="x")), 422, "template")["allowed"] == ["words"]

    @pytest.mark.parametrize(("key", "status"), [("k" * 255, 202), ("k" * 256, 422)])
    def test_the_length_of_a_key(self, server, key, status):
        assert server.post("/submissions", json=words(), headers={"Idempotency-Key": key}).status_code == status

    def test_ten_thousand_requests_are_refused_by_name_and_memory_is_flat(self, server):
        body = words(*[f"a prompt of some length, number {number}" for number in range(10_000)])
        server.post("/submissions", json=body)
        tracemalloc.start()
        try:
            told = refused(server.post("/submissions", json=body), 422, "requests")
            left, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert told["value"] == 10_000
        assert told["allowed"]["maxItems"] == 20
        assert "max_requests" in told["detail"]
        assert "c.IpyBatch.max_requests" in told["next_step"]
        assert left < 4e6

    @pytest.mark.parametrize("value", [b"[]", b"{}", b"1"])
    def test_a_million_values_are_refused_before_they_are_made(self, server, value):
        body = b'{"template": "words", "requests": [' + b", ".join([value] * 600_000) + b"]}"
        tracemalloc.start()
        try:
            answer = server.post("/submissions", content=body, headers={"Content-Type": "application/json"})
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        told = refused(answer, 413, "body")
        assert told["allowed"] == {"maximum": 250_000}
        assert most < 4 * len(body), "it is sent and received in this process"

    def test_what_is_in_a_text_are_no_values(self, server):
        text = 'a, [b], {c}, "quoted", \\ ' * 100_000
        assert server.post("/submissions?dry_run=1", json=words(text, text)).status_code == 200
        refused(server.post("/submissions?dry_run=1", json=words(*[""] * 260_000)), 413, "body")

    def test_what_is_nested_too_deeply_is_refused(self, server, monkeypatch):
        def check(template, request, options):
            return check(template, request, options)

        monkeypatch.setattr(Words, "check", check)
        for path in ("/submissions", "/submissions?dry_run=1"):
            told = refused(server.post(path, json=words()), 422, "body")
            assert told["detail"] == "the body must not be nested so deeply"

    def test_a_name_that_has_not_ended(self, server):
        server.post("/submissions", json=words(name="night"))
        told = refused(server.post("/submissions", json=words(name="night")), 409, "name")
        assert "night" in told["detail"]

    @pytest.mark.parametrize(("zone", "hour"), [("Asia/Kolkata", "16:30"), ("Etc/UTC", "22:00")])
    def test_a_time_of_day_is_the_next_one_in_its_zone(self, server, zone, hour):
        """As sessions take it."""
        made = server.post("/submissions", json=words(start_at="22:00", zone=zone)).json()
        assert made["start_at"][11:16] == hour
        wait_s = dt.datetime.fromisoformat(made["start_at"]).timestamp() - time.time()
        assert 0 < wait_s <= 86_400

    def test_start_at_is_kept(self, server, store):
        made = server.post("/submissions", json=words(start_at="2099-01-31T22:00:00+01:00")).json()
        assert made["start_at"] == "2099-01-31T21:00:00.000Z"
        assert store.claim(9) is None


class TestTelling:
    def test_none_of_this_id(self, server):
        for submission in ("ffff", "..%2f..%2fetc", "%00", "a" * 500):
            refused(server.get(f"/submissions/{submission}"), 404)
            refused(server.delete(f"/submissions/{submission}"), 404)
            refused(server.post(f"/submissions/{submission}/commands", json={"verb": "cancel"}), 404)

    def test_an_etag_saves_the_body(self, server, store):
        made = store.create(order())
        answer = server.get(f"/submissions/{made.id}")
        again = server.get(f"/submissions/{made.id}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        store.cancel(made.id)
        after = server.get(f"/submissions/{made.id}", headers={"If-None-Match": answer.headers["etag"]})
        assert (after.status_code, after.json()["state"]) == (200, "CANCELLED")

    def test_a_list_goes_on_page_by_page(self, server, store):
        ids = [store.create(order()).id for _ in range(5)][::-1]
        first = server.get("/submissions?limit=2")
        assert 'rel="next"' in first.headers["link"]
        second = server.get(f"/submissions?limit=3&cursor={first.json()['next']}").json()
        assert [item["id"] for page in (first.json(), second) for item in page["items"]] == ids
        assert second["next"] is None
        for wrong in ("limit=0", "limit=x", "cursor=x", "cursor=-1", "cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5"):
            refused(server.get(f"/submissions?{wrong}"), 422, wrong.partition("=")[0])

    def test_what_waits_says_for_how_many(self, server, store):
        """Two run at once here: with one running, the first that waits begins next, and so on by priority."""
        running, low, later, medium, high = (
            store.create(order(**given))
            for given in (
                {},
                {"priority": 2},
                {"start_at_s": time.time() + 3600, "priority": 2},
                {},
                {"priority": 0},
            )
        )
        set_row(store, running, state="RUNNING", owner=OTHER)
        listed = server.get("/submissions?waiting=1").json()["items"]
        assert {item["id"]: item["waits_for"] for item in listed} == {high.id: 0, medium.id: 1, low.id: 2, later.id: 3}
        assert server.get(f"/submissions/{running.id}").json()["waits_for"] is None
        assert len(server.get("/submissions").json()["items"]) == 5
        refused(server.get("/submissions?waiting=2"), 422, "waiting")

    def test_the_watcher_tells_that_another_one_waits(self, server, store):
        watcher = server.services.watcher

        def look():
            watcher._latest_s = -ENDED_S
            server.call(watcher.look(time.monotonic()))
            return watcher.cursor

        look()
        before = look()
        made = store.create(order()).id
        assert look() == before + 1
        told = msgspec.json.decode(watcher._backlog[-1][1])
        assert (told["items"], told["submissions"]) == ([], True)
        store.cancel(made)
        assert look() == before + 2
        assert look() == before + 2

    @pytest.mark.parametrize(
        ("columns", "state", "reason"),
        [
            ({"owner": OTHER}, "RUNNING", "its kernel starts"),
            ({"owner": DEAD}, "PENDING", "ended without letting go: it is started again"),
            ({"owner": None, "reason": "its kernel died"}, "PENDING", "its kernel died: it is started again"),
            ({"owner": "other-machine/7/x", "beat_s": 9.0}, "UNKNOWN", "process 7 on other-machine was last heard of"),
            ({"owner": OTHER, "state": "CANCELLING"}, "RUNNING", "it was asked to cancel"),
            ({"owner": DEAD, "state": "CANCELLING"}, "CANCELLED", "it was asked to cancel"),
            ({"state": "FAILED", "reason": "in /home/me/journal.db"}, "FAILED", "in journal.db"),
        ],
    )
    def test_how_one_stands_that_was_started(self, server, store, columns, state, reason):
        made = store.create(order())
        set_row(store, made, **{"state": "RUNNING", "starts": 1, "beat_s": time.time(), **columns})
        told = server.get(f"/submissions/{made.id}").json()
        assert told["state"] == state
        assert reason in told["reason"]


class TestCancelling:
    @pytest.mark.parametrize("way", ["DELETE", "POST"])
    def test_one_that_waits(self, server, account, way):
        made = server.post("/submissions", json=words(params={"paid": True})).json()
        path = f"/submissions/{made['id']}"
        ask = {"json": {"verb": "cancel"}} if way == "POST" else {}
        answer = server.request(way, f"{path}/commands" if way == "POST" else path, **ask)
        assert (answer.status_code, answer.json()["state"]) == (202, "done")
        told = server.get(path).json()
        assert (told["state"], told["reason"]) == ("CANCELLED", "it was cancelled before it began")
        assert told["credits"]["available"] == 10
        refused(server.delete(path), 409, "verb")

    @pytest.mark.parametrize("verb", ["pause", "resume", "retry_failed", "adjust", "lift"])
    def test_what_has_not_begun_can_only_be_cancelled(self, server, store, verb):
        made = store.create(order())
        refused(server.post(f"/submissions/{made.id}/commands", json={"verb": verb}), 409, "verb")

    def test_one_whose_kernel_starts(self, server, store):
        made = store.create(order())
        store.claim(2)
        answer = server.delete(f"/submissions/{made.id}")
        assert answer.json()["state"] == "waiting"
        assert answer.headers["Location"] == f"/ipybatch/api/v1/submissions/{made.id}"
        assert store.find(made.id).state == "CANCELLING"


@pytest.fixture
def kernel():
    kernel = Kernel()
    kernel.run("import contextlib, sys\nfrom tests.server.submitting import add_words, work\nadd_words()")
    yield kernel
    kernel.kill()


def test_one_that_runs_is_commanded_through_its_session(server, kernel, tmp_path, patience):
    """It is paused, resumed and cancelled by its id, tells of that, and goes on under the same name."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    body = words("one", "bad", name="night", params={"gate": str(gate), "log": str(log), "paid": True})
    CreditAccount().grant(10)
    made = server.post("/submissions", json=body).json()
    path = f"/submissions/{made['id']}"

    def run(submission):
        kernel.begin(f"with contextlib.redirect_stdout(sys.stderr): said = work({submission!r}).state")

    def until(state):
        while (told := server.get(path).json())["state"] != state or (state == "RUNNING" and not told["session"]):
            time.sleep(0.01)
        return told

    run(made["id"])
    until("RUNNING")
    for verb, state in (("pause", "PAUSED"), ("resume", "RUNNING")):
        answer = server.post(f"{path}/commands", json={"verb": verb})
        assert (answer.status_code, answer.json()["state"]) == (202, "done")
        until(state)
    assert server.delete(path).json()["state"] == "done"
    assert kernel.answer() == "CANCELLED"
    told = until("CANCELLED")
    assert (told["credits"]["used"], told["credits"]["available"]) == (0, 10)
    gate.touch()
    again = server.post("/submissions", json=body).json()
    path = f"/submissions/{again['id']}"
    run(again["id"])
    assert kernel.answer() == "COMPLETED"
    ended = until("COMPLETED")
    assert ended["session"] == told["session"]
    assert (ended["progress"], ended["counts"]["completed"], ended["counts"]["failed"]) == (100, 1, 1)
    assert (ended["credits"]["used"], ended["credits"]["balance"]) == (2, 8)
    assert ended["results"] == [f"/ipybatch/api/v1/sessions/{ended['session']}/files/one.png"]
    assert [(error["message"], error["count"], error["key"]) for error in ended["errors"]] == [("bad", 1, "bad")]
    earlier = f"/submissions/{made['id']}/commands"
    told = refused(server.post(earlier, json={"verb": "retry_failed"}), 409, "verb")
    assert told["detail"].endswith(f"and its session is that of submission {again['id']}")
    told = refused(server.post(f"{path}/commands", json={"verb": "resume"}), 409, "verb")
    assert told["detail"].endswith("has ended: COMPLETED, and has nothing that could be tried again")
    assert server.post(f"{path}/commands", json={"verb": "retry_failed"}).json()["state"] == "done"
    assert server.get(path).json()["state"] == "PENDING"
    assert Submissions().find(again["id"]).verb == "retry_failed"
    assert server.delete(path).json()["state"] == "done"
    session = f"/sessions/{ended['session']}"
    assert server.delete(session, headers={"If-Match": "*"}).status_code == 204
    told = refused(server.post(f"{path}/commands", json={"verb": "retry_failed"}), 409, "verb")
    assert told["detail"].endswith("and its session was deleted")
