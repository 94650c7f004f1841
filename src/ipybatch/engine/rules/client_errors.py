"""Client errors: what the errors of HTTP clients and of the system mean, as tables.

Rule: a class is known by its package and its name, looked up along its bases, so that nothing is imported and a
subclass means what its base does.  An entry is a word; where the class alone does not tell, a function that returns
one, "" where it cannot tell either.  What several attributes, causes and frames say together is `classify`'s.

Texts are read where a library tells in no other way: of a client that is closed, of one of another event loop, and of
msgspec's input that breaks off.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, Literal

import msgspec

Meaning = Literal[
    "",
    "service",
    "timeout",
    "item",
    "address",
    "certificate",
    "closed",
    "connection",
    "files",
    "loop",
    "pool",
    "ports",
    "proxy",
    "request",
]

ADVICE: dict[Meaning, str] = {
    "address": "Give the work a whole address, with https:// and a host.",
    "certificate": (
        "Give the client the certificate that the service is signed with, such as verify= of httpx and requests or"
        " ssl= of aiohttp; do not switch the check off."
    ),
    "closed": "Open the client in __aenter__ of the work object and close it in __aexit__: it was closed too early.",
    "connection": "Give every attempt a connection of its own: one http.client connection sends one request at a time.",
    "files": "Lower Limits(concurrency=), close what the work opens, or raise the limit of open files (ulimit -n).",
    "loop": (
        "the work uses a client that was opened in another event loop: open it in __aenter__ of the work object, which"
        " is entered in the loop that uses it"
    ),
    "pool": (
        "Make the client's pool at least as large as Limits(concurrency=): limits=httpx.Limits(max_connections=...),"
        " urllib3.PoolManager(maxsize=...), aiohttp.TCPConnector(limit=...)."
    ),
    "ports": "Let the work use one client for all items: each that is opened anew takes a port of this machine.",
    "proxy": "Give the client the user name and password of the proxy.",
    "request": "The client refused to send the request as the work wrote it: look at its headers and its body.",
}

_SAME = {"httpx2": "httpx", "httpcore": "httpx", "httpcore2": "httpx", "h11": "httpx", "_socket": "socket"}
_BY_NAME = {"TransportError", "DecodingError", "ClientConnectionError", "ServerDisconnectedError"}  # of the service
_RETRIED = {("urllib3", "MaxRetryError"), ("requests", "RetryError")}  # what the last answer was is in their frames

_OF_SERVICE = frozenset(
    getattr(errno, prefix + name)
    for prefix in ("", "WSA")
    for name in (
        "ECONNABORTED",
        "ECONNREFUSED",
        "ECONNRESET",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENETDOWN",
        "ENETRESET",
        "ENETUNREACH",
        "ENONET",
        "EPIPE",
        "EPROTO",
        "ESHUTDOWN",
        "ETIMEDOUT",
    )
    if hasattr(errno, prefix + name)
)
_OF_US: dict[int, Meaning] = {
    errno.EMFILE: "files",
    errno.ENFILE: "files",
    errno.EADDRNOTAVAIL: "ports",
    errno.ENOBUFS: "ports",
}


def meaning_of(error: BaseException) -> Meaning:
    """Return what the class of an error means; "" where it says nothing."""
    for cls in type(error).__mro__:
        known = _CLASSES.get((_package(cls.__module__), cls.__name__))
        if known is not None:
            return known if isinstance(known, str) else known(error)
    return ""


def named(error: BaseException) -> Meaning:
    """Return what the bare name of a class means, whatever its package: the last resort."""
    for cls in type(error).__mro__:
        if cls.__name__ in _BY_NAME or (_package(cls.__module__), cls.__name__) in _RETRIED:
            return "service"
    return ""


def wrapped_by(error: BaseException) -> list[BaseException]:
    """Return the errors that one wraps, by whatever a library keeps them under; what Python chains is not looked at."""
    found: list[Any] = [getattr(error, name, None) for name in ("reason", "os_error", "certificate_error")]
    if _package(type(error).__module__) in ("requests", "urllib3"):
        found += error.args
    return [inner for inner in found if isinstance(inner, BaseException)]


class Answer(msgspec.Struct, frozen=True):
    """What a service answered.

    Attributes:
        status: Of HTTP, 300 to 599: what is below is no error's.
        is_rate: Whether it says by another word than its status that a quota is used up.
        retry_after_s: How long to wait, seconds, where the body says it.
        is_refused: Whether the body says that the key is not valid, or has a quota of nothing.
    """

    status: int
    headers: Any = None
    is_rate: bool = False
    retry_after_s: float | None = None
    is_refused: bool = False


def answer_of(error: BaseException) -> Answer | None:
    """Return the answer that an error tells of: on itself, or on the response that it keeps."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore
        told = response.get("ResponseMetadata")
        told = told if isinstance(told, Mapping) else {}
        status = _as_status(told.get("HTTPStatusCode"))
        return None if status is None else Answer(status, told.get("HTTPHeaders"))
    status = _status(response, "status_code", "status", "code")
    package = _package(type(error).__module__)
    if status is None:
        status = _status(error, "status_code", "status", *(["code"] if package in _CODED else []))
    headers = getattr(response, "headers", None)
    if headers is None:
        headers = getattr(error, "headers", None)
    if package == "google":
        return _of_google(error, status, headers)
    return None if status is None else Answer(status, headers)


_CODED = frozenset({"google", "tornado", "urllib", "werkzeug"})  # whose `code` is the status


def _status(holder: Any, *names: str) -> int | None:
    values = (_as_status(getattr(holder, name, None)) for name in names)
    return next((value for value in values if value is not None), None)


def _as_status(value: Any) -> int | None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return int(value) if is_whole and 300 <= value <= 599 else None


def _of_google(error: Any, status: int | None, headers: Any) -> Answer | None:
    """Return the answer of google-genai, which tells more in the body than in the status."""
    is_rate = getattr(error, "status", None) == "RESOURCE_EXHAUSTED"
    if status is None and not is_rate:
        return None
    wait_s, is_refused = None, False
    body: Any = getattr(error, "details", None)
    for name in ("error", "details"):
        body = body.get(name) if isinstance(body, Mapping) else None
    for detail in body if isinstance(body, list) else ():
        if isinstance(detail, Mapping):
            found = _DURATION.fullmatch(str(detail.get("retryDelay", "")))
            wait_s = float(found[1]) if found else wait_s
            broken = detail.get("violations")
            quotas = (
                [one.get("quotaValue") for one in broken if isinstance(one, dict)] if isinstance(broken, list) else []
            )
            is_refused |= detail.get("reason") == "API_KEY_INVALID" or "0" in quotas
    return Answer(status or 429, headers, is_rate, wait_s, is_refused)


_DURATION = re.compile(r"(\d{1,19}(?:\.\d{1,9})?)s")


class Trace(msgspec.Struct, frozen=True):
    """An answer that the frames show which an error went through: the last that the work had in its hands.

    Attributes:
        is_client: Whether the client itself was reading that answer.
        body: Of that answer; None where it is not kept.
    """

    status: int
    headers: Any
    is_client: bool
    body: bytes | None


def trace_of(error: BaseException) -> Trace | None:
    """Return the answer that the innermost frame with one had in its hands; None where no frame has any.

    Work that looks at the status itself raises errors of its own, or none before the answer is read as what it is not.
    Frames of this package are left out: what they hold may be another item's.
    """
    for frame in reversed(list(frames_of(error))):
        package = _package(frame.f_globals.get("__name__", ""))
        if package == _OURS:
            continue
        is_client = package in _CLIENTS or package == "json"
        for value in reversed(list(frame.f_locals.values())):
            cls = type(value)
            if _package(cls.__module__) in _CLIENTS and cls.__name__ in _RESPONSES:
                status = getattr(value, "status_code", None) or getattr(value, "status", None)
                if isinstance(status, int):
                    body = getattr(value, "_content", None) or getattr(value, "_body", None)
                    kept = body if isinstance(body, bytes) else None
                    return Trace(status, getattr(value, "headers", None), is_client, kept)
    return None


_OURS = __name__.partition(".")[0]
_CLIENTS = frozenset({"aiohttp", "http", "httpx", "requests", "urllib", "urllib3"})
_RESPONSES = frozenset({"BaseHTTPResponse", "ClientResponse", "HTTPResponse", "Response", "addinfourl"})


def frames_of(error: BaseException) -> Iterator[FrameType]:
    """Yield the frames that an error went through, the innermost last."""
    place = error.__traceback__
    while place is not None:
        yield place.tb_frame
        place = place.tb_next


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause, and so on, a few of them."""
    one: BaseException | None = error
    for _ in range(_CHAIN):
        if one is None:
            return
        yield one
        one = one.__cause__ or one.__context__


_CHAIN = 8  # errors that are looked through


def _passed(error: BaseException, package: str, function: str) -> bool:
    """Say whether an error, or one of its causes, went through a function of a package."""
    return any(
        frame.f_code.co_name == function and _package(frame.f_globals.get("__name__", "")) == package
        for one in _chain(error)
        for frame in frames_of(one)
    )


def is_timeout(error: BaseException) -> bool:
    """Say whether an error, or one of its causes, is a time that ran out, whatever its client calls it."""
    return any("Timeout" in cls.__name__ for one in _chain(error) for cls in type(one).__mro__)


def _package(module: Any) -> str:
    package = str(module).partition(".")[0]
    return _SAME.get(package, package)


def _os_error(error: BaseException) -> Meaning:
    number = getattr(error, "errno", None)
    if not isinstance(number, int | None):
        return ""
    if number in _OF_SERVICE:
        return "service"
    if number in _OF_US:
        return _OF_US[number]
    if number is None and _passed(error, "asyncio", "create_connection"):  # none of several addresses answered
        return "service"
    return ""


def _timeout(error: BaseException) -> Meaning:
    return "pool" if any(_passed(error, *where) for where in _POOLS) else "timeout"


_POOLS = (("aiohttp", "_wait_for_available_connection"), ("httpx", "wait_for_connection"))  # where they wait for a line


def _url_error(error: Any) -> Meaning:
    """Of URLError: a text as its reason is urllib's own refusal; an error is what that error is."""
    return "" if wrapped_by(error) or error.__cause__ is not None else "address"


def _value_error(error: BaseException) -> Meaning:
    """Of urllib's ValueError "unknown url type"; every other says nothing."""
    *_, last = [None, *frames_of(error)]
    return "address" if last is not None and last.f_globals.get("__name__") == "urllib.request" else ""


def _runtime_error(error: BaseException) -> Meaning:
    text = str(error)
    if _OTHER_LOOP.search(text):
        return "loop"
    return "closed" if _CLOSED.search(text) else ""


_OTHER_LOOP = re.compile(r"different (event )?loop|[Ee]vent loop is closed")
_CLOSED = re.compile(r"^(Session is|Connector is|Cannot send a request, as the client has been) closed\.?$")


def _local_protocol(error: BaseException) -> Meaning:
    """Of HTTP/1, a request that cannot be sent; of HTTP/2, also a line that the service has closed."""
    return "service" if any(_package(type(one).__module__) == "h2" for one in _chain(error)) else "request"


def _aiohttp_connection(error: BaseException) -> Meaning:
    return "closed" if _CLOSED.search(str(error)) else "service"


def _aiohttp_answer(error: BaseException) -> Meaning:
    """Of ClientResponseError: aiohttp gives an answer that is no HTTP the status 400."""
    cause = error.__cause__
    return "service" if cause is not None and meaning_of(cause) == "service" else ""


def _content_type(error: BaseException) -> Meaning:
    """Of ContentTypeError: a web page with status 200; with another, the status tells more."""
    return "" if _status(error, "status") else "service"


def _unreadable(error: BaseException) -> Meaning:
    """Of what cannot be decoded: the service's where an answer was read, the item's where it is a text of the work's.

    The client itself read it, or the answer is in the hands of the work and is the text: the service's.  Else the text
    alone can tell: a web page, one that breaks off, and nothing at all are what overloaded services send.
    """
    trace = trace_of(error)
    document = getattr(error, "doc", None)
    if trace is not None and (trace.is_client or trace.body is None or _is_same(document, trace.body)):
        return "item" if trace.status in _EMPTY else "" if trace.status >= 300 else "service"
    if isinstance(error, UnicodeDecodeError) or not isinstance(document, str | bytes):
        return "service" if str(error) == _TRUNCATED else ""
    text = document if isinstance(document, str) else document.decode("utf-8", "replace")
    is_open = str(getattr(error, "msg", "")).startswith("Unterminated")
    is_cut = is_open or _CUT.fullmatch(text[getattr(error, "pos", 0) :].strip()) is not None
    return "service" if text.lstrip().startswith("<") or is_cut else ""


# What may be left of a JSON that breaks off, from where it cannot be read: part of a word, a number or an escape.
_CUT = re.compile(r"|t(ru?)?|f(a(ls?)?)?|n(ul?)?|-|[.eE][+-]?|u[0-9a-fA-F]{0,4}")


_TRUNCATED = "Input data was truncated"  # all that msgspec tells
_EMPTY = (204, 205)  # statuses of answers that have no body


def _is_same(document: Any, body: bytes) -> bool:
    """Say whether a text that was parsed is an answer's body; one that is not told is taken for it."""
    if isinstance(document, str):
        document = document.encode("utf-8", "surrogatepass")
    return document is None or document == body


def _unpacked(error: BaseException) -> Meaning:
    """Of bytes that are no gzip: an answer's; of a file's, nothing."""
    is_file = any(type(frame.f_locals.get("self")).__name__ == "GzipFile" for frame in frames_of(error))
    return "" if is_file else "service"


def _end_of_file(error: BaseException) -> Meaning:
    *_, last = [None, *frames_of(error)]
    return _unpacked(error) if last is not None and last.f_globals.get("__name__") == "gzip" else ""


_Reader = Callable[[BaseException], Meaning]
_TABLES: dict[str, dict[str, Meaning | _Reader]] = {
    "httpx": {
        "UnsupportedProtocol": "address",
        "InvalidURL": "address",
        "LocalProtocolError": _local_protocol,
        "PoolTimeout": "pool",
        "TooManyRedirects": "item",
        "ConnectionNotAvailable": "service",
        "DecodingError": "service",
        "NetworkError": "service",
        "ProtocolError": "service",
        "ProxyError": "service",
        "TimeoutException": "service",
        "TransportError": "service",
    },
    "requests": {
        "MissingSchema": "address",
        "InvalidSchema": "address",
        "InvalidURL": "address",
        "URLRequired": "address",
        "InvalidHeader": "request",
        "TooManyRedirects": "item",
        "JSONDecodeError": _unreadable,
        "ChunkedEncodingError": "service",
        "ConnectionError": "service",
        "ContentDecodingError": "service",
        "Timeout": "service",
        "RequestException": "",
    },
    "urllib3": {
        "EmptyPoolError": "pool",
        "FullPoolError": "pool",
        "ClosedPoolError": "closed",
        "LocationValueError": "address",
        "ProxySchemeUnknown": "address",
        "ProxySchemeUnsupported": "address",
        "MaxRetryError": "",
        "DecodeError": "service",
        "InvalidHeader": "service",
        "ProtocolError": "service",
        "ProxyError": "service",
        "IncompleteRead": "service",
        "InvalidChunkLength": "service",
        "SSLError": "service",
        "TimeoutError": "service",
    },
    "aiohttp": {
        "InvalidUrlRedirectClientError": "item",
        "NonHttpUrlRedirectClientError": "item",
        "TooManyRedirects": "item",
        "InvalidURL": "address",
        "NonHttpUrlClientError": "address",
        "ClientConnectorCertificateError": "certificate",
        "ServerFingerprintMismatch": "certificate",
        "ContentTypeError": _content_type,
        "ClientResponseError": _aiohttp_answer,
        "ServerTimeoutError": _timeout,
        "ClientConnectionError": _aiohttp_connection,
        "ClientPayloadError": "service",
        "HttpProcessingError": "service",
    },
    "http": {"InvalidURL": "address", "ImproperConnectionState": "connection", "HTTPException": "service"},
    "urllib": {"HTTPError": "", "ContentTooShortError": "service", "URLError": _url_error},
    "socket": {"gaierror": "service", "herror": "service"},
    "ssl": {"SSLCertVerificationError": "certificate", "SSLError": "service"},
    "asyncio": {"IncompleteReadError": "service"},
    "json": {"JSONDecodeError": _unreadable},
    "simplejson": {"JSONDecodeError": _unreadable},
    "msgspec": {"ValidationError": "", "DecodeError": _unreadable},
    "gzip": {"BadGzipFile": _unpacked},
    "zlib": {"error": _unpacked},
    "builtins": {
        "ConnectionError": "service",
        "TimeoutError": _timeout,
        "OSError": _os_error,
        "UnicodeDecodeError": _unreadable,
        "ValueError": _value_error,
        "RuntimeError": _runtime_error,
        "EOFError": _end_of_file,
    },
}
_CLASSES = {(package, name): known for package, table in _TABLES.items() for name, known in table.items()}
