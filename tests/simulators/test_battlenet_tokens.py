import base64
import json

import pytest

from ipybatch.simulators import Request
from ipybatch.simulators.battlenet_tokens import Tokens

GRANT = b"grant_type=client_credentials"


def desk(lifetime_s=100.0, told_s=100.0):
    return Tokens("me", "se:cret", lifetime_s=lifetime_s, told_s=told_s)


def basic(text):
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def ask(tokens, now_s=0.0, headers=None, method="POST", content=GRANT):
    request = Request("/oauth/token", method, basic("me:se:cret") if headers is None else headers, content)
    reply = tokens.answer(request, now_s)
    return reply.status, json.loads(reply.body)


def bearer(token):
    return Request("/data", headers={"authorization": f"Bearer {token}"})


def test_right_credentials_get_a_token():
    status, answer = ask(desk(lifetime_s=86_399.5, told_s=86_399.5))
    assert status == 200
    assert answer.keys() == {"access_token", "token_type", "expires_in", "sub"}
    assert (answer["token_type"], answer["expires_in"], answer["sub"]) == ("bearer", 86_399, "me")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("me:wrong"),
        basic("you:se:cret"),
        {"Authorization": "Basic me:se:cret"},
        {"Authorization": "Basic /w=="},
        {"Authorization": "Bearer x"},
    ],
)
def test_wrong_credentials_get_401_and_no_token(headers):
    tokens = desk()
    status, answer = ask(tokens, headers=headers)
    assert (status, answer["error"], tokens.issued) == (401, "invalid_client", 0)


@pytest.mark.parametrize(("method", "content"), [("GET", GRANT), ("POST", b""), ("POST", b"grant_type=password")])
def test_another_grant_gets_400(method, content):
    tokens = desk()
    assert ask(tokens, method=method, content=content)[0] == 400
    assert tokens.issued == 0


def test_a_token_lives_from_its_issue_to_its_end():
    tokens = desk(lifetime_s=10.0)
    token = ask(tokens, 5.0)[1]["access_token"]
    assert [tokens.valid(bearer(token), now_s) for now_s in (5.0, 14.9, 15.0, 99.0)] == [True, True, False, False]


@pytest.mark.parametrize("token", ["", "unknown", "SIM"])
def test_an_unknown_token_is_not_valid(token):
    tokens = desk()
    ask(tokens)
    assert not tokens.valid(bearer(token), 0.0)


def test_a_token_is_valid_only_as_a_bearer():
    tokens = desk()
    token = ask(tokens)[1]["access_token"]
    assert not tokens.valid(Request("/data", headers={"Authorization": f"Basic {token}"}), 0.0)
    assert not tokens.valid(Request("/data"), 0.0)


def test_every_grant_is_a_token_of_its_own_and_counted():
    """The older one goes on living: who asks too often shows in the number, not in an error."""
    tokens = desk()
    first, second = (ask(tokens, now_s)[1]["access_token"] for now_s in (0.0, 1.0))
    assert first != second
    assert tokens.issued == 2
    assert tokens.valid(bearer(first), 2.0)
    assert tokens.valid(bearer(second), 2.0)


def test_a_revoked_token_has_ended_whatever_its_answer_said():
    tokens = desk()
    token = ask(tokens)[1]["access_token"]
    tokens.revoke(3.0)
    assert not tokens.valid(bearer(token), 3.0)
    assert tokens.issued == 1
    assert tokens.valid(bearer(ask(tokens, 3.0)[1]["access_token"]), 3.0)
