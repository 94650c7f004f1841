"""RedisLimits: a Redis that machines share; what it keeps, what is said when it cannot, and who sees its password."""

import contextlib
import math
import socketserver
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ipybatch
from ipybatch import InputError, Limits, MissingExtra, Rate, events
from ipybatch.engine.rules.limiter import held_s
from ipybatch.engine.store import redis_limits, resources
from ipybatch.engine.store.journal import open_journal
from ipybatch.engine.store.redis_limits import RedisLimits
from ipybatch.engine.store.sqlite_limits import KEPT_S
from ipybatch.errors import JournalError
from ipybatch.testing import START_UNIX_S, Bounds, Report, VirtualClock
from tests.redis_server import CERTIFICATE, RedisServer

RATE = Rate(3, per_s=10)
BOUNDS = Bounds(rates=(RATE,))
PASSWORD = "open-sesame-41"


@pytest.fixture
def opened():
    made = []

    def make(url, **arguments):
        made.append(RedisLimits(url, **{"settle_s": 0.0, **arguments}))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def started(tmp_path, redis_server):
    """Start further servers, of other options."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(RedisServer(tmp_path / "other", **options))


def ask(store, owner="a", **more):
    return store.exchange(Report(resource="api", owner=owner, bounds=BOUNDS, wanted={}, **more))


def why(store):
    with pytest.raises(JournalError) as told:
        ask(store)
    return str(told.value)


# what it keeps


def test_numbers_keep_all_their_digits(redis_server, opened):
    """A store that rounds to 14 digits would lose milliseconds of Unix times, and tokens of large totals."""
    now_s, rate = START_UNIX_S + 0.1234567, Rate(1e15, per_s=1e6 + 1 / 3, unit="tokens")
    store = opened(redis_server.url, now_s=lambda: now_s)
    for cost in (123_456_789_012_345.0, 0.015625):
        report = Report(resource="api", owner="a", bounds=Bounds(rates=(rate,)), spent=[(0.0, "tokens", cost)])
        answer = store.exchange(report)
    assert answer.used == {rate: 123_456_789_012_345.015625}
    assert store.history("api", 1.0) == [(0.0, "tokens", 123_456_789_012_345.0), (0.0, "tokens", 0.015625)]


def test_what_is_too_small_for_a_total_prolongs_nothing(redis_server, opened):
    now_s, rate = START_UNIX_S, Rate(1e17, per_s=10, unit="tokens")
    store, bounds = opened(redis_server.url, now_s=lambda: now_s), Bounds(rates=(rate,))
    for cost in (1e16, 0.5):
        store.exchange(Report(resource="api", owner="a", bounds=bounds, spent=[(0.0, "tokens", cost)]))
        now_s += 9.0
    assert store.exchange(Report(resource="api", owner="a", bounds=bounds)).used == {rate: 0.0}


def test_who_reports_later_what_was_answered_before_counts_from_the_last_one_on(redis_server, opened):
    """Totals rise with the time: a little longer, never shorter."""
    now_s = START_UNIX_S
    store = opened(redis_server.url, now_s=lambda: now_s)
    for owner, ago_s in (("a", 0.0), ("b", 5.0)):
        store.exchange(Report(resource="api", owner=owner, bounds=BOUNDS, spent=[(ago_s, "requests", 1.0)]))
    now_s += 6.0
    assert store.exchange(Report(resource="api", owner="a", bounds=BOUNDS)).used == {RATE: 2.0}
    now_s += 4.1
    assert store.exchange(Report(resource="api", owner="a", bounds=BOUNDS)).used == {RATE: 0.0}


def test_an_exchange_is_one_call_of_a_script(redis_server, opened):
    store = opened(redis_server.url)
    ask(store)
    with redis_server.client() as client:
        client.config_resetstat()
        for number in range(5):
            ask(store, spent=[(0.0, "requests", 1.0)] * number)
        calls = {name: told["calls"] for name, told in client.info("commandstats").items()}
    assert calls["cmdstat_evalsha"] == 5
    assert "cmdstat_info" not in calls
    assert "cmdstat_eval" not in calls


def test_it_goes_by_the_clock_of_the_server(redis_server, opened, monkeypatch):
    """Two machines whose clocks are 60 s apart count in the same window."""
    a, b = opened(redis_server.url), opened(redis_server.url)
    ask(a, spent=[(0.0, "requests", 3.0)])
    monkeypatch.setattr("time.time", lambda: 1e9)
    monkeypatch.setattr("time.monotonic", lambda: 60.0)
    assert 9.0 < ask(b, "b").wait_s <= held_s(RATE)


def test_a_long_window_is_asked_in_few_steps(redis_server, opened):
    """A full one of many answers: the time to wait is found by halving."""
    now_s, rate = START_UNIX_S, Rate(3000, per_s=60)
    store = opened(redis_server.url, now_s=lambda: now_s)
    for _ in range(30):
        now_s += 1.0
        report = Report(resource="api", owner="a", bounds=Bounds(rates=(rate,)), spent=[(0.0, "requests", 1.0)] * 100)
        store.exchange(report)
    with redis_server.client() as client:
        client.config_resetstat()
        wait_s = store.exchange(Report(resource="api", owner="a", bounds=Bounds(rates=(rate,)), wanted={})).wait_s
        calls = client.info("commandstats")["cmdstat_zrange"]["calls"]
    assert wait_s == pytest.approx(held_s(rate) - 29.0)
    assert calls < 20


def test_all_of_a_resource_lies_in_one_slot(redis_server, opened):
    """Its limit groups too: a cluster keeps them together, whatever braces are in their names."""
    store = opened(redis_server.url)
    for name in ("api {v1}", "api {v1}\x1feu {west}", "api {v1}\x1fus"):
        store.exchange(Report(resource=name, owner="a", bounds=BOUNDS, wanted={}, spent=[(0.0, "requests", 1.0)]))
    with redis_server.client() as client:
        keys = sorted(set(client.scan_iter()) - {"ipybatch:names"})
    assert len(keys) == 7
    assert {key[key.index("{") : key.index("}") + 1] for key in keys} == {"{api %7Bv1%7D}"}
    assert store.names() == ["api {v1}", "api {v1}\x1feu {west}", "api {v1}\x1fus"]


def test_a_cluster_of_one_shard_will_do(started, opened):
    server = started(options=("--cluster-enabled", "yes"))
    with server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        store = opened(server.url)
        while client.cluster("info")["cluster_state"] != "ok":
            pass
    assert [ask(store).wait_s, store.history("api", 1.0), store.names()] == [0.0, [], ["api"]]


def test_looking_makes_nothing(redis_server, opened):
    opened(redis_server.url).exchange(Report(resource="api"))
    with redis_server.client() as client:
        assert list(client.scan_iter()) == []


def test_what_nobody_has_used_for_long_is_forgotten(redis_server, opened):
    store = opened(redis_server.url)
    ask(store, spent=[(0.0, "requests", 1.0)])
    ask(store, spent=[(0.0, "tokens", 1.0)])
    month = Bounds(rates=(Rate(9, per_s=60 * 86_400),))
    store.exchange(Report(resource="long", owner="a", bounds=month, spent=[(0.0, "requests", 1.0)]))
    with redis_server.client() as client:
        left_s = {key: client.ttl(key) for key in client.scan_iter() if key != "ipybatch:names"}
    assert all(KEPT_S - 60 < seconds <= KEPT_S + 3600 for key, seconds in left_s.items() if "{api}" in key)
    assert all(seconds >= 60 * 86_400 for key, seconds in left_s.items() if "{long}" in key)
    assert len(left_s) == 7


_UNITS = st.sampled_from(["requests", "tokens"])


@settings(suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture])
@given(
    answers=st.lists(st.tuples(st.floats(0.0, 40.0), _UNITS, st.sampled_from([1.0, 2.5, 1000.0])), max_size=60),
    thin_after=st.integers(1, 7),
)
def test_thinning_never_forgets_too_early(redis_server, answers, thin_after):
    """What is dropped counts a little longer, never shorter, in every window that somebody has."""
    rates = (Rate(5, per_s=1), Rate(9, per_s=60), Rate(9, per_s=500), Rate(99, per_s=60, unit="tokens"))
    now_s, told = START_UNIX_S, []
    redis_server.flush()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(redis_limits._constants, "THIN_AFTER", thin_after)
        redis_limits._script.cache_clear()
        with contextlib.closing(RedisLimits(redis_server.url, now_s=lambda: now_s, settle_s=0.0)) as store:
            for pause_s, unit, cost in answers:
                now_s += pause_s
                told.append((now_s, unit, cost))
                report = Report(resource="api", owner="a", bounds=Bounds(rates=rates), spent=[(0.0, unit, cost)])
                answer = store.exchange(report)
                for rate in rates:
                    for later_s, is_least in ((0.0, True), (3600.0 / 1000 + 0.001, False)):
                        since_s = now_s - held_s(rate) - later_s
                        exact = sum(cost for at_s, of, cost in told if of == rate.unit and at_s > since_s)
                        used = answer.used[rate]
                        assert used >= exact - 1e-6 if is_least else used <= exact + 1e-6
    redis_limits._script.cache_clear()


def test_what_no_window_tells_apart_is_not_kept(redis_server, opened):
    """20,000 answers within an hour, and in 50 days: and a month's window still counts all of its own."""
    now_s, month = START_UNIX_S, Rate(1e6, per_s=30 * 86_400)
    store = opened(redis_server.url, now_s=lambda: now_s)

    def spend(step_s, answers):
        nonlocal now_s
        for _ in range(answers // 50):
            spent = [(step_s * (49 - number), "requests", 1.0) for number in range(50)]
            now_s += 50 * step_s
            store.exchange(Report(resource="api", owner="a", bounds=BOUNDS, spent=spent))

    def kept():
        with redis_server.client() as client:
            return client.zcard("ipybatch:{api}::answered:requests")

    spend(0.18, 20_000)
    assert kept() < 3100
    spend(0.02 * 86_400, 3000)
    assert kept() < 2500
    (used,) = store.exchange(Report(resource="api", owner="a", bounds=Bounds(rates=(month,)))).used.values()
    assert 1500 <= used <= 1503
    assert sum(cost for _, _, cost in store.history("api", math.inf)) < 2200


# what is said when it cannot


def test_nobody_there(redis_server, opened):
    """Told with the time, and the same time until it is back."""
    store = opened(redis_server.url)
    ask(store)
    redis_server.kill()
    told = why(store)
    assert told.startswith(f"redis://127.0.0.1:{redis_server.port}/0 has not answered since ")
    assert told.endswith(": Connection refused")
    redis_server.start()
    assert ask(store).is_anew


def test_since_when_is_said(redis_server, opened, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda _: "14:03")
    store = opened("redis://127.0.0.1:9")
    assert why(store) == "redis://127.0.0.1:9 has not answered since 14:03: Connection refused"
    monkeypatch.setattr("time.strftime", lambda _: "14:04")
    assert "since 14:03" in why(store)


def test_a_server_that_stands_still_is_not_waited_for(redis_server, opened, monkeypatch):
    monkeypatch.setattr(redis_limits, "ANSWER_S", 0.05)
    store = opened(redis_server.url)
    ask(store)
    redis_server.stop()
    try:
        assert "it took too long" in why(store)
        assert "it took too long" in why(store)
    finally:
        redis_server.go_on()
    assert ask(store).wait_s == 0.0


@pytest.mark.parametrize("given", ["wrong-password", ""])
def test_a_wrong_password_is_told_and_not_shown(started, opened, given):
    server = started(password=PASSWORD)
    told = why(opened(server.url.replace(f":{PASSWORD}@", f":{given}@" if given else "")))
    assert ("wrong user or password" if given else "it asks for a password") in told
    assert not given or given not in told


def test_a_user_that_may_not_is_told_what_it_lacks(redis_server, opened):
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "weak", "on", ">feeble-9", "~*", "+@all", "-evalsha", "-eval")
        rules = "~ipybatch:* +@read +@write +@connection +eval +evalsha +time +multi +exec"
        client.execute_command("ACL", "SETUSER", "fit", "on", ">feeble-9", *rules.split())
        client.execute_command("ACL", "SETUSER", "blind", "on", ">feeble-9", "~other:*", "+@all")
    for user in ("weak", "blind"):
        told = why(opened(redis_server.url.replace("//", f"//{user}:feeble-9@")))
        assert told.endswith(rules)
        assert "feeble-9" not in told
        assert f"redis://{user}:***@127.0.0.1" in told
    fit = opened(redis_server.url.replace("//", "//fit:feeble-9@"))
    assert [ask(fit).wait_s, fit.history("api", 9.0), fit.names()] == [0.0, [], ["api"]]


def test_a_replica_is_no_place_for_limits(redis_server, started, opened):
    replica = started(options=("--replicaof", f"127.0.0.1 {redis_server.port}"))
    assert "it is a replica" in why(opened(replica.url))


def test_a_full_memory_is_told_and_changes_nothing(redis_server, opened):
    store = opened(redis_server.url)
    ask(store)
    with redis_server.client() as client:
        client.config_set("maxmemory", 1)
        assert "its memory is full" in why(store)
        client.config_set("maxmemory", 0)
    assert ask(store).used == {RATE: 1.0}


def test_what_a_later_version_keeps_is_left_alone(redis_server, opened, monkeypatch):
    monkeypatch.setitem(redis_limits._constants, "VERSION", 2)
    redis_limits._script.cache_clear()
    ask(opened(redis_server.url))
    monkeypatch.undo()
    redis_limits._script.cache_clear()
    assert why(opened(redis_server.url)).endswith(
        ": its limits are kept by a later ipybatch: upgrade, or name another database in store="
    )


def test_a_node_of_a_larger_cluster_is_told(started, opened):
    server = started(options=("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"))
    with server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 10)
    told = why(opened(server.url))
    assert "refuses to keep limits since" in told
    assert "cluster" in told


@contextlib.contextmanager
def answering(line, about="-NOPERM this user has no permissions to run the 'info' command"):
    """A server that tells this of itself, and answers so to whatever is asked."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            while words := self.rfile.readline()[1:]:
                asked = [self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2] for _ in range(int(words))]
                answer = {b"CLIENT": "+OK", b"INFO": about}.get(asked[0], line)
                self.wfile.write(f"{answer}\r\n".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        finally:
            server.shutdown()
            thread.join()


def test_an_old_server_is_refused(opened):
    about = "redis_version:3.2.1\r\nrun_id:abc\r\n"
    with answering("+OK", f"${len(about)}\r\n{about}") as url:
        assert why(opened(url)).endswith("is Redis 3.2.1: limits need 5.0 or later")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("-LOADING Redis is loading the dataset in memory", "it is still loading what it had saved"),
        ("-MISCONF Redis is configured to save RDB snapshots", "it cannot save to its disk"),
        ("-NOREPLICAS Not enough good replicas to write.", "it has too few replicas"),
        ("-MOVED 866 10.0.0.7:6379", "it is one node of a cluster, and another keeps the resource"),
        ("-CLUSTERDOWN Hash slot not served", "its cluster is down"),
        ("-MASTERDOWN Link with MASTER is down", "it is a replica that has lost its primary"),
        ("-BUSY Redis is busy running a script.", "another program's script keeps it busy"),
        ("-ERR unknown command 'EVALSHA'", "it runs no scripts, or none as Redis does"),
        ("-ERR something {odd} happened", "something {odd} happened"),
    ],
)
def test_what_a_server_says_is_told_with_what_to_do(opened, line, told):
    with answering(line) as url:
        assert told in why(opened(url))


# TLS


def test_tls_with_the_authority_that_is_named(started, opened):
    server = started(tls=True, password=PASSWORD)
    assert f"?ssl_ca_certs={CERTIFICATE}" in server.url
    assert ask(opened(server.url)).wait_s == 0.0
    told = why(opened(server.url.partition("?")[0]))
    assert "its certificate is refused" in told
    assert "ssl_ca_certs=" in told
    assert why(opened(server.url.partition("?")[0].replace("rediss://", "redis://")))


def test_a_socket_of_the_file_system(redis_server, opened):
    assert ask(opened(redis_server.unix_url)).wait_s == 0.0


# addresses, and who may see a password


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://host/0", "http:// is none of redis, rediss, unix"),
        ("redis://", "the host is missing"),
        ("redis://host:port/0", "Port could not be cast to integer value"),
        ("redis://host/first", "a database has a number, got 'first'"),
        ("redis://host/0?db=x", "db= must be a number"),
        ("redis://host/0?retries=3", "retries= is none of its options: db, username, password"),
        ("rediss://host/0?ssl_ca_certs=/nowhere.pem", "ssl_ca_certs=/nowhere.pem does not exist"),
        ("unix://", "the path of the socket is missing"),
        ("redis://:pass#word@host/0", "a # in a password is written %23"),
        ("REDIS://host/0", "it begins with none of redis://, rediss://, unix://"),
        (" redis://host/0", "it begins with none of redis://"),
        ("redis:host:6379", "it begins with none of redis://"),
        ("redis::pass#word@host", "a # in a password is written %23"),
        ("unix:/run/redis.sock", "it begins with none of redis://"),
        ("localhost:6379", "it begins with none of redis://"),
        ("10.0.0.7:6379/0", "it begins with none of redis://"),
        ("[::1]:6379", "it begins with none of redis://"),
        (":pass-word-41@host:6379", "it begins with none of redis://"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_at_once(url, told):
    with pytest.raises(InputError, match="store must be redis://") as raised:
        Limits(store=url)
    assert told in str(raised.value)
    assert "pass#word" not in str(raised.value)
    assert "pass-word" not in str(raised.value)


@pytest.mark.parametrize("path", ["limits.sqlite3", "a/b:7", "C:\\limits.db", "D:/5", "redis/limits.db", "my limits"])
def test_the_path_of_a_file_is_none(path):
    assert Limits(store=path).store == path


def test_without_the_package_it_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtra, match=r'pip install "ipybatch\[redis\]"'):
        Limits(store="redis://host/0")


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        (f"redis://:{PASSWORD}@127.0.0.1:9/0", PASSWORD),
        ("redis://me:caf%C3%A9-41-%40x@127.0.0.1:9/0", "café-41-@x"),
        ("redis://127.0.0.1:9/0?password=in-the-query-41", "in-the-query-41"),
    ],
)
def test_nobody_sees_the_password(live, journal, url, secret, opened):
    """In no error, event, journal or repr, nor as the address spells it."""
    limits = Limits(rates=[RATE], store=url)
    spelt = url.partition("://")[2].partition("@")[0].partition(":")[2] or secret
    session = live(lambda item: item, [1], limits=limits, resource="api", backend="threads")
    summary = session.run()
    texts = [repr(limits), repr(opened(url)), why(opened(url)), str(summary), session.reason, session.log().to_string()]
    texts += [repr(session), str(vars(session))]
    with open_journal(journal).reader() as database:
        texts += database.iterdump()
    assert session.state == "failed"
    assert "has not answered since" in session.reason
    for text in texts:
        assert secret not in text
        assert spelt not in text


# sessions


async def work(item):
    return item


def test_sessions_of_two_machines_share_what_has_a_name_and_nothing_else(redis_server, plan, journal, monkeypatch):
    """What is private is not shared by accident: its name in Redis has the machine and the journal."""
    limits = Limits(concurrency=2, rates=[Rate(10, per_s=60)], store=redis_server.url)
    seconds = {}
    for resource in ("api", None):
        for machine in ("gpu-1", "gpu-2"):
            clock = VirtualClock()
            clock.advance(seconds.get(resource, 0.0))
            monkeypatch.setattr(resources, "me", lambda machine=machine: f"{machine}/1/x")
            summary = clock.run(plan(work, range(10), limits=limits, resource=resource, fresh=True, clock=clock))
            assert summary.counts.completed == 10
            seconds[resource] = clock.now_s()
    assert seconds["api"] > 60.0 > seconds[None]
    store = next(store for (home, _), store in resources._stores.items() if home == redis_server.url)
    private = [f"session wishlist\x1e{machine} {journal}" for machine in ("gpu-1", "gpu-2")]
    assert sorted(store.names()) == ["api", *private]


def test_what_holds_all_limit_groups_up_is_told_once(redis_server, plan, clock):
    told, limits = [], Limits(each=Limits(rates=[RATE]), store=redis_server.url)
    session = plan(work, range(8), per=str, limits=limits, resource="api")
    session.on(lambda event: told.append(event) if isinstance(event, events.CooledDown) else None)
    assert clock.run(session).state == "completed"
    assert [(event.reason, event.limit_group) for event in told] == [(redis_limits.NEW, "")]


def test_one_store_serves_all_sessions_of_a_process(redis_server, live):
    """It lets its connection go when the last one has ended."""
    limits = Limits(store=redis_server.url)
    sessions = [live(work, [1, 2], name=name, limits=limits) for name in ("a", "b")]
    for session in sessions:
        assert session.run().state == "completed"
    stores = [store for (home, _), store in resources._stores.items() if home == redis_server.url]
    assert len(stores) == 1
    assert stores[0]._client is None


def test_resources_and_lift_ask_the_redis_that_is_used(redis_server, live, journal, opened):
    """With its address from anywhere; without, what this process uses."""
    session = live(work, [1], limits=Limits(rates=[RATE], store=redis_server.url), resource="api")
    session.run()
    other = opened(redis_server.url)
    other.exchange(
        Report(resource="api", owner="gpu-3/7/x/1", label="nightly", bounds=BOUNDS, cool_s=99.0, why="asked")
    )
    for frame in (ipybatch.resources(store=redis_server.url), ipybatch.resources(journal=journal)):
        (row,) = frame.to_dict("records")
        assert (row["resource"], row["owners"], row["why"]) == ("api", "nightly on gpu-3", "asked")
    assert ipybatch.lift("api", store=redis_server.url)
    assert not ipybatch.lift("api", journal=journal)
    with pytest.raises(InputError, match="resource must be one that was used"):
        ipybatch.lift("other", store=redis_server.url)
    other.exchange(Report(resource="api", cool_s=99.0))
    assert session.lift() == "done"
    assert ask(other).cool_s == 0.0
    with pytest.raises(InputError, match="store must be redis://"):
        ipybatch.resources(store="http://host")
