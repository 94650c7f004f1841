"""`ipybatch.templates`, as users call it."""

import pandas as pd
import pytest

from ipybatch import InputError, templates

SHIPPED = ["character", "food", "product", "text-to-image", "text", "refresh", "forecast"]


def test_what_ships_is_listed_and_can_be_read():
    rows = templates.templates()
    assert list(rows.columns) == ["name", "based_on", "description", "changed"]
    assert list(rows["name"]) == SHIPPED
    assert rows["changed"].isna().all()
    assert str(rows["changed"].dtype).endswith(", UTC]")
    assert all(rows["description"])
    for name in SHIPPED:
        assert templates.load(name).based_on == name


def test_ones_own_are_saved_listed_and_deleted(config):
    path = templates.save("mine", templates.load("text"))
    assert path == templates.path("mine") == config / "templates" / "mine.toml"
    assert templates.load("mine") == templates.load("text")
    path.with_name("broken.toml").write_text("based_on = ")
    path.with_name("broken.toml").chmod(0o600)
    rows = templates.templates().set_index("name")
    assert list(rows.index) == [*SHIPPED, "broken", "mine"]
    assert rows.loc["mine", "based_on"] == "text"
    assert rows.loc["broken", "description"].startswith("cannot be used: broken.toml must be TOML")
    age = pd.Timestamp.now("UTC") - rows.loc["mine", "changed"]
    assert abs(age) < pd.Timedelta(minutes=10)
    templates.delete("mine")
    assert list(templates.templates()["name"]) == [*SHIPPED, "broken"]
    with pytest.raises(templates.NoSuchTemplate):
        templates.load("mine")


def test_every_error_is_an_input_error():
    for name in ("../mine", "text", "mine"):
        with pytest.raises(InputError):
            templates.delete(name)
