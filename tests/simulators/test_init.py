import subprocess
import sys

import pytest

from ipybatch import simulators


def test_the_exported_names_are_sorted_and_there():
    assert simulators.__all__ == sorted(simulators.__all__)
    assert all(getattr(simulators, name) is not None for name in simulators.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Stream'"):
        _ = simulators.Stream


def test_importing_loads_neither_tornado_nor_httpx_nor_the_rest_of_the_package():
    """They load when a server starts or a transport is made."""
    code = """
import sys
import ipybatch
before = set(sys.modules)
import ipybatch.simulators
new = set(sys.modules) - before
print(sorted(n for n in new if n.split(".")[0] in ("tornado", "httpx", "httpx2") or
             n.startswith("ipybatch.") and not n.startswith("ipybatch.simulators")))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"
