"""Loop and threads do what the engine relies on."""

import asyncio
import contextvars
import threading

import pytest

from ipybatch.backends import Loop, Threads
from ipybatch.engine.data.spec import StillRunning
from ipybatch.testing import check_backend


@pytest.mark.parametrize(("backend", "plain"), [(Loop, False), (Threads, True)])
def test_every_backend_does_what_the_engine_relies_on(patience, backend, plain):
    asyncio.run(check_backend(backend(), plain=plain))


def test_threads_keep_the_context_of_who_started_them(patience):
    """Context variables (a request id, a locale) are seen in the thread."""
    variable = contextvars.ContextVar("variable", default="unset")

    async def run():
        variable.set("seen")
        return await Threads().run(variable.get, ())

    assert asyncio.run(run()) == "seen"


def test_a_plain_function_may_return_something_to_await(patience):
    """A functools.partial or a lambda around a coroutine function is no coroutine function, but works."""

    async def coroutine(item):
        return item * 2

    async def run():
        return await Threads().run(coroutine, (4,))

    assert asyncio.run(run()) == 8


def test_threads_are_used_again(patience):
    async def run():
        backend = Threads()
        names = [await backend.run(threading.get_ident, ()) for _ in range(5)]
        await backend.close()
        return names

    assert len(set(asyncio.run(run()))) == 1


def test_a_thread_that_goes_on_is_replaced_and_ends_by_itself(patience):
    async def run():
        backend, release, begun = Threads(), threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def work():
            loop.call_soon_threadsafe(begun.set)
            release.wait(20)

        attempt = asyncio.ensure_future(backend.run(work, ()))
        await begun.wait()
        attempt.cancel()
        with pytest.raises(StillRunning) as caught:
            await attempt
        assert await backend.run(lambda: "neighbour", ()) == "neighbour"
        release.set()
        await asyncio.wait([caught.value.ended])
        await backend.close()

    asyncio.run(run())


def test_threads_do_not_keep_the_process_alive(patience):
    """A function that never returns must not hold the interpreter's exit."""

    async def run():
        backend = Threads()
        await backend.run(threading.current_thread, ())
        thread = await backend.run(threading.current_thread, ())
        await backend.close()
        return thread

    assert asyncio.run(run()).daemon
