"""Handler: what all routes share: who may ask, how bodies are read, how answers and errors are written.

Rule: a route says what it is for in `Handler.operations`, from which the
OpenAPI file is made, and holds no rules of its own.  Whoever has no token is
told 403 whatever is asked, so that nothing is learnt from the difference.

    admit     403, 405 with Allow; 413: before a body is read, see `body`
    a method  `body`, `parameter`, `blocking` --> `answer`
    errors    `Refusal`, or one of ours --> application/problem+json
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import msgspec
from jupyter_server.auth.decorator import allow_unauthenticated
from tornado import web

from ipybatch.engine.data.masking import mask
from ipybatch.server.body import BodyReader
from ipybatch.server.refusal import Refusal, as_refusal, without_paths
from ipybatch.server.wire import Problem

T = TypeVar("T")

RESOURCE = "ipybatch"  # what authorization is asked for
MOST_VALUES = 250_000  # of a body: texts and images may be large, but a million of them are a mistake, or worse
PAGE = 100  # most entries of a page
TYPES = "https://ipybatch.readthedocs.io/en/latest/problems"  # each status is an anchor of it
LARGEST = 2**53 - 1  # whole number that a browser tells from the next
_SHOWN, _LONGEST = 200, 1000  # characters of a value, and of a sentence, that an error repeats
_BEFORE_VALUES = (b",", b"[", b"{")
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_PROBLEM = "application/problem+json"

decode = msgspec.json.decode
encode = msgspec.json.Encoder().encode


class Parameter(msgspec.Struct, frozen=True):
    """A query parameter or a header, for the OpenAPI file."""

    name: str
    told: str
    schema: Mapping[str, Any] = MappingProxyType({"type": "string"})
    where: str = "query"


class Media(msgspec.Struct, frozen=True):
    """A body that is not JSON, by its media types."""

    types: tuple[str, ...]


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What one method of a route does.

    Attributes:
        answers: By status, the type of the body; None for none.
        refuses: Statuses of errors, beside 403.
        body: The type of the request's body; None for none.
    """

    summary: str
    answers: Mapping[int, Any]
    refuses: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    body: Any = None


LIMIT = Parameter("limit", "Entries of a page, at most 100.", {"type": "integer", "minimum": 1, "maximum": PAGE})
CURSOR = Parameter("cursor", "Where the page begins: `next` of the one before.")
IF_MATCH = Parameter("If-Match", "The ETag of what it was when it was read, or `*`; needed.", where="header")
IF_NONE_MATCH = Parameter("If-None-Match", "An ETag: 304 where nothing changed.", where="header")


class _AnyMethod(tuple[str, ...]):
    """Methods, of which any comes as far as `Handler.admit`, which refuses it: tornado would not ask first who asks."""

    __slots__ = ()

    def __contains__(self, method: object) -> bool:
        return True


class Handler(BodyReader):
    """Base of all routes.

    Attributes:
        operations: What each method does, by its name.
    """

    operations: ClassVar[Mapping[str, Operation]] = {}
    auth_resource = RESOURCE
    SUPPORTED_METHODS: Any = _AnyMethod(BodyReader.SUPPORTED_METHODS)

    async def admit(self) -> None:
        """Refuse who may not ask, and what cannot be asked, before the body is read.

        Raises:
            Refusal: The method is not possible here.
        """
        self._track_activity = False  # a page that polls must not keep an idle server alive
        method = self.request.method or ""
        if method not in BodyReader.SUPPORTED_METHODS:
            self.request.method = "TRACE"  # one that is here to be refused: "FINISH" must not find what ends a request
        await super().admit()
        if method == "OPTIONS":
            return
        if self.current_user is None:
            raise web.HTTPError(403)
        if method not in self.allowed:
            raise Refusal(405, f"{method} is not possible here", field="method", value=method, allowed=self.allowed)

    @property
    def allowed(self) -> list[str]:
        """The methods that are possible here."""
        methods = list(self.operations)
        return [*methods, *(["HEAD"] if "GET" in methods and "HEAD" not in methods else []), "OPTIONS"]

    @web.authenticated
    async def head(self, *args: str) -> None:
        """Answer as GET does, without a body."""
        answered = self.get(*args)  # tornado sends none
        if answered is not None:
            await answered

    @web.authenticated
    def trace(self, *args: str) -> None:
        """Be there to be refused as other methods are: no route has it among its operations."""

    @allow_unauthenticated
    def options(self, *args: str) -> None:
        """Say which methods are possible."""
        self.set_header("Allow", ", ".join(self.allowed))
        self.set_status(204)
        self.finish()

    async def blocking(self, call: Callable[..., T], *args: Any) -> T:
        """Return what a call that blocks returns, from one of the server's two threads."""
        return await asyncio.get_running_loop().run_in_executor(self.services.pool, call, *args)

    async def checking(self, call: Callable[..., T], *args: Any) -> T:
        """Return what a call that may take seconds returns; what only blocks for moments does not wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self.services.checks, call, *args)

    def body(self, kind: type[T]) -> T:
        """Return the request's body as what it must be.

        Raises:
            Refusal: It is not JSON (415, 400), or not such a thing (422).
        """
        given = self.request.headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
        if given != "application/json":
            raise Refusal(415, "the body must be JSON", field="Content-Type", value=given, allowed=["application/json"])
        return read_json(self.received, kind)

    def parameter(self, name: str, default: str = "", *, allowed: Sequence[str] = ()) -> str:
        """Return a query parameter.

        Raises:
            Refusal: It was given, and is not one of those that are allowed.
        """
        value = self.get_query_argument(name, None)
        if allowed and value is not None and value not in allowed:
            raise Refusal(
                422, f"{name} must be one of {', '.join(allowed)}", field=name, value=value, allowed=list(allowed)
            )
        return value or default

    def whole(self, name: str, least: int, most: int) -> int | None:
        """Return a query parameter that is a whole number; None where it is not given.

        Raises:
            Refusal: It is no number from ``least`` to ``most``.
        """
        value = self.parameter(name)
        if not value:
            return None
        if not (value.isascii() and value.isdecimal() and len(value) <= 16 and least <= int(value) <= most):
            msg = f"{name} must be from {least} to {most:,}"
            raise Refusal(422, msg, field=name, value=value, allowed={"minimum": least, "maximum": most})
        return int(value)

    def limit(self, most: int = PAGE) -> int:
        """Return how many entries a page has.

        Raises:
            Refusal: It is no number from 1 to ``most``.
        """
        return self.whole("limit", 1, most) or PAGE

    def check_match(self, tag: str, *, what: str) -> None:
        """Refuse to change what is not as the client has read it: `If-Match` says how that was.

        Args:
            tag: The ETag of what it is now.
            what: What it is about, such as "session".

        Raises:
            Refusal: There is no `If-Match` (428), or it is of something else (412).
        """
        wanted = self.request.headers.get("If-Match", "")
        if not wanted:
            step = f"GET the {what}, and send the ETag of that answer"
            raise Refusal(428, "If-Match is needed", field="If-Match", next_step=step)
        if wanted.strip() != "*" and tag not in {given.strip().removeprefix("W/") for given in wanted.split(",")}:
            msg = f"the {what} is not any more as it was read"
            raise Refusal(412, msg, field="If-Match", value=wanted, allowed=tag, next_step="GET it again")

    def answer(
        self, value: Any, status: int = 200, *, headers: Mapping[str, str] | None = None, etag: bool = False
    ) -> None:
        """Write an answer, and end the request.

        Args:
            etag: Send an ETag, and 304 alone where the reader has just that.
        """
        self.set_status(status)
        for name, text in (headers or {}).items():
            self.set_header(name, text)
        body = encode(value)
        if etag:
            self.set_header("ETag", etag_of(body))
            if self.check_etag_header():
                self.set_status(304)
                self.finish()
                return
        self.finish(body, set_content_type="application/json")

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """Return a part of the path, or a parameter, as text: a path must not fail before it is known who asks."""
        return value.decode("utf-8", "replace") if name is None else super().decode_argument(value, name)

    def compute_etag(self) -> str | None:
        """Make none of its own: `answer` does where a route has one."""
        return None

    def page_link(self, after: str | None) -> dict[str, str]:
        """Return the header that leads to the page after this one."""
        if after is None:
            return {}
        from tornado.httputil import url_concat

        query = [(name, value) for name, (value, *_) in _texts(self.request.query_arguments) if name != "cursor"]
        return {"Link": f'<{url_concat(self.request.path, [*query, ("cursor", after)])}>; rel="next"'}

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write an error as application/problem+json."""
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        refusal = as_refusal(error, status_code)
        title = HTTPStatus(refusal.status_code).phrase
        detail = without_paths(mask(refusal.detail))
        detail = detail if len(detail) <= _LONGEST else f"{detail[:_LONGEST]}..."  # it repeats what was asked
        self.set_status(refusal.status_code)
        for name, text in refusal.headers.items():
            self.set_header(name, text)
        if status_code == 405:
            self.set_header("Allow", ", ".join(self.allowed))
        problem = Problem(
            type=f"{TYPES}#{refusal.status_code}",
            title=title,
            status=refusal.status_code,
            detail=detail,
            message=detail,
            field=refusal.field,
            value=_short(refusal.value),
            allowed=refusal.allowed,
            next_step=mask(refusal.next_step),  # ours: it may name a route
        )
        self.finish(encode(problem), set_content_type=_PROBLEM)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what is a fault of the server's alone: a refusal is an answer, and of a journal a line is enough."""
        status = as_refusal(value, 500).status_code
        if status == 500:
            super().log_exception(typ, value, tb)
        elif status == 503:
            self.log.warning("%s", mask(str(value)))


class NoRoute(Handler):
    """Anything that is not there."""

    @property
    def allowed(self) -> list[str]:
        """Every method: what is not there is told whatever is asked."""
        return ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

    @web.authenticated
    async def get(self, *args: str) -> None:
        """Say so."""
        raise Refusal(404, "there is no such route", next_step="GET /ipybatch/api/v1/ lists what there is")

    head = post = put = patch = delete = get


def etag_of(body: bytes) -> str:
    """Return the ETag of a body."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def read_json(body: bytes | bytearray, kind: type[T]) -> T:
    """Return JSON as what it must be.

    Raises:
        Refusal: It is no JSON (400), not such a thing (422), or has too many values (413).
    """
    if _has_many(body):
        msg = f"the body must have at most {MOST_VALUES:,} values"
        raise Refusal(413, msg, field="body", allowed={"maximum": MOST_VALUES}, next_step="send less")
    try:
        return decode(body, type=kind)
    except msgspec.ValidationError as error:
        said, _, where = str(error).partition(" - at ")
        field = where.strip("`").removeprefix("$").lstrip(".")
        raise Refusal(422, said, field=field or "body") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"the body must be JSON: {error}", field="body") from None


def _has_many(body: bytes | bytearray) -> bool:
    """Say whether JSON has more values than are taken, without making them: that would take the server's memory."""
    if sum(body.count(mark) for mark in _BEFORE_VALUES) <= MOST_VALUES:
        return False
    count, at = 0, 0
    while at < len(body) and count <= MOST_VALUES:  # what is in texts are no values
        text = _TEXT.search(body, at)
        end, after = text.span() if text else (len(body), len(body))
        count += sum(body.count(mark, at, end) for mark in _BEFORE_VALUES)
        at = after
    return count > MOST_VALUES


def _texts(arguments: Mapping[str, list[bytes]]) -> list[tuple[str, list[str]]]:
    return [(name, [value.decode("utf-8", "replace") for value in values]) for name, values in arguments.items()]


def _short(value: Any) -> Any:
    """Return what a reader needs to see of a value: it comes from a request, and may hold anything."""
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 64):
        return value
    text = value if isinstance(value, str) else encode(value).decode()
    told = mask(text)
    return value if told == text and len(text) <= _SHOWN else told[:_SHOWN]
