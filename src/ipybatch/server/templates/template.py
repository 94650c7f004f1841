"""What all templates share: their protocol, their parameters, and addresses that a key may be sent to.

Rule: a request comes from outside.  What it may say is listed, field by field, by type; everything else is refused
by name.  No path, no key and no address that the server's own environment does not name is taken from it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from ipybatch.engine.data.masking import register
from ipybatch.errors import InputError, MissingExtra
from ipybatch.server.wire import Quote, SubmissionRequest
from ipybatch.templates.policies import read_policies
from ipybatch.templates.template import SECRET_NAMES, WrongField

if TYPE_CHECKING:
    from ipybatch.server.options import Options
    from ipybatch.session.session import BatchSession

ParamsT = TypeVar("ParamsT", bound=msgspec.Struct)

CHECKED = "ipybatch check"  # the name of sessions that are made to see whether they can be, and never started
PLACEHOLDER = "SIMULATED"  # a key, or credentials, for a simulator
_LOOPBACK = re.compile(
    r"https?://(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?(?:/[\w./~-]*)?", re.ASCII
)


class Policies(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Parameters of all templates.

    Attributes:
        limits: As the arguments of `Limits`, such as ``{"concurrency": 3, "rates": [{"limit": 200, "per_s": 300}]}``.
        retry: As those of `Retry`.
        breaker: As those of `Breaker`; None for none.
        resource: Name of what is rationed: sessions that name the same one share its windows.
    """

    limits: dict[str, Any] | None = None
    retry: dict[str, Any] | None = None
    breaker: dict[str, Any] | None = None
    resource: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a request that can be submitted comes to.

    Attributes:
        requests: How many.
        operation: Kind of work, a label of its usage and credits.
        units: Poses, styles, images or other pieces that are counted for credits.
        credits: What is to be reserved; None for work without credits.
    """

    requests: int
    operation: str
    units: int
    credits: Decimal | None = None


class Template(Protocol):
    """A kind of work that can be submitted."""

    def check(self, request: SubmissionRequest, options: Options) -> Checked:
        """Check all of a request; block for a second or so at most.

        Raises:
            InputError: Something is not what it must be; nothing was spent.
            BatchError: It cannot be checked: a package or the journal is missing.
        """

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Check parameters alone, as far as that can be done without data and without keys.

        Raises:
            InputError: One is not what it must be.
            BatchError: It cannot be checked: a package is missing.
        """

    def quote(self, request: SubmissionRequest, options: Options) -> Quote:
        """Return what a request would take; nothing is reserved.

        Raises:
            BatchError: As `check`.
        """

    def session(
        self, request: SubmissionRequest, *, name: str, journal: Path, options: Options | None = None
    ) -> BatchSession:
        """Return the session of a request, not started.

        Raises:
            BatchError: It cannot be made any more, such as without a key.
        """

    def used(self, session: BatchSession, *, since_s: float = 0.0) -> Decimal:
        """Return the credits of what a session did.

        Args:
            since_s: Count only what was done since then, Unix time.

        Raises:
            BatchError: The journal cannot be read.
        """


def check_count(request: SubmissionRequest, options: Options) -> list[Any]:
    """Return the requests of a submission.

    Raises:
        WrongField: There are none, or more than `max_requests`.
    """
    most = options.max_requests
    allowed = {"minItems": 1, "maxItems": most}
    if not request.requests:
        msg = f"requests must be a list of 1 to {most} requests, got none"
        raise WrongField("requests", msg, value=0, allowed=allowed)
    if (count := len(request.requests)) > most:
        msg = f"requests must be at most {most} (max_requests), got {count:,}"
        step = "submit them in several submissions, or set c.IpyBatch.max_requests"
        raise WrongField("requests", msg, value=count, allowed=allowed, next_step=step)
    return request.requests


def check_unused(request: SubmissionRequest, *fields: str) -> None:
    """Refuse fields that are for other templates.

    Raises:
        WrongField: One is given.
    """
    for field in fields:
        if getattr(request, field) is not None:
            msg = f"{field} must be left out for template {request.template!r}"
            raise WrongField(field, msg, next_step=f"drop {field}, or choose another template")


def read_params(params: Mapping[str, Any], kind: type[ParamsT], instead: Mapping[str, str] | None = None) -> ParamsT:
    """Return the parameters of a request as what they must be.

    Args:
        kind: A struct in which every field has a default.
        instead: What to say of names that are not there, and that people are likely to try.

    Raises:
        WrongField: There is no such parameter, or it is of another type.
    """
    known = list(kind.__struct_fields__)
    for name, value in params.items():
        if name in known:
            continue
        if SECRET_NAMES.search(name):
            register(value if isinstance(value, str) else None)
            said = "keys come from the environment of the server, never from a request"
            msg = f"params.{name[:60]} must not be given: {said}"
            raise WrongField(f"params.{name[:60]}", msg, next_step="drop it, and set the variable where Jupyter starts")
        near = difflib.get_close_matches(name, known, n=1)
        hint = (instead or {}).get(name) or (f"did you mean {near[0]!r}?" if near else "")
        msg = f"params must not have {name[:60]!r}{f': {hint}' if hint else ''}"
        raise WrongField(f"params.{name[:60]}", msg, value=value, allowed=known, next_step=hint)
    try:
        return msgspec.convert(dict(params), kind)
    except msgspec.ValidationError as error:
        said, _, where = str(error).partition(" - at ")
        path = where.strip("`").removeprefix("$").lstrip(".")
        field = f"params.{path}" if path else "params"
        value = params.get(path.partition(".")[0].partition("[")[0])
        raise WrongField(field, f"{field}: {said}", value=value) from None


def given(read: msgspec.Struct, params: Mapping[str, Any], *left_out: str) -> dict[str, Any]:
    """Return the parameters that were given, as arguments.

    Raises:
        WrongField: Limits, retry or breaker are not what they must be.
    """
    return read_policies({name: getattr(read, name) for name in params if name not in left_out})


@contextmanager
def naming(params: Mapping[str, Any], other_names: Mapping[str, str] | None = None) -> Iterator[None]:
    """Say which field an error is about, where it begins with the name of an argument.

    Args:
        other_names: Arguments by the names that a request may have for them.

    Raises:
        WrongField: An argument is not what it must be.
    """
    try:
        yield
    except WrongField:
        raise
    except (InputError, TypeError) as error:
        if isinstance(error, TypeError) and not isinstance(error, InputError):  # an argument of another type
            raise WrongField("params", f"params: {error}") from None
        told = re.sub(r"^config\['(\w+)'\]", lambda field: field[1] if field[1] in params else field[0], str(error))
        first = (re.match(r"\w+", told) or [""])[0]
        said = next((name for name, ours in (other_names or {}).items() if ours == first and name in params), first)
        if said in params:
            msg = f"{said}{told.removeprefix(first)}"
            raise WrongField(f"params.{said}", msg, value=params[said]) from None
        raise


def read_address(value: str | None, variables: Sequence[str]) -> str | None:
    """Return the address of a service: one that a request names, else that of the environment; None for its own.

    Args:
        variables: Those that may name an address.

    Raises:
        WrongField: The request names another address than one of this machine or of the environment.
    """
    named = [address for variable in variables if (address := os.environ.get(variable, "").strip())]
    if value is None:
        return named[0] if named else None
    if is_loopback(value) or value.rstrip("/") in {address.rstrip("/") for address in named}:
        return value
    msg = "params.base_url must be an address of this machine, or the one that the environment of the server names"
    allowed = ["http://127.0.0.1:PORT", *(f"the value of {variable}" for variable in variables)]
    step = f"set {variables[0]} where Jupyter starts: what a request names would be sent the key of the server"
    raise WrongField("params.base_url", msg, value=value, allowed=allowed, next_step=step)


def is_loopback(address: str) -> bool:
    """Say whether an address is surely of this machine."""
    return _LOOPBACK.fullmatch(address) is not None


def check_simulated(base_url: str | None, *variables: str, page: str) -> None:
    """Refuse to go without what the environment lacks, unless a simulator of this machine is asked.

    Args:
        base_url: Of the service; None for its own.
        variables: What is not set.
        page: Where keys are made.

    Raises:
        WrongField: Another machine is asked.
    """
    if base_url is not None and is_loopback(base_url):
        return
    msg = f"{' and '.join(variables)} must be set in the environment of the Jupyter server"
    step = f"set {'it' if len(variables) == 1 else 'them'} ({page}) where Jupyter starts, and start it again"
    raise WrongField(variables[0], msg, next_step=step)


def check_installed(module: str, extra: str) -> None:
    """Refuse what a package is missing for, without loading it.

    Raises:
        MissingExtra: It is not installed.
    """
    from importlib.util import find_spec

    try:
        found = find_spec(module)
    except ImportError:
        found = None
    if found is None:
        raise MissingExtra(extra)
