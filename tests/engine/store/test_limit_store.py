"""Limit stores: what each must do, and that what does not is found."""

import functools
import math

import msgspec
import pytest

from ipybatch.engine.store.redis_limits import RedisLimits
from ipybatch.engine.store.sqlite_limits import SqliteLimits
from ipybatch.testing import Bounds, MemoryLimits, check_limit_store


def test_the_store_in_memory_does_what_a_store_must_do():
    check_limit_store(functools.cache(MemoryLimits))


class Remote(MemoryLimits):
    """As if it were a network away."""

    is_remote = True


def test_a_store_that_is_a_network_away_must_do_more():
    check_limit_store(functools.cache(Remote))


def test_the_store_in_a_file_does_what_a_store_must_do(tmp_path):
    made = []

    def make(now_s):
        made.append(SqliteLimits(tmp_path / "limits.sqlite3", now_s, now_s))
        return made[-1]

    check_limit_store(make)
    for store in made:
        store.close()


def test_the_store_in_redis_does_what_a_store_must_do(redis_server):
    made = []

    def make(now_s):
        made.append(RedisLimits(redis_server.url, now_s=now_s, settle_s=0.0))
        return made[-1]

    check_limit_store(make)
    for store in made:
        store.close()


class Blind(MemoryLimits):
    """Does not count what is in flight."""

    def _in_flight(self, resource, unit):
        return 0.0


class Forgetful(MemoryLimits):
    """Takes what was in flight at the end of a lease for never sent."""

    def _lapse(self, resource, now_s, *, besides):
        for name, member in list(resource.members.items()):
            if member.until_s <= now_s and name != besides:
                del resource.members[name]


class Patient(MemoryLimits):
    """Waits for ever for who is gone."""

    def _lapse(self, resource, now_s, *, besides):
        pass


class Early(MemoryLimits):
    """Counts a request from its start on."""

    def _spend(self, resource, spent, spender):
        super()._spend(resource, (spent[0] - 1.0, *spent[1:]), spender)


class Unfair(MemoryLimits):
    """Gives to who asks first, or to who has fewest only."""

    def __init__(self, now_s, keeps=lambda claim: False):
        super().__init__(now_s)
        self.keeps = keeps

    def exchange(self, report):
        answer = super().exchange(report)
        resource = self._resources[report.resource]
        resource.claims = {name: claim for name, claim in resource.claims.items() if self.keeps(claim)}
        return answer


class Pedantic(MemoryLimits):
    """Lets further requests wait for places, or waits for who asked once."""

    def __init__(self, now_s, **claimed):
        super().__init__(now_s)
        self.claimed = claimed

    def exchange(self, report):
        answer = super().exchange(report)
        resource = self._resources[report.resource]
        for name, claim in resource.claims.items():
            if claim.of_slot:
                resource.claims[name] = msgspec.structs.replace(claim, **self.claimed)
        return answer


class Generous(MemoryLimits):
    """Grants all that is asked for at once, where one fits."""

    def exchange(self, report):
        answer = super().exchange(report)
        return answer if answer.wait_s else msgspec.structs.replace(answer, more=report.more)


class Altered(MemoryLimits):
    """Changes what is reported, or what is answered."""

    is_remote = True

    def __init__(self, now_s, report=lambda report: report, answer=lambda answer: answer):
        super().__init__(now_s)
        self.report, self.answer = report, answer

    def exchange(self, report):
        return self.answer(super().exchange(self.report(report)))


def without(**fields):
    return lambda message: msgspec.structs.replace(message, **fields)


def loose(**fields):
    """Keep an owner's limits, but for these."""

    def alter(report):
        bounds = report.bounds and msgspec.structs.replace(report.bounds, **fields)
        return msgspec.structs.replace(report, bounds=bounds)

    return alter


def hurried(answer):
    """Grant what would be granted in a moment."""
    return msgspec.structs.replace(answer, wait_s=0.0) if answer.wait_s < 0.1 else answer


def deaf(report):
    """Let nobody leave."""
    return msgspec.structs.replace(report, bounds=report.bounds or (Bounds() if report.owner else None))


def merged(report):
    """Count a limit group's requests with those of all."""
    return msgspec.structs.replace(report, resource=report.resource.removesuffix(": eu"))


@pytest.mark.parametrize(
    ("make", "promise"),
    [
        (Blind, "only a response makes room"),
        (Forgetful, "taken for answered when its lease ended"),
        (Patient, "then its limits hold no more"),
        (Early, "a place comes free per_s and a little more after its response"),
        (functools.partial(Altered, answer=hurried), "a window is held a little longer"),
        (functools.partial(Altered, report=without(spent=())), "per_s and a little more after its response"),
        (functools.partial(Altered, report=without(slot=False)), "the attempts of all owners count"),
        (functools.partial(Altered, report=without(slot=True)), "takes no place"),
        (functools.partial(Altered, report=without(cool_s=None)), "a cool-down holds for all"),
        (functools.partial(Altered, report=without(why="")), "and says why"),
        (functools.partial(Altered, report=deaf), "who leaves takes its limits along"),
        (functools.partial(Altered, report=loose(spacing_s=0.0)), "the longest spacing separates"),
        (functools.partial(Altered, report=loose(concurrency=None)), "the attempts of all owners count"),
        (functools.partial(Altered, report=without(lease_s=1.0)), "each response has a moment of its own"),
        (Unfair, "a place goes to who waits and has fewer"),
        (functools.partial(Unfair, keeps=lambda claim: claim.of_slot), "what costs much is not passed over"),
        (functools.partial(Pedantic, since_s=0.0, asks_s=0.0, of_slot=False), "a place is free where nobody waits"),
        (functools.partial(Pedantic, until_s=math.inf), "who does not ask any more"),
        (Generous, "no more is granted at once than fits"),
        (functools.partial(Altered, report=without(said=0)), "what was not counted yet"),
        (functools.partial(Altered, report=without(number=0)), "not counted again"),
        (functools.partial(Altered, report=merged), "another name is another resource"),
        (functools.partial(Altered, report=without(in_flight={})), "only a response makes room"),
        (functools.partial(Altered, answer=without(is_stranger=False)), "is told that others were counted"),
        (functools.partial(Altered, answer=without(is_stranger=True)), "no stranger's"),
        (functools.partial(Altered, answer=without(owners=())), "who shares a resource is told"),
        (functools.partial(Altered, answer=without(wait_s=math.inf)), "what fits is granted"),
    ],
)
def test_a_store_that_breaks_a_promise_is_found(make, promise):
    with pytest.raises(AssertionError, match=promise):
        check_limit_store(functools.cache(make))
