import asyncio
import socket
import subprocess
import sys
import threading

import httpx
import pytest

from ipybatch.simulators import Faults, SteamSimulator, serve
from ipybatch.simulators.serve import SERVICES


def get(url, app_id):
    return httpx.get(f"{url}/api/appdetails", params={"appids": app_id}, trust_env=False)


def test_the_context_gives_the_address_of_a_store():
    with serve("steam") as url:
        response = get(url, 440)
    assert url.startswith("http://127.0.0.1:")
    assert response.json()["440"]["success"]
    assert response.headers["content-type"] == "application/json; charset=utf-8"


def test_loopback_and_in_process_answer_alike():
    """Over HTTP nothing is added to what the handler says."""
    with serve("steam", missing={570}, limit=2, per_s=60) as url:
        answers = [get(url, app_id) for app_id in (440, 570, 440)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[1].content == b'{"570":{"success":false}}'
    assert answers[2].content == b"null"
    assert not any({"retry-after", "etag"} & answer.headers.keys() for answer in answers)


def test_a_request_counts_after_its_way_in():
    """On loopback too the arrival lies between sending and answer."""
    faults = Faults(latency_s=0.1)
    server = serve("steam", faults=faults)
    with server as url:
        took_s = get(url, 440).elapsed.total_seconds()
    assert server.stats()["arrivals"][0] >= faults.way_s("440", 1)[0]
    assert took_s >= 0.1


def test_a_closed_server_refuses_and_may_be_closed_again():
    server = serve("steam")
    get(server.url, 440)
    server.close()
    server.close()
    with pytest.raises(httpx.ConnectError):
        get(server.url, 440)
    assert server.stats()["requests"] == 1


def test_dropped_lines_are_really_closed_and_really_reset():
    """The client meets what it meets in process: the end of the line, or its reset."""
    with serve("steam", rate_drop=1.0) as url:
        with pytest.raises(httpx.RemoteProtocolError):
            get(url, 440)
        with pytest.raises(httpx.ReadError):
            get(url, 440)


def test_another_process_reads_statistics_and_scripts_an_outage():
    code = """
import json, sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.open(sys.argv[1] + "/_sim/outage?seconds=600", data=b"").read()
print(json.load(opener.open(sys.argv[1] + "/_sim/stats"))["ids"])
"""
    server = serve("steam")
    with server as url:
        get(url, 440)
        told = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=True).stdout
        down = get(url, 440).status_code
        server.outage(0)
        up = get(url, 440).status_code
    assert told.strip() == "{'440': 1}"
    assert (down, up) == (500, 200)
    assert server.stats()["outages"][0]["requests"] == 1


def test_it_serves_a_loop_that_is_already_running():
    """As in a notebook: started, used and closed from inside a coroutine."""

    async def cell():
        with serve("steam") as url:
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                answers = await asyncio.gather(*(client.get(f"/api/appdetails?appids={n}") for n in range(1, 21)))
        return {answer.status_code for answer in answers}

    assert asyncio.run(cell()) == {200}


def test_statistics_are_whole_while_other_threads_ask():
    """Sums agree in every reading, whoever is being served."""
    server = serve("steam", limit=None)
    with server as url:
        clients = [threading.Thread(target=lambda: [get(url, n) for n in range(10)]) for _ in range(3)]
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            stats = server.stats()
            assert stats["requests"] == sum(stats["ids"].values()) == len(stats["arrivals"])
    assert server.stats()["requests"] == 30


def test_a_client_that_leaves_early_harms_nobody(caplog):
    """Its request is counted, and the server says nothing and goes on."""
    server = serve("steam", latency_s=0.05, outages=[(0, 600)], outage_kind="drop")
    with server as url:
        for app_id in (1, 1, 2, 2):
            line = socket.create_connection(("127.0.0.1", server.port))
            line.sendall(b"GET /api/appdetails?appids=%d HTTP/1.1\r\nHost: x\r\n\r\n" % app_id)
            line.close()
        while server.stats()["requests"] < 4:
            httpx.get(f"{url}/_sim/stats", trust_env=False)
        server.outage(0)
        assert get(url, 440).status_code == 200  # takes as long as the answers that nobody waits for
    assert server.stats()["statuses"] == {"200": 1, "dropped": 4}
    assert caplog.records == []


def test_the_clock_of_a_service_runs_ahead_when_told():
    server = serve("steam", outages=[(100, 1e9)], outage_kind="500")
    with server as url:
        assert get(url, 440).status_code == 200
        server.advance(100.0)
        assert get(url, 440).status_code == 500
        with pytest.raises(ValueError, match="seconds must be >= 0, got -1"):
            server.advance(-1)


def test_options_go_to_the_simulator_and_to_its_faults():
    server = serve("steam", limit=7, per_s=2, rate_500=1.0, seed=9)
    with server:
        assert isinstance(server.simulator, SteamSimulator)
        assert server.simulator.faults == Faults(rate_500=1.0, seed=9)
        assert server.stats()["worst"] == [{"limit": 7, "per_s": 2, "worst": 0}]
        assert repr(server) == f"<steam simulator at {server.url}>"


def test_a_port_can_be_asked_for_and_a_taken_one_is_refused():
    with serve("steam") as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            serve("steam", port=port)
    with serve("steam", port=port) as url:
        assert url == f"http://127.0.0.1:{port}"


def test_an_unknown_service_is_told_the_known_ones():
    with pytest.raises(ValueError, match=f"service must be one of {', '.join(sorted(SERVICES))}, got 'stream'"):
        serve("stream")


def test_faults_are_given_whole_or_in_parts_not_both():
    with pytest.raises(ValueError, match=r"not both: got faults and rate_500"):
        serve("steam", faults=Faults(), rate_500=0.1)


def test_an_unknown_option_is_refused_by_name():
    with pytest.raises(TypeError, match="limt"):
        serve("steam", limt=3)


def test_a_browser_has_no_ports(monkeypatch):
    monkeypatch.setattr(sys, "platform", "emscripten")
    with pytest.raises(OSError, match=r"a browser has no ports: use InProcess\('steam'\)"):
        serve("steam")
