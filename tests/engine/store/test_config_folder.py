import os
import subprocess
import sys
from pathlib import Path

import pytest

from ipybatch.engine.store.config_folder import config_folder, write_private


def test_the_environment_moves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYBATCH_CONFIG", str(tmp_path / "mine"))
    assert config_folder() == tmp_path / "mine"


def test_it_is_the_users_config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IPYBATCH_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_folder().name == "ipybatch"


def test_what_is_written_is_the_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "templates" / "night.toml"
    write_private(path, "a = 1\n")
    write_private(path, "a = 2\n")
    assert path.read_text() == "a = 2\n"
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    assert [file.name for file in path.parent.iterdir()] == ["night.toml"]


COUNT = """
import sys
from pathlib import Path
from ipybatch.engine.store.config_folder import config_folder, write_private, writing
counted = config_folder() / "counted"
for _ in range(50):
    with writing(), writing():
        write_private(counted, str(int(counted.read_text()) + 1))
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no flock")
def test_what_two_processes_change_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYBATCH_CONFIG", str(tmp_path))
    (tmp_path / "counted").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "counted").read_text() == "150"
