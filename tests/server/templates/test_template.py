"""What all templates share."""

import subprocess
import sys

import pytest

from ipybatch.server.templates import TEMPLATES, WrongField, find_template
from ipybatch.server.templates.template import is_loopback, read_address
from ipybatch.templates.shipped import SHIPPED


def test_the_server_lists_what_there_is():
    assert tuple(TEMPLATES) == tuple(SHIPPED)


def test_another_name_says_what_there_is():
    with pytest.raises(WrongField) as refused:
        find_template("film")
    assert (refused.value.field, refused.value.allowed) == ("template", list(TEMPLATES))


OURS = ["http://127.0.0.1:8080", "https://localhost", "http://[::1]:1/v1/", "http://127.1.2.3/a-b", "HTTP://127.0.0.1"]
OTHERS = [
    "http://127.0.0.1.example.org",
    "http://localhost.example.org",
    "http://127.0.0.1@example.org",
    "http://localhost:80@example.org",
    "http://127.0.0.1:80\\@example.org",
    "http://127.0.0.1\n.example.org",
    "http://127.0.0.1/?a=@example.org",
    "http://0.0.0.0",
    "http://10.0.0.1",
    "http://169.254.169.254",
    "http://2130706433",
    "http://localhost#@example.org",
    "ftp://127.0.0.1",
    "//127.0.0.1",
    "127.0.0.1",
    "",
]


@pytest.mark.parametrize("address", OURS[:-1])
def test_an_address_of_this_machine_is_taken(address):
    assert is_loopback(address)
    assert read_address(address, ("IPYBATCH_NO_SUCH",)) == address


@pytest.mark.parametrize("address", [*OTHERS, OURS[-1]])
def test_another_address_is_refused(address):
    with pytest.raises(WrongField, match="an address of this machine"):
        read_address(address, ("IPYBATCH_NO_SUCH",))


def test_a_kernel_loads_neither_the_server_nor_a_workload():
    """Under cron there is no Jupyter; and whoever forecasts needs no client of Gemini."""
    heavy = {"tornado", "jupyter_server", "traitlets", "pandas", "google.genai", "genai_prices", "sklearn", "httpx2"}
    code = f"import sys, ipybatch.server.templates; print(*{heavy!r} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
