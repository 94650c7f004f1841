"""Masking: secrets never reach journal, event, error, repr or output; an error becomes one masked line.

Rule: whoever is given a key, token or password registers it here, and every
text that leaves the engine passes through `mask`.  What nobody registered is
known by its shape: by its name where it stands in an address, a header, JSON
or a dict, and by its own look (``AKIA...``, ``ghp_...``) anywhere.  In prose
``key=value`` stays, unless the value looks like a secret.

What would act on a terminal (escape codes, control characters) leaves with
`printable`, and nowhere else; what would turn text around is named there: a
file "invoice_<U+202E>gpj.exe" is no picture.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec

from ipybatch.errors import InputError, ItemError

MASK = "***"
_SHORTEST = 4  # masking "a" would spoil every text
SHORT, LONGEST = 500, 4000  # characters of an error: in views and sentences, and on record
_LOOKED_AT = 20_000  # characters of an error: some services answer with a page of a megabyte

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

# Every spelling, as text and as JSON has it, the longest first: one may be part of another.
_secrets: tuple[tuple[str, bytes], ...] = ()
_registering = threading.Lock()


def secret(value: str) -> str:
    """Register what must be masked everywhere from now on, in this process, and return it.

    In errors, events, results, the journal and what is shown: as it is, and as an address or JSON spells it.
    Item keys and items stay as they are, because they must be found again.

    Args:
        value: A key, token or password, of 4 characters or more.

    Raises:
        InputError: It is no text, or so short that masking it would spoil ordinary words.
    """
    if not isinstance(value, str):
        msg = f"value must be a text, got {type(value).__name__}: decode it, or pass the text that is sent"
        raise InputError(msg)
    if len(value) < _SHORTEST:
        msg = f"value must have {_SHORTEST} characters or more, got {len(value)}: a shorter one stands in other words"
        raise InputError(msg)
    register(value)
    return value


def register(secret: str | None) -> None:
    """Mask ``secret`` from now on, wherever it turns up: as it is, or as an address or JSON spells it."""
    global _secrets
    if not secret or len(secret) < _SHORTEST:
        return
    spellings = {
        secret,
        quote(secret, errors="replace"),
        quote(secret, "", errors="replace"),
        quote_plus(secret, errors="replace"),
    }
    with _registering:
        known = sorted({text for text, _ in _secrets} | spellings, key=len, reverse=True)
        _secrets = tuple((text, _encode(text.encode(errors="replace").decode())[1:-1]) for text in known)


def registered() -> int:
    """Return a number that grows with each secret that is registered."""
    return len(_secrets)


# Escape codes: CSI, then OSC, DCS, SOS, PM and APC with their text, then the short ones (ECMA-48, 5.3 to 5.6 and 8.3).
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]?"
)
# C0, DEL, C1, line separators; and what embeds, overrides or isolates a direction of text (UAX 9, section 2).
_ACTS = "\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
_CONTROLS = re.compile(f"(\u2068[^{_ACTS}]*\u2069)|[{_ACTS}]")  # `isolated` is the exception
# The blocks of scripts that are written from right to left, and the marks and numbers that count as such.
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\u200f\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]")


def printable(text: str) -> str:
    """Return ``text`` as one line without escape codes and control characters, and with changes of direction named."""
    if text.isprintable():
        return text
    return _CONTROLS.sub(_named, _ESCAPES.sub("", text))


def _named(found: re.Match[str]) -> str:
    letter = found[0]
    if letter in "\t\n":
        return " "
    return found[1] or (f"<U+{ord(letter):04X}>" if letter > "\u2029" else "")


def turns(text: str) -> bool:
    """Say whether a text has letters that are read from right to left: what stands beside it would change its place."""
    return not text.isascii() and _RIGHT_TO_LEFT.search(text) is not None


def isolated(text: str) -> str:
    """Return a text so that it turns nothing around but itself, wherever it is put into a line.

    Source: https://www.unicode.org/reports/tr9/ (UAX 9, section 2.4.2, first strong isolate; 2026-11-30).
    """
    if not turns(text):
        return text
    return f"\u2068{printable(text).translate(_ISOLATES)}\u2069"


_ISOLATES = dict.fromkeys(map(ord, "\u2068\u2069"))


def is_encodable(text: str) -> bool:
    """Say whether a file can hold ``text``: half a surrogate pair, as in odd file names, is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_STRONG = (  # what is called so is one, whatever it looks like
    r"(?:x-(?:amz|goog)-)?(?:signature|credential|security-token)|sig"
    r"|(?:access|refresh|id|auth|api|session|bearer|csrf|xsrf)[_-]?token|token"
    r"|(?:client|app|api|shared)[_-]?secret|secret[_-]?(?:access[_-]?)?key|secret"
    r"|password|passwd|passphrase|pwd"
    r"|(?:x-)?(?:goog-)?(?:api|(?:shared[_-]?)?access|account|private|subscription)[_-]?key"
)
_NAMES = rf"(?:{_STRONG}|key)"
_HINTS = ("key", "token", "secret", "passw", "passph", "pwd", "sig", "cred", "auth", "cookie")

_in_address = re.compile(r"(?<=://)([^/\s:@]*):([^/\s]+)@")
_in_query = re.compile(rf"(?i)(?:(?<=[?&;#])|(?<=%3f)|(?<=%26))({_NAMES})(=|%3d)[^&\s'\"<>]+")
# A name in quotes, then a value in quotes: JSON, a dict, and either within another's quotes.
_in_quotes = re.compile(
    rf"(?i)((\\{{0,3}}[\"'])(?P<name>{_NAMES}|set-cookie|cookie)\2\s?(?P<sign>[:=,])\s?b?\\{{0,3}}[\"'])(?P<value>[^\"'\\]+)"
)
_in_prose = re.compile(rf"(?i)(?<![\w?&;-])((?P<name>{_NAMES})\s?[=:]\s?[\"']?)(?P<value>[^\s\"',;&<>()\[\]{{}}]+)")
_in_header_line = re.compile(  # of any other name, such as X-Auth-Token
    r"(?i)(?<![\w-])((?:[a-z]+-){1,4}(?:key|token|secret|signature|password)\s?:\s?)([^\s\"',;&<>()\[\]{}]+)"
)
_in_cookie_line = re.compile(
    r"(?i)(?<![\w-])((?:set-)?cookie\s?:\s?)[\w.-]+=[^\s;,\"']+(?:;\s?[\w.-]+(?:=[^\s;,\"']*)?)*"
)
_in_header = re.compile(
    r"(?i)((?:proxy-)?authorization\\{0,3}[\"']?\s?[:=,]\s?(?:b(?=[\"']))?\\{0,3}[\"']?)"
    r"(?:(bearer|basic|token|digest|apikey|aws|negotiate|ntlm|hmac)\s+)?"
    r"([^\s\"',;\\]+)"
)
_bearer = re.compile(r"(?i)\b(bearer|basic)\s+([\w.~+/-]{8,}=*)")
_by_look = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA)[0-9A-Z]{16}"
    r"|sk-(?=[\w-]{0,99}\d)[\w-]{16,}|[srp]k_(?:live|test)_\w{8,}"
    r"|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{20,}"
    r"|AIza[\w-]{20,}|ya29\.[\w-]{10,}|1//0[\w-]{16,}"
    r"|xox[abeprs]-[\w-]{10,}|npm_\w{30,}|(?:bot)?\d{8,10}:AA[\w-]{30,}"
    r"|(?<=hooks\.slack\.com/services/)[\w/]+"
    r"|eyJ[\w-]{8,999}\.[\w-]{8,}(?:\.[\w-]*)?"
    r")"
)
_LOOKS = (
    "AKIA",
    "ASIA",
    "sk-",
    "k_live_",
    "k_test_",
    "gh",
    "glpat-",
    "hf_",
    "AIza",
    "ya29.",
    "1//0",
    "xox",
    "npm_",
    ":AA",
    "hooks.",
    "eyJ",
)
_private_key = re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).+?(?=-----END|$)", flags=re.DOTALL)
_uuid = re.compile(r"(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def mask(text: str) -> str:
    """Return ``text`` without secrets: registered ones, and what has the name or the look of one.

    What no file could hold (half a surrogate pair) is replaced too, and what would act on a terminal is left out.
    """
    text = mask_registered(text)
    if not text.isprintable():
        text = "\n".join(map(printable, text.split("\n")))
    if "://" in text:
        text = _in_address.sub(rf"\1:{MASK}@", text)
    lower = text.lower()
    if ("=" in text or ":" in text or "," in text or "%3" in text) and any(hint in lower for hint in _HINTS):
        text = _in_query.sub(rf"\1\2{MASK}", text)
        text = _in_header.sub(_mask_header, text)
        text = _in_header_line.sub(_mask_header_line, text)
        text = _in_cookie_line.sub(rf"\1{MASK}", text)
        text = _in_quotes.sub(_mask_quoted, text)
        text = _in_prose.sub(_mask_prose, text)
    if "bearer" in lower or "basic" in lower:
        text = _bearer.sub(_mask_scheme, text)
    if any(look in text for look in _LOOKS):
        text = _by_look.sub(MASK, text)
    if "PRIVATE KEY" in text:
        text = _private_key.sub(rf"\1{MASK}", text)
    return text if text.isascii() else text.encode(errors="replace").decode()


def mask_registered(text: str) -> str:
    """Return ``text`` without registered secrets, else as it is: for what must be found again."""
    for known, _ in _secrets:
        text = text.replace(known, MASK)
    return text


def _mask_header(found: re.Match[str]) -> str:
    before, scheme, value = found.groups()
    if scheme is not None:
        return f"{before}{scheme} {MASK}"
    return f"{before}{MASK}" if _looks_secret(value, 8) else found[0]


def _mask_quoted(found: re.Match[str]) -> str:
    is_key, is_listed = found["name"].lower() == "key", found["sign"] == ","  # anybody's key; names beside each other
    is_secret = _looks_secret(found["value"], 16 if is_key else 8) if is_key or is_listed else True
    return f"{found[1]}{MASK}" if is_secret else found[0]


_LONGEST_WORDS = {"key": 20, "token": 20, "secret": 20, "credential": 20, "sig": 16, "signature": 16}


def _mask_prose(found: re.Match[str]) -> str:
    name, value = found["name"].lower(), found["value"]
    if name == "key" and _is_named(value):
        return found[0]
    return f"{found[1]}{MASK}" if _looks_secret(value, _LONGEST_WORDS.get(name, 6)) else found[0]


def _mask_header_line(found: re.Match[str]) -> str:
    before, value = found.groups()
    is_long = len(value) >= _LONGEST_LONE_WORD and value.isalnum()
    return f"{before}{MASK}" if is_long or (_looks_secret(value, 8) and not _is_named(value)) else found[0]


def _is_named(value: str) -> bool:
    """Say whether it is of words and numbers, as names are: eu-west-1-production-2024."""
    parts = re.split(r"[-_./:]", value)
    return len(parts) > 1 and all(part.isalpha() or part.isdigit() for part in parts)


_LONGEST_LONE_WORD = 12  # that stands behind the name of a header, in prose: "X-Api-Key: required"
_LONGEST_WORD = 20


def _mask_scheme(found: re.Match[str]) -> str:
    scheme, value = found.groups()
    is_secret = _is_basic(value) if scheme.lower() == "basic" else _is_bearer(value)
    return f"{scheme} {MASK}" if is_secret else found[0]


def _looks_secret(value: str, at_least: int) -> bool:
    """Say whether a value is long and mixed enough that nobody would write it as a word, a name or a number."""
    if len(value) < at_least or _uuid.fullmatch(value):
        return False
    letters = value.strip("*")
    return any(map(str.isdigit, letters)) and any(map(str.isalpha, letters))


def _is_bearer(value: str) -> bool:
    return _looks_secret(value, 8) or (len(value) >= _LONGEST_WORD and value.isalnum())


def _is_basic(value: str) -> bool:
    """Say whether it is "user:password" in Base64 (RFC 7617), as words after "basic" are not."""
    try:
        return b":" in base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False


def mask_bytes(data: bytes) -> bytes:
    """Return encoded JSON without registered secrets; numbers stay numbers."""
    if any(escaped in data for _, escaped in _secrets):
        return _encode(_masked(_decode(data)))
    return data


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask_registered(value)
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    if isinstance(value, dict):
        return {_masked(name): _masked(inner) for name, inner in value.items()}
    return value


_in_source = re.compile(
    r"(?P<text>(?<!\w)[rbuf]{0,2}(?P<quote>[\"'])(?P<value>(?:\\.|(?!(?P=quote))[^\\])*)(?:(?P=quote)|\\?$))"
    r"|(?P<name>[^\W\d]\w*)|(?P<sign>[=!<>]=|->|[()\[\]{},;:=])",
    re.IGNORECASE,
)
_sensitive = re.compile(
    r"(?i)passw|passphrase|pwd|secret|token|cred|cookie|bearer|signature|auth(?!or(?!i[sz]))|log_?in|sign_?in|subscription"
    r"|(?:api|access|account|private|shared)[ _-]?key|(?:^|[ _-])(?:key|sig|pin|pw|pass|sid|session[_-]?id|dsn)$"
)
_SOURCE_AT_MOST = 2000  # characters of a line that are looked at


def mask_source(line: str) -> str:
    """Return a line of Python without secrets: also without the texts that stand at the name of one.

    As keyword, in an assignment, behind a dict's key or a header's name, or among the arguments of what is called so,
    as in ``HTTPBasicAuth("me", "...")``. Nothing but the line is known, so that too many are masked, not too few.
    """
    line = line[:_SOURCE_AT_MOST]
    masked, end, depth = "", 0, 0
    armed: int | None = None  # depth of the brackets in which a name of a secret stands; it ends with its argument
    is_listed = False  # the name is an element itself, and what comes after its comma is the secret
    is_target = False  # one stands among the targets of an assignment
    before = ""
    for found in _in_source.finditer(line):
        word, text = found[0], found["text"]
        follows = line[found.end() :].lstrip()[:1]
        is_index = text is not None and before == "[" and follows == "]"
        if _is_sensitive(found, follows, is_index=is_index) and (armed is None or is_index or follows == ":"):
            armed, is_listed = depth - is_index, text is not None and follows == ","
            is_target = is_target or armed == 0
        elif text is not None:
            if armed is not None and not is_index and found["value"]:
                masked += line[end : found.start("value")] + MASK
                end = found.end("value")
        elif word == "=" and is_target and not depth:
            armed = -1  # all that is assigned
        else:
            depth += (word in _OPEN) - (word in _CLOSED)
            if (armed is not None and depth < armed) or word == ";" or (word == "," and armed == depth):
                armed = armed if is_listed and word == "," else None
                is_listed, is_target = False, is_target and word != ";"
        before = word
    return mask(masked + line[end:])


_OPEN, _CLOSED = frozenset("([{"), frozenset(")]}")


def _is_sensitive(found: re.Match[str], follows: str, *, is_index: bool) -> bool:
    """Say whether a word of a line is the name of a secret: an identifier, or a text where names stand."""
    name, value = found["name"], found["value"]
    if name is not None:
        return _sensitive.search(name) is not None and not name.endswith(("Error", "Exception"))
    if value is None or len(value) > _LONGEST_NAME or not (is_index or follows in (":", ",", "=")):
        return False
    return _sensitive.search(value) is not None


_LONGEST_NAME = 40


def describe(error: BaseException) -> str:
    """Return an error as one masked line, cut to what can be read at a glance."""
    line, _ = _line(error)
    return line if len(line) <= SHORT else f"{line[: SHORT - 1]}\N{HORIZONTAL ELLIPSIS}"


def clipped(text: str) -> str:
    """Return what views are sent of an error on record: its beginning, with room for advice behind a short one."""
    return text if len(text) <= 2 * SHORT else f"{text[: 2 * SHORT - 1]}\N{HORIZONTAL ELLIPSIS}"


def whole(text: str, error: BaseException) -> str:
    """Return a text that begins as `describe` has it with the error as it is: it says how much more there was."""
    if len(text) < SHORT or not text.startswith(told := describe(error)):
        return text
    line, beyond = _line(error)
    left = len(line) + beyond - LONGEST
    more = f" \N{HORIZONTAL ELLIPSIS} {left:,} characters more" if left > 0 else ""
    return f"{line[:LONGEST]}{more}{text[len(told) :]}"


def _line(error: BaseException) -> tuple[str, int]:
    """Return an error as one masked line, as far as it is looked at, and how many characters come after that."""
    try:
        text = " ".join(str(error).split())
    except BaseException:  # whatever the user's class does
        text = "(its text cannot be had)"
    name = type(error).__name__
    is_ours = isinstance(error, ItemError) and type(error).__module__.startswith("ipybatch.")
    line = text if is_ours and text else f"{name}: {text}" if text else name
    return mask(line[:_LOOKED_AT]), max(0, len(line) - _LOOKED_AT)
