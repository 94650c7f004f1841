import json
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.engine.data import masking
from ipybatch.engine.data.masking import MASK, mask, mask_bytes, register
from ipybatch.engine.data.outcome import encode_result


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    """Each test starts with no secrets, and leaves none behind."""
    monkeypatch.setattr(masking, "_secrets", type(masking._secrets)())


def forget_all():
    masking._secrets = type(masking._secrets)()


letters = st.one_of(st.sampled_from('ab"\\/%+ \n'), st.characters(exclude_categories=["Cs"], exclude_characters="*"))
secrets = st.text(letters, min_size=4, max_size=30)


@given(known=st.lists(secrets, min_size=1, max_size=4), around=st.lists(st.text(max_size=20), min_size=5, max_size=5))
def test_a_registered_secret_never_survives_in_a_text(known, around):
    """Whatever stands around it, however many there are, and even when one is part of another."""
    forget_all()
    for secret in known:
        register(secret)
    text = "".join(between + secret for between, secret in zip(around, [*known, known[0]], strict=False))
    masked = mask(text)
    assert [secret for secret in known if secret in masked] == []


@given(secret=secrets.filter(lambda text: not text.isdigit()), around=st.text(letters, max_size=20))
def test_a_registered_secret_never_survives_in_a_result(secret, around):
    """Not as it is, and not as JSON escapes it: quotes, backslashes and control characters included."""
    forget_all()
    register(secret)
    payload = encode_result({"seen": [around + secret], secret + around: 1, "number": 12345.5})
    known = json.loads(payload)
    assert known.pop("number") == 12345.5
    assert [text for text in (*known, known.get("seen", "")) if secret in text] == []
    assert json.dumps(secret)[1:-1] not in payload.decode()


@pytest.mark.parametrize("secret", ['pa"ss\\word', "tab\there", "schlüssel", "line\nbreak", "nul\x00byte"])
def test_a_secret_that_json_escapes_is_masked(secret):
    """The journal never holds it, in either spelling."""
    register(secret)
    payload = encode_result({"echo": f"you sent {secret}!"})
    assert msgspec.json.decode(payload) == {"echo": f"you sent {MASK}!"}


def test_a_secret_of_digits_leaves_results_readable():
    """A pin that also stands in a number must not turn the result into broken JSON."""
    register("1234")
    assert msgspec.json.decode(encode_result({"price": 51234, "text": "pin 1234"})) == {
        "price": 51234,
        "text": f"pin {MASK}",
    }


@pytest.mark.parametrize("order", [1, -1])
def test_a_secret_that_is_part_of_another_leaves_no_rest(order):
    """The longer one is masked whole, whichever was registered first."""
    for secret in ["abcd", "abcdefgh", "defghijk"][::order]:
        register(secret)
    assert mask("abcdefgh abcd") == f"{MASK} {MASK}"


def test_masking_leaves_all_else_alone():
    """Text without a secret comes back as it is."""
    register("s3cr3t-key")
    assert mask("nothing to see: a=b, http://host/path?x=1") == "nothing to see: a=b, http://host/path?x=1"
    assert mask_bytes(b'{"a":1}') == b'{"a":1}'


@pytest.mark.parametrize("secret", [None, "", "abc"])
def test_what_is_no_secret_masks_nothing(secret):
    """Absent keys are not registered, and three letters would spoil every text."""
    register(secret)
    assert mask("abc abcd") == "abc abcd"


@pytest.mark.parametrize("spell", [quote, quote_plus, lambda secret: quote(secret, safe="")])
def test_a_secret_in_an_address_is_masked_as_it_is_spelt_there(spell):
    """An HTTP client percent-encodes the key before it stands in an error."""
    register("a b/c+d==")
    assert spell("a b/c+d==") not in mask(f"GET https://host/x?sig={spell('a b/c+d==')}&y=1 failed")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://me:hunter2@host/x", "https://me:***@host/x"),
        ("proxy http://:hunter2@host:8080", "proxy http://:***@host:8080"),
        ("https://me:p@ss@host/x", "https://me:***@host/x"),
        ("https://host/x?key=abc123&appids=7", "https://host/x?key=***&appids=7"),
        ("https://host/x?appids=7&api_key=abc123", "https://host/x?appids=7&api_key=***"),
        ("https://host/x?Access_Token=abc.def", "https://host/x?Access_Token=***"),
        ("https://host:443/x?a=b", "https://host:443/x?a=b"),
        ("wrong value for key='name'", "wrong value for key='name'"),
    ],
)
def test_passwords_and_keys_in_addresses_are_masked_unregistered(text, masked):
    """Nobody has to register what an address gives away."""
    assert mask(text) == masked


def test_a_text_that_no_file_can_hold_is_made_one_that_can():
    """Half a surrogate pair in an error would otherwise stop the journal."""
    assert mask("bad \ud800 text").encode()
