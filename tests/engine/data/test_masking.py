import json
import re
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ipybatch
from ipybatch import InputError
from ipybatch.engine.data import masking
from ipybatch.engine.data.masking import (
    MASK,
    clipped,
    describe,
    mask,
    mask_bytes,
    mask_source,
    printable,
    register,
    whole,
)
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
        ("Authorization: Bearer abcdefghij", "Authorization: Bearer ***"),
        ("password='hunter2'", "password='***'"),
        ("password: hunter2", "password: ***"),
    ],
)
def test_passwords_and_keys_in_addresses_and_headers_are_masked_unregistered(text, masked):
    """Nobody has to register what an address gives away."""
    assert mask(text) == masked


def test_a_text_that_no_file_can_hold_is_made_one_that_can():
    """Half a surrogate pair in an error would otherwise stop the journal."""
    assert mask("bad \ud800 text").encode()


HIDDEN = "S3cr3tS3cr3tS3cr3t00"  # of letters and digits, as keys are


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer {}",
        "authorization: token {}",
        "{{'Authorization': 'Bearer {}'}}",
        "headers={{b'authorization': b'Bearer {}'}}",
        "[('authorization', 'Basic {}')]",
        "got Bearer {} refused",
        "Basic dXNlcjpwYXNzd29yZA== refused",
        "https://h/b?sig={}",
        "https://h/b?x=1&X-Amz-Signature={}&y=2",
        "https://h/b?X-Amz-Credential=AKIA%2F20261129%2Feu",
        "https://h/b?X-Amz-Security-Token={}",
        "https://h/b?X-Goog-Signature={}",
        "https://h/b?a=1&amp;api_key={}",
        "https://h/b?refresh_token={}",
        "https://h/b?id_token={}",
        "grant_type=refresh_token&client_secret={}",
        "refresh_token=1//0gRefreshExampleABCDEF123456",
        '{{"access_token": "{}", "expires_in": 3600}}',
        "{{'token': '{}', 'n': 1}}",
        r"{{\"client_secret\":\"{}\"}}",
        "{{'Cookie': 'sid={}'}}",
        "api_key={}",
        "apikey={}",
        "x-api-key: {}",
        "key={}",
        "('token', '{}')",
        "X-Auth-Token: {}",
        "x-api-key: abcdefabcdef",
        "Ocp-Apim-Subscription-Key: 0123456789abcdef0123456789abcdef",
        "AccountName=x;AccountKey=Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA==;EndpointSuffix=y",
        "SharedAccessKey={}",
        "the sas sig=abc123def456ghi789",
        "refused Bearer ABCDEFGHIJKLMNOPQRSTUVWX",
        "Cookie: session=abc123def456",
        "Set-Cookie: sid=31d4d96e407aad42; Path=/; HttpOnly",
        "cookie: a=31d4d96e407aad42; b=31d4d96e407aad42",
        "#access_token=abcdefabcdef&expires=1",
        "https%3A%2F%2Fh%2Fb%3Fsig%3Dabc123def456",
        "authorization: AWS me:{}",
        "('pwd', 'abcd1234efgh')",
        "npm_abcdefghijklmnopqrstuvwxyz0123456789",
        "https://api.telegram.org/bot123456789:AAF-abcdefghijklmnopqrstuvwxyz12345/getMe",
        "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXX",
        "id AKIAIOSFODNN7EXAMPLE",
        "Incorrect API key provided: sk-proj-abc123def456ghi789.",
        "ghp_abcdefghijklmnopqrst1234",
        "AIzaSyA1234567890abcdefghijklmn",
        "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxw",
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----",
    ],
)
def test_what_has_the_shape_of_a_secret_is_masked_unregistered(text):
    """By its name where it stands in a header, an address, JSON or a dict; by its look anywhere. Twice is as once."""
    told = text.format(HIDDEN)
    masked = mask(told)
    assert MASK in masked
    value = HIDDEN if HIDDEN in told else max(re.findall(r"[\w+/.%=-]+", told), key=len)
    assert value not in masked
    assert mask(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "wrong value for key='name'",
        "KeyError: 'token'",
        "items 1 and 3 share the key 7: keys must be unique; drop one, or pass key=",
        "Authorization: required",
        "Bearer authentication required",
        "Basic authentication required",
        "the bearer of bad news",
        '{"key": "Sofifi"}',
        "{'key': 11, 'town': 'Sofifi'}",
        "missing: 'token', 'password', 'secret'",
        "token=expired",
        "token: 7 of 9",
        "unexpected token: } in JSON at position 12",
        "password=None, password is required",
        "key=550e8400-e29b-41d4-a716-446655440000",
        "key: customer_2024",
        "signature=sha256",
        "max_tokens=1000, tokens=731",
        "monkey=12345678901234567890ab",
        "task-12345-abcdef-ghijk-1 and risk-2024-analysis-of-item",
        "HTTP 503 for url https://host/items/17?x=1",
        "session key: eu-west-1-production-2024",
        "X-Api-Key: required",
        "task-key: customer-9",
        "Cookie: none was sent",
        "no cookie, retry=3",
        "the bearer of internationalisms",
        "accountkey=missing",
        "sig=fig, signature=ed25519-2024",
        "issue #12, see page#section=3",
        "100%3 of token",
    ],
)
def test_ordinary_words_stay(text):
    """What is masked cannot be looked up: `key=value` in prose is no secret unless it looks like one."""
    assert mask(text) == text


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ('connect("bob", password="x")', 'connect("bob", password="***")'),
        ('get(url, auth=("bob", "x"), timeout="5")', 'get(url, auth=("***", "***"), timeout="5")'),
        ('get(url, auth=HTTPBasicAuth("bob", "x"), to="y")', 'get(url, auth=HTTPBasicAuth("***", "***"), to="y")'),
        ('get(headers={"X-Auth-Token": "x", "Accept": "y"})', 'get(headers={"X-Auth-Token": "***", "Accept": "y"})'),
        ('x = {"Authorization": "Token " + "x", "a": "y"}', 'x = {"Authorization": "***" + "***", "a": "y"}'),
        ('[("Cookie", "sid=1"), ("Accept", "y")]', '[("Cookie", "***"), ("Accept", "y")]'),
        ('headers["X-Auth-Token"] = "x"', 'headers["X-Auth-Token"] = "***"'),
        ('form.set("password", "x")', 'form.set("password", "***")'),
        ('API_KEY = "x"; town = "y"', 'API_KEY = "***"; town = "y"'),
        ('self.token: str = "x"', 'self.token: str = "***"'),
        ("d = dict(user='bob', passwd=b'x')", "d = dict(user='bob', passwd=b'***')"),
        ('user, password = "bob", "x"', 'user, password = "***", "***"'),
        ('smtp.login("bob", "x")', 'smtp.login("***", "***")'),
        ('if password == "x": pass', 'if password == "***": pass'),
        ('password = given or "x"', 'password = given or "***"'),
        ('password = "never closed', 'password = "***'),
        (r'connect(password="a\"b", user="c")', 'connect(password="***", user="c")'),
        ('(password="a" "b", user="c")', '(password="***" "***", user="c")'),
        ('get("https://h/?token=x")', 'get("https://h/?token=***")'),
        ('price = float(page["price"])', 'price = float(page["price"])'),
        ('token = os.environ["API_TOKEN"]', 'token = os.environ["API_TOKEN"]'),
        ('raise ValueError("no token in it")', 'raise ValueError("no token in it")'),
        ('raise TokenError("none")', 'raise TokenError("none")'),
        ('author = "Tolkien"', 'author = "Tolkien"'),
        ('find(monkey="x", title="y")', 'find(monkey="x", title="y")'),
    ],
)
def test_texts_at_the_name_of_a_secret_are_masked_in_a_line_of_source(line, masked):
    """Whatever they look like, as far as the argument, the value or the assignment goes."""
    assert mask_source(line) == masked
    assert mask_source(masked) == masked


@given(st.text(st.sampled_from("\"'\\()[]{}=,:; abktoken_f"), max_size=40))
def test_any_line_of_source_can_be_looked_at(line):
    assert len(mask_source(line)) <= 3 * len(line)


@pytest.mark.parametrize("value", ["abc", "", 12345, None, b"secret-bytes"])
def test_secret_refuses_what_it_cannot_mask(value):
    with pytest.raises(InputError, match="value must"):
        ipybatch.secret(value)


def test_secret_returns_what_it_registers():
    """It can stand where the value is used: `key = ipybatch.secret(os.environ["KEY"])`."""
    assert ipybatch.secret("swordfish") == "swordfish"
    assert mask("the word is swordfish") == f"the word is {MASK}"
    assert json.loads(encode_result({"echo": "swordfish"})) == {"echo": MASK}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b1;2Hmoved", "moved"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\sixel", "sixel"),
        ("\x1b]0;never closed", "0;never closed"),
        ("\x1bcreset", "reset"),
        ("a\rb\x00c\x7fd\x85e\x08", "abcde"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("invoice_\u202egpj.exe\u2069", "invoice_<U+202E>gpj.exe<U+2069>"),
        ("Überraschung, 表, 🎲, a\xa0b, \u200fعربي\u200e", "Überraschung, 表, 🎲, a\xa0b, \u200fعربي\u200e"),
    ],
)
def test_what_acts_on_a_terminal_is_left_out(text, line):
    assert printable(text) == line
    assert mask(text).replace("\n", " ").replace("\t", " ") == line


@given(st.text(st.sampled_from("\x1b[]PX^_0;1m\x07\\\x9b\x9d\x9c\u202eab \n"), max_size=30))
def test_nothing_of_an_escape_code_survives(text):
    """Also where leaving one out would make another."""
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize("length", [0, 400, 480, 3900, 4000, 5000, 60_000])
def test_a_long_error_says_that_it_was_cut(length):
    """At a glance it ends in an ellipsis; on record it is whole, or says how much more there was."""
    error = ValueError("x" * length)
    line = f"ValueError: {'x' * length}".removesuffix(": ")
    told = describe(error)
    assert told == line if len(line) <= 500 else told == f"{line[:499]}\N{HORIZONTAL ELLIPSIS}"
    recorded = whole(f"{told}: do this", error)
    if len(line) <= 4000:
        assert recorded == f"{line}: do this"
    else:
        assert recorded == f"{line[:4000]} \N{HORIZONTAL ELLIPSIS} {len(line) - 4000:,} characters more: do this"
    assert whole("Exceeded 3 s", error) == "Exceeded 3 s"
    assert clipped(recorded) == (recorded if len(recorded) <= 1000 else f"{recorded[:999]}\N{HORIZONTAL ELLIPSIS}")
