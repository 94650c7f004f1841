"""The page about notifications says what is so: its code runs, and its figures are the code's."""

import re
from pathlib import Path

import pytest

from ipybatch import notify
from ipybatch.engine.data.notice import KINDS, Notify
from ipybatch.engine.store import outbox as rows
from ipybatch.notify import delivery, rests, webhook
from tests.notify.receivers import SECRET

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "notify.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def reader(monkeypatch, journal):
    """What the reader of the page has."""
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(journal))
    monkeypatch.setenv("TEAM_MAIL", "mailto://ana:hunter2-pass@mail.example.org?to=team@example.org")
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: None)
    return {"fetch": lambda item: item, "app_ids": [440, 570]}


def test_its_code_runs(reader):
    """The channels first, which the page's first example names."""
    first, *others = BLOCKS
    assert len(others) == 4
    exec(others[0], reader)
    assert notify.channels() == {"hook": "webhook", "team-mail": "mail"}
    for block in [first, *others[1:]]:
        exec(block, reader)
        if "session =" in block:
            reader["session"].run(verbose=False)
    assert notify.outbox()["channel"].tolist() == ["team-mail"]
    timestamp, body = str(int(delivery.time.time())), b'{"id": "1"}'
    headers = {"X-Ipybatch-Timestamp": timestamp, "X-Ipybatch-Signature": webhook.sign(SECRET, timestamp, body)}
    assert reader["is_genuine"](SECRET, headers, body)
    assert not reader["is_genuine"](SECRET, headers, body + b" ")
    assert not reader["is_genuine"](SECRET, headers | {"X-Ipybatch-Timestamp": "1700000000"}, body)


def test_it_names_every_kind_and_header():
    assert re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE) == list(KINDS)
    for header in ("Signature", "Timestamp", "Delivery", "Kind"):
        assert f"`X-Ipybatch-{header}`" in PAGE


def test_its_figures_are_the_codes():
    usual = Notify("hook")
    assert f"{usual.attach_mb:g} MB" in PAGE
    assert f"{usual.breaker_min:g} minutes" in PAGE
    assert f"{usual.budget_share:.0%}".replace("%", " %") in PAGE
    assert f"in {usual.expiring_h:g} hours" in PAGE
    assert f"up to {delivery.EXIT_S:g} seconds for it, and up to {delivery.SENDING_S:g} more" in PAGE
    assert f"within {webhook.TIMEOUT_S:g} seconds" in PAGE
    assert f"up to {rests.LONGEST_S / 3600:g} hours" in PAGE
    assert f"{rows.MOST} times over {sum(rows.WAITS_S) / 3600:.0f} hours" in PAGE
