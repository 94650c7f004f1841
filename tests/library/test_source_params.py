"""A service, its pace and a library as data, and back."""

import pytest

from ipybatch import InputError, Retry
from ipybatch.library import BattleNet, SteamPrices, SteamStore, source_params
from ipybatch.library.source_params import as_arguments, described, make_source, pace_of, read_credentials

CREDENTIALS = ("an-id-of-tests", "a-secret-of-tests")


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYBATCH_LIBRARY", str(tmp_path / "library.sqlite3"))
    for variable in source_params.CREDENTIALS:
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("source", "params"),
    [
        (SteamStore(), {"source": "steam"}),
        (SteamStore(cc="de"), {"source": "steam", "cc": "de"}),
        (SteamStore("http://127.0.0.1:9", cc=["us", "de"]), {"base_url": "http://127.0.0.1:9", "cc": ["us", "de"]}),
        (BattleNet(*CREDENTIALS), {"source": "battlenet", "region": "us"}),
        (BattleNet(*CREDENTIALS, "eu", enhanced=True, locale="de_DE"), {"enhanced": True, "locale": "de_DE"}),
        (BattleNet(*CREDENTIALS, base_url="http://127.0.0.1:9"), {"base_url": "http://127.0.0.1:9"}),
    ],
)
def test_round_trip(source, params, monkeypatch):
    for variable, value in zip(source_params.CREDENTIALS, CREDENTIALS, strict=True):
        monkeypatch.setenv(variable, value)
    found = described({"source": source, "force": True})
    assert found.items() >= {**params, "force": True}.items()
    again = as_arguments(found)["source"]
    assert (type(again), again.defaults()) == (type(source), source.defaults())
    assert not any(word in str(found) for word in CREDENTIALS)


class Mine(SteamStore):
    pass


@pytest.mark.parametrize(
    "source",
    [
        Mine(),
        SteamPrices(),
        SteamStore(api_url="http://127.0.0.1:9"),
        BattleNet(*CREDENTIALS, oauth_url="http://127.0.0.1:9"),
        object(),
    ],
)
def test_source_with_more_to_it_stays(source):
    assert described({"source": source}) == {"source": source}
    assert as_arguments({"source": source}) == {"source": source}


def test_pace():
    assert pace_of({"cc": "de", "max_retries": None}) == {}
    assert pace_of({"max_retries": 4})["retry"] == Retry(attempts=5)
    assert as_arguments({"max_retries": 4, "retry": Retry(attempts=2)})["retry"] == Retry(attempts=2)
    with pytest.raises(InputError, match="max_retries must be"):
        as_arguments({"max_retries": -1})


def test_what_is_missing_or_wrong():
    with pytest.raises(InputError, match="source must be one of 'steam', 'battlenet'"):
        as_arguments({"source": "epic"})
    with pytest.raises(InputError, match="BNET_CLIENT_ID and BNET_CLIENT_SECRET in the environment"):
        read_credentials()
    with pytest.raises(InputError, match="region must be"):
        make_source("battlenet", {"region": "mars"}, None, CREDENTIALS)
