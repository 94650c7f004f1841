"""What a cancelled session tells the service after its end."""

import asyncio
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from ipybatch.engine.run.engine_thread import engine_thread
from ipybatch.gemini.batch import farewell
from ipybatch.gemini.batch.farewell import Farewell
from tests.gemini.nights import waited

PLACE = Path("journal"), "night"


class Line:
    """A connection, and a service that answers when it is let."""

    def __init__(self):
        self.answered, self.is_open, self.is_told = asyncio.Event(), True, False

    async def tell(self):
        await self.answered.wait()
        self.is_told = True

    async def hang_up(self):
        self.is_open = False

    async def end(self, place=PLACE):
        """Cancel, and close."""
        last = Farewell(place)
        last.announce()
        await last.begin(self.tell())
        connection = AsyncExitStack()
        connection.push_async_callback(self.hang_up)
        await last.close(connection)


@pytest.fixture
def line(monkeypatch):
    """A line whose session has ended, on the engine's thread, before the service answered."""
    monkeypatch.setattr(farewell, "NOTICE_S", 0.0)
    engine, line = engine_thread(), Line()
    engine.spawn(line.end(), _Told()).result(20)
    yield line
    engine.loop.call_soon_threadsafe(line.answered.set)
    waited(lambda: not farewell._under_way)


class _Told:
    """What is supervised, and nothing happens to it."""


def test_a_session_that_has_ended_keeps_the_line_until_the_service_answers(line):
    assert (line.is_open, line.is_told) == (True, False)
    engine_thread().loop.call_soon_threadsafe(line.answered.set)
    waited(lambda: not line.is_open)
    assert line.is_told
    waited(lambda: not farewell._under_way)


def test_whoever_starts_it_again_waits_for_that(line):
    engine = engine_thread()
    engine.spawn(Farewell((PLACE[0], "another")).wait_for_last()).result(20)
    waits = engine.spawn(Farewell(PLACE).wait_for_last())
    engine.wait(asyncio.sleep(0.01))
    assert not waits.done()
    engine.loop.call_soon_threadsafe(line.answered.set)
    waits.result(20)
    assert not line.is_open


def test_a_program_that_ends_waits_for_that(line):
    ends = threading.Thread(target=farewell._finish)
    ends.start()
    assert ends.is_alive()
    engine_thread().loop.call_soon_threadsafe(line.answered.set)
    ends.join(20)
    assert not ends.is_alive()
    assert line.is_told


def test_a_loop_of_the_users_waits_for_the_answers_itself(monkeypatch):
    """It may end with the session."""
    monkeypatch.setattr(farewell, "NOTICE_S", 0.0)

    async def whole():
        line = Line()
        asyncio.get_running_loop().call_later(0.02, line.answered.set)
        await line.end()
        return line.is_told, line.is_open

    assert asyncio.run(whole()) == (True, False)
