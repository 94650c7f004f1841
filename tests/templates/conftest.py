"""What the tests of templates share: a folder of settings of their own."""

import pytest


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYBATCH_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"
