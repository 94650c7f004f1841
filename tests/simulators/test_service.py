import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.simulators.faults import KINDS, Faults
from ipybatch.simulators.service import Request, Service, Traffic, as_json


class Echo(Service):
    """Answers any id with itself."""

    def items(self, request):
        return [text for text in request.query.get("ids", "").split(",") if text]

    def answer(self, request):
        return as_json({"asked": self.items(request)})


def ask(service, ids, now_s=0.0):
    return service.handle(Request(f"/echo?ids={ids}"), now_s)


def script(service, what, now_s=0.0):
    reply = service.handle(Request(f"/_sim/{what}"), now_s)
    return reply.status, json.loads(reply.body)


def test_a_request_is_read_with_or_without_a_host():
    for url in ("/echo/?ids=1&cc=DE", "http://127.0.0.1:80/echo?ids=1&cc=DE"):
        assert Request(url).path == "/echo"
        assert Request(url).query == {"ids": "1", "cc": "DE"}


def test_statistics_tell_what_the_service_saw():
    service = Echo(traffic=Traffic([(2, 10.0)], ban_after=1, ban_s=5.0))
    for now_s, ids in enumerate(["1", "2", "1", "3"]):
        ask(service, ids, float(now_s))
    assert service.stats() == {
        "requests": 4,
        "statuses": {"200": 2, "403": 1, "429": 1},
        "ids": {"1": 2, "2": 1, "3": 1},
        "duplicates": ["1"],
        "worst": [{"limit": 2, "per_s": 10.0, "worst": 4}],
        "arrivals": [0.0, 1.0, 2.0, 3.0],
        "bans": [{"from_s": 2.0, "to_s": 7.0, "requests": 2}],
        "outages": [],
        "faults": {},
    }


def test_statistics_over_http_are_those_of_python_and_count_nothing():
    service = Echo(faults=Faults(outages=[(5, math.inf)]), traffic=Traffic([(1, 1.0)]))
    ask(service, "1")
    assert script(service, "stats") == (200, service.stats())
    assert service.stats()["requests"] == 1
    assert service.stats()["outages"] == [{"from_s": 5, "to_s": None, "requests": 0}]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_outage_answers_as_it_says(kind):
    """While it lasts nobody is served; before and after it everybody is."""
    service = Echo(faults=Faults(outages=[(10, 20)], outage_kind=kind))
    replies = [ask(service, "1", now_s) for now_s in (9, 10, 19, 20)]
    sound = [(reply.status, reply.drop) == (200, None) and reply.body == b'{"asked":["1"]}' for reply in replies]
    assert sound == [True, False, False, True]
    assert service.stats()["faults"] == {kind: 2}
    assert service.stats()["outages"][0]["requests"] == 2


def test_a_dead_service_bans_nobody():
    """An outage answers before the limits do."""
    service = Echo(faults=Faults(outages=[(0, 5)]), traffic=Traffic([(1, 10.0)], ban_after=1))
    assert {ask(service, "1", 1.0).status for _ in range(5)} == {500}


def test_injected_429s_lead_to_no_ban():
    service = Echo(faults=Faults(rate_429=1.0), traffic=Traffic([(100, 1.0)], ban_after=1))
    assert {ask(service, "1").status for _ in range(5)} == {429}
    assert service.stats()["bans"] == []


def test_dropped_lines_are_closed_and_reset_in_turn():
    service = Echo(faults=Faults(rate_drop=1.0))
    assert [ask(service, "1").drop for _ in range(3)] == ["close", "reset", "close"]
    assert service.stats()["statuses"] == {"dropped": 3}


def test_a_truncated_answer_is_no_json():
    reply = ask(Echo(faults=Faults(rate_truncated=1.0)), "1")
    assert reply.status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.body)


def test_faults_follow_the_item_not_the_order_of_arrival():
    """Asked in any order, each id meets the same."""
    faults = Faults(rate_500=0.5)
    ids = [str(number) for number in range(50)]
    forward, backward = Echo(faults=faults), Echo(faults=faults)
    there = {item: ask(forward, item).status for item in ids}
    back = {item: ask(backward, item).status for item in reversed(ids)}
    assert there == back
    assert set(there.values()) == {200, 500}


def test_a_line_dropped_after_the_work_gives_no_answer():
    """What the service did is done; only the client does not know."""
    done = []

    class Counting(Echo):
        def answer(self, request):
            done.append(self.items(request))
            return super().answer(request)

    service = Counting(faults=Faults(rate_drop_after=1.0))
    assert [ask(service, "1").drop for _ in range(2)] == ["close", "reset"]
    assert done == [["1"], ["1"]]


def test_a_hanging_request_outlasts_every_patience():
    assert ask(Echo(faults=Faults(rate_hang=1.0)), "1").delay_s == 3600.0


@pytest.mark.parametrize("kind", ["503", "504"])
def test_a_gateway_in_trouble_says_its_own_status(kind):
    assert ask(Echo(faults=Faults(**{f"rate_{kind}": 1.0})), "1").status == int(kind)


def test_a_slow_answer_is_told_its_delay():
    assert ask(Echo(faults=Faults(rate_slow=1.0, slow_s=3.0)), "1").delay_s == 3.0


def test_latency_is_drawn_anew_each_time_an_item_is_sent():
    service = Echo(faults=Faults(latency_s=(0.0, 1.0)))
    request = Request("/echo?ids=1")
    assert service.way_s(request) != service.way_s(request)
    assert service.way_s(Request("/_sim/stats")) == (0.0, 0.0)


def test_an_outage_can_be_scripted_over_http():
    service = Echo()
    status, stats = script(service, "outage?seconds=10&kind=html", now_s=100.0)
    assert (status, stats["outages"]) == (200, [{"from_s": 100.0, "to_s": 110.0, "requests": 0}])
    assert ask(service, "1", 109.9).headers["Content-Type"].startswith("text/html")
    assert ask(service, "1", 110.0).body == b'{"asked":["1"]}'


def test_an_outage_of_no_seconds_ends_the_one_that_lasts():
    service = Echo(faults=Faults(outages=[(0, 100), (200, 300)]))
    service.outage(0, now_s=50.0)
    assert [(span["from_s"], span["to_s"]) for span in service.stats()["outages"]] == [(0, 50.0), (200, 300)]


@pytest.mark.parametrize(
    ("what", "status", "error"),
    [
        ("outage", 400, "seconds must be >= 0, got nan"),
        ("outage?seconds=-1", 400, "seconds must be >= 0, got -1.0"),
        ("outage?seconds=1&kind=smoke", 400, f"outage_kind must be one of {', '.join(KINDS)}, got 'smoke'"),
        ("coffee", 404, "/_sim/ has stats and outage, got 'coffee'"),
    ],
)
def test_a_bad_script_is_told_why(what, status, error):
    assert script(Echo(), what) == (status, {"error": error})


TIMES = st.lists(st.integers(0, 400).map(lambda tick: tick / 8), max_size=60)  # eighths are exact in binary


def arrive(traffic, *times_s):
    verdicts = []
    for now_s in times_s:
        traffic.arrive(now_s)
        verdicts.append(traffic.judge(now_s))
    return verdicts


@given(TIMES, st.sampled_from([0.5, 2.0, 10.0]))
def test_worst_is_the_fullest_of_all_windows(times_s, per_s):
    """Counting each half-open window that ends at an arrival, the slow way, finds the same."""
    traffic = Traffic()
    for at_s in times_s:
        traffic.arrive(at_s)
    slow = max((sum(end_s - per_s < at_s <= end_s for at_s in times_s) for end_s in times_s), default=0)
    assert traffic.worst(per_s) == slow


@given(TIMES, st.integers(1, 5))
def test_a_429_and_a_window_above_its_limit_are_the_same_statement(times_s, limit):
    """Whoever sees no 429 has kept the limit, and the other way round."""
    traffic = Traffic([(limit, 2.0)])
    refused = 429 in arrive(traffic, *sorted(times_s))
    assert refused == (traffic.worst(2.0) > limit)


def test_the_limit_itself_is_allowed_and_one_more_is_not():
    assert arrive(Traffic([(3, 10.0)]), 0, 1, 2, 3) == [200, 200, 200, 429]


def test_requests_exactly_per_s_apart_are_never_in_one_window():
    """A client that waits exactly per_s keeps the limit, rounding of floats included."""
    times_s = [0.1 + number * 0.3 for number in range(200)]
    assert set(arrive(Traffic([(1, 0.3)]), *times_s)) == {200}


def test_a_hair_less_than_per_s_is_too_fast():
    assert arrive(Traffic([(1, 0.3)]), 0.0, 0.2999) == [200, 429]


def test_a_refused_request_counts_too():
    """Hammering keeps the window full: only waiting empties it."""
    assert arrive(Traffic([(1, 10.0)]), 0, 6, 12, 22) == [200, 429, 429, 200]


def test_every_window_must_be_kept():
    assert arrive(Traffic([(2, 1.0), (3, 100.0)]), 0, 0.5, 5, 10, 200) == [200, 200, 200, 429, 200]


def test_going_on_too_fast_is_banned_for_a_while():
    """The third 429 within a window starts the ban; after it the client is served again."""
    traffic = Traffic([(1, 10.0)], ban_after=3, ban_s=60.0)
    assert arrive(traffic, 0, 1, 2, 3, 4, 62.9, 80) == [200, 429, 429, 429, 403, 403, 200]
    assert traffic.bans == [(3, 63)]


def test_refusals_far_apart_are_not_a_habit():
    """429s of different windows do not add up to a ban."""
    traffic = Traffic([(1, 10.0)], ban_after=2)
    assert arrive(traffic, 0, 1, 30, 31, 60, 61) == [200, 429] * 3
    assert traffic.bans == []


def test_without_windows_nobody_is_too_fast():
    assert set(arrive(Traffic(), *[0.0] * 1000)) == {200}


def test_arrivals_told_out_of_order_are_counted_where_they_belong():
    traffic = Traffic()
    arrive(traffic, 5, 1, 5.5, 1.5, 1.7)
    assert traffic.worst(1.0) == 3
    assert traffic.between(1, 1.7) == 2


@pytest.mark.parametrize(
    ("windows", "options", "message"),
    [
        ([(0, 1.0)], {}, "limit must be >= 1, got 0"),
        ([(1, 0.0)], {}, "per_s must be > 0 and finite, got 0.0"),
        ([], {"ban_after": 0}, "ban_after must be >= 1 or None, got 0"),
        ([], {"ban_s": 0}, "ban_s must be > 0, got 0"),
    ],
)
def test_bad_rules_name_field_value_and_range(windows, options, message):
    with pytest.raises(ValueError, match=message):
        Traffic(windows, **options)
