"""What docs/schedules.md shows runs as it stands there; tests/server/test_schedules.py has its calls over HTTP."""

import re

from ipybatch import schedules
from tests.kernels import ROOT

PAGE = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")


def test_python(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(tmp_path / "journal.sqlite3"))
    monkeypatch.setenv("IPYBATCH_LIBRARY", str(tmp_path / "library.sqlite3"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    exec("\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)), {})
    (told,) = schedules.list().to_dict("records")
    assert (told["name"], told["state"], told["last_state"]) == ("night", "waiting", "PENDING")
