import signal
import subprocess
import sys

import httpx
import pytest

from ipybatch.simulators.__main__ import start

COMMAND = [sys.executable, "-m", "ipybatch.simulators", "steam", "--port", "0", "--limit", "2", "--per-s", "60"]


def test_the_command_prints_the_address_and_serves_until_ended():
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        statuses = [httpx.get(f"{url}/api/appdetails?appids=440", trust_env=False).status_code for _ in range(3)]
        process.send_signal(signal.SIGINT)
        ended = process.wait(timeout=10)
    assert statuses == [200, 200, 429]
    assert ended == 0


def test_flags_are_the_options_of_serve():
    flags = ["--latency-s", "(0.05, 0.2)", "--outages", "[(5, 15)]", "--outage-kind", "drop", "--key", "SECRET"]
    server = start(["steam", *flags])
    with server:
        faults = server.simulator.faults
    assert (faults.latency_s, faults.outages, faults.outage_kind) == ((0.05, 0.2), ((5, 15),), "drop")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["steam", "--limit", "0"], "limit must be >= 1, got 0"),
        (["steam", "--limt", "3"], "limt"),
        (["steam", "--limit"], "options must be pairs --name value, got --limit"),
        (["stream"], "invalid choice: 'stream'"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        start(arguments)
    assert message in capsys.readouterr().err
