import asyncio
import heapq
import itertools

import pytest


class FastClock:
    """Time that jumps to the next sleeper as soon as nobody has anything else to do."""

    def __init__(self):
        self.time_s = 0.0
        self._sleepers = []
        self._order = itertools.count()

    def now(self):
        return self.time_s

    async def sleep(self, seconds):
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.time_s + seconds, next(self._order), woken))
        await woken

    def run(self, work):
        return asyncio.run(self._drive(work))

    async def _drive(self, work):
        task = asyncio.ensure_future(work)
        while not task.done():
            for _ in range(20):  # let every task that can move reach its next sleep
                await asyncio.sleep(0)
            if self._sleepers and not task.done():
                self.time_s, _, woken = heapq.heappop(self._sleepers)
                woken.cancelled() or woken.set_result(None)
        return task.result()


@pytest.fixture
def clock():
    return FastClock()
