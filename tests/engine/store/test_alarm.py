"""Alarm: one timer for all that is to be looked after."""

import math

import pytest

from ipybatch.engine.store.alarm import Alarm
from ipybatch.testing import VirtualClock


@pytest.mark.parametrize(("set_to", "rings"), [([5.0, 2.0], [2.0]), ([2.0, 5.0], [2.0]), ([math.inf], [])])
def test_it_rings_once_at_the_soonest(set_to, rings):
    clock, rung = VirtualClock(), []
    alarm = Alarm(lambda: rung.append(clock.now_s()))
    alarm.set(1.0)  # on no loop yet

    async def act():
        import asyncio

        alarm.move(asyncio.get_running_loop())
        for wait_s in set_to:
            alarm.set(wait_s)
        await asyncio.sleep(10.0)
        alarm.set(1.0)
        alarm.cancel()
        await asyncio.sleep(10.0)

    clock.run_coroutine(act())
    assert rung == rings
