"""How the backend is chosen."""

import pytest

from ipybatch import InputError, Limits
from ipybatch.backends import Loop, Threads, choose


@pytest.mark.parametrize(
    ("named", "is_coroutine", "kind"),
    [(None, True, Loop), (None, False, Threads), ("loop", True, Loop), ("threads", False, Threads)],
)
def test_the_backend_is_the_one_named_or_the_one_the_work_needs(named, is_coroutine, kind):
    assert isinstance(choose(named, is_coroutine=is_coroutine), kind)


@pytest.mark.parametrize(("named", "is_coroutine", "other"), [("loop", False, "threads"), ("threads", True, "loop")])
def test_work_on_the_wrong_backend_is_told_the_right_one(named, is_coroutine, other):
    with pytest.raises(InputError, match=f'backend must be "{other}"'):
        choose(named, is_coroutine=is_coroutine)


def test_a_backend_of_the_users_own_runs_the_session(plan, clock):
    """Any object with open, run and close."""
    steps = []

    class Counting(Loop):
        async def open(self, slots):
            steps.append(("open", slots))

        async def close(self):
            steps.append("close")

    async def work(item):
        return item

    session = plan(work, [1, 2], backend=Counting(), limits=Limits(concurrency=3))
    assert clock.run(session).counts.completed == 2
    assert steps == [("open", 3), "close"]
