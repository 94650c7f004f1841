"""The route of channels: their names, and nothing by which they could be reached."""

from ipybatch import notify
from ipybatch.engine.store.config_folder import config_folder, write_private


def test_names_and_kinds_are_told_and_no_address(served):
    notify.add_channel("hook", "json+https://example.org/a-path-that-is-nobodys", secret="s" * 20)
    notify.add_channel("desk", "desktop://")
    answer = served.get("/channels")
    told = {item["name"]: item["kind"] for item in answer.json()["items"]}
    assert told == {"desk": "desktop", "hook": "webhook"}
    assert next(item for item in answer.json()["items"] if item["name"] == "hook")["usable"]
    assert "nobodys" not in answer.text
    assert served.get("/channels", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304


def test_a_file_that_cannot_be_used_is_told_without_its_place(served):
    at = config_folder() / "channels.toml"
    write_private(at, "[no")
    answer = served.get("/channels")
    assert (answer.status_code, answer.json()["next_step"]) == (503, "python -m ipybatch notify list says why")
    assert str(at.parent) not in answer.text
