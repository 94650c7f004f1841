import asyncio

import httpx2
import pytest

from ipybatch.simulators import Faults, InProcess, SimTransport, SteamSimulator

WAY = Faults(seed=1, latency_s=1.0)


def client_of(store, clock, **options):
    transport = SimTransport(store, sleep=clock.sleep, now=clock.now)
    return httpx2.AsyncClient(transport=transport, base_url="http://steam.invalid", **options)


async def get(client, app_id):
    return await client.get("/api/appdetails", params={"appids": app_id})


def test_an_answer_comes_back_as_httpx_gives_it(clock):
    async def work():
        async with client_of(SteamSimulator(), clock) as client:
            return await get(client, 440)

    response = clock.run(work())
    assert response.status_code == 200
    assert response.json()["440"]["data"]["steam_appid"] == 440


def test_latency_passes_on_the_clock_that_was_given(clock):
    async def work():
        async with client_of(SteamSimulator(faults=WAY), clock) as client:
            await get(client, 440)

    clock.run(work())
    assert clock.now() == pytest.approx(1.0)


def test_a_request_counts_when_it_arrives_not_when_it_is_sent(clock):
    """Requests sent at once arrive spread over the latency, in no order."""
    store = SteamSimulator(faults=WAY)

    async def work():
        async with client_of(store, clock) as client:
            await asyncio.gather(*(get(client, app_id) for app_id in range(10, 210, 10)))

    clock.run(work())
    arrivals = store.stats()["arrivals"]
    assert arrivals == pytest.approx(sorted(WAY.way_s(str(app_id), 1)[0] for app_id in range(10, 210, 10)))
    assert arrivals[-1] - arrivals[0] > 0.5


def test_stamping_a_window_at_the_start_is_caught(clock):
    """A client that sends 10 in every second exactly still overfills a second of the server's."""
    store = SteamSimulator(faults=Faults(latency_s=0.5), limit=10, per_s=1.0)

    async def work():
        async with client_of(store, clock) as client:
            for start in range(10, 1010, 100):
                await asyncio.gather(clock.sleep(1.0), *(get(client, start + n) for n in range(10)))

    clock.run(work())
    assert store.worst(1.0) > 10
    assert store.stats()["statuses"]["429"] > 0


def test_a_request_abandoned_on_its_way_arrives_all_the_same(clock):
    """A cancelled attempt has used up a place in the server's window."""
    faults = Faults(seed=1, latency_s=10.0)
    store = SteamSimulator(faults=faults)

    async def work():
        async with client_of(store, clock, timeout=None) as client:
            attempt = asyncio.ensure_future(get(client, 440))
            await asyncio.sleep(0)
            await clock.sleep(0.001)
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)

    clock.run(work())
    assert store.stats()["arrivals"] == pytest.approx([faults.way_s("440", 1)[0]])


def test_dropped_lines_raise_what_real_ones_do(clock):
    async def work():
        errors = []
        async with client_of(SteamSimulator(faults=Faults(rate_drop=1.0)), clock) as client:
            for _ in range(2):
                with pytest.raises(httpx2.TransportError) as caught:
                    await get(client, 440)
                errors.append(caught.type)
        return errors

    assert clock.run(work()) == [httpx2.RemoteProtocolError, httpx2.ReadError]


def test_an_answer_slower_than_the_read_timeout_times_out_then(clock):
    store = SteamSimulator(faults=Faults(latency_s=0.2, rate_slow=1.0, slow_s=60.0))

    async def work():
        async with client_of(store, clock, timeout=5.0) as client:
            with pytest.raises(httpx2.ReadTimeout, match=r"no answer within the read timeout of 5.0 s"):
                await get(client, 440)

    clock.run(work())
    assert clock.now() == pytest.approx(5.0)
    assert store.stats()["requests"] == 1


def test_by_default_the_first_request_is_the_start_of_the_loops_time():
    """A real loop's clock counts from the machine's start; the simulator's counts from its own."""
    store = SteamSimulator()

    async def work():
        async with httpx2.AsyncClient(transport=SimTransport(store), base_url="http://steam.invalid") as client:
            return await get(client, 440)

    assert asyncio.run(work()).status_code == 200
    assert store.stats()["arrivals"][0] < 1.0


def test_a_service_in_process_is_used_as_one_on_a_port():
    store = InProcess("steam", limit=2, per_s=60)

    async def status(app_id):
        return (await store.client.get(f"{store.url}/api/appdetails?appids={app_id}")).status_code

    async def work():
        before = [await status(10), await status(20), await status(30)]
        store.outage(60)
        return [*before, await status(40)]

    assert asyncio.run(work()) == [200, 200, 429, 500]
    assert store.stats()["requests"] == 4
    assert store.stats()["outages"][0]["requests"] == 1


def test_a_service_in_process_refuses_what_serve_refuses():
    with pytest.raises(ValueError, match="service must be one of"):
        InProcess("stam")
    with pytest.raises(TypeError, match="limits"):
        InProcess("steam", limits=3)
