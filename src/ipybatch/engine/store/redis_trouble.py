"""Redis trouble: what went wrong with a Redis, in words that say what to do."""

from __future__ import annotations

import ssl

from ipybatch.engine.data.masking import describe, mask

OLDEST = "5.0"

# By how the server's answer begins.
_REFUSALS = {
    "WRONGPASS": "wrong user or password: see store=",
    "NOAUTH": "it asks for a password: store='redis://:PASSWORD@host'",
    "NOPERM": (
        "its user lacks what limits need: ~ipybatch:* +@read +@write +@connection +eval +evalsha +time +multi +exec"
    ),
    "READONLY": "it is a replica, which takes no writes: name the primary in store=",
    "OOM": "its memory is full (maxmemory): give it more",
    "MISCONF": "it cannot save to its disk, and takes no writes until then (MISCONF)",
    "MASTERDOWN": "it is a replica that has lost its primary: name the primary in store=",
    "NOREPLICAS": "it has too few replicas to take writes (min-replicas-to-write)",
    "BUSY": "another program's script keeps it busy",
    "LOADING": "it is still loading what it had saved",
    "CLUSTERDOWN": "its cluster is down",
    "MOVED": (
        "it is one node of a cluster, and another keeps the resource: name a Redis that is alone, or an address that"
        " leads to all nodes (a proxy)"
    ),
}
# The redis package takes the first word of some answers away, and makes errors of other kinds of them.
_KINDS = {
    "AuthenticationError": "WRONGPASS",
    "AuthenticationWrongNumberOfArgsError": "WRONGPASS",
    "NoPermissionError": "NOPERM",
    "AuthorizationError": "NOPERM",
    "ReadOnlyError": "READONLY",
    "OutOfMemoryError": "OOM",
    "MasterDownError": "MASTERDOWN",
    "BusyLoadingError": "LOADING",
    "ClusterDownError": "CLUSTERDOWN",
    "MovedError": "MOVED",
    "AskError": "MOVED",
    "TryAgainError": "MOVED",
}
_NO_SCRIPTS = f"it runs no scripts, or none as Redis does: limits need EVALSHA of Redis {OLDEST} or later"


def is_too_old(version: str) -> bool:
    """Say whether a server is too old for the script."""
    major = version.partition(".")[0]
    return major.isdecimal() and int(major) < int(OLDEST.partition(".")[0])


def trouble(error: BaseException, since: str) -> str:
    """Return what is to be said of an error; "" where it is none of the redis package, nor of the system."""
    from redis import exceptions

    text = mask(str(error))
    kind, code = type(error).__name__, text.partition(" ")[0]
    if isinstance(error, exceptions.TimeoutError):
        return f"has not answered since {since}: it took too long"
    if kind == "AuthenticationError" and ("required" in text or "without any password" in text):
        kind = ""
        code = "NOAUTH"
    why = _REFUSALS.get(_KINDS.get(kind, code), "")
    if not why and isinstance(error, exceptions.ResponseError):
        why = _NO_SCRIPTS if "unknown command" in text.lower() else text.removeprefix("LATER ")
    if why:
        return f"refuses to keep limits since {since}: {why}"
    if isinstance(error, exceptions.RedisError | OSError):
        return f"has not answered since {since}: {_reason(error)}"
    return ""


def _reason(error: BaseException) -> str:
    """Return why there is no connection, as the system says it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = getattr(cause, "verify_message", "") or "it is not trusted"
            return f"its certificate is refused ({why}): name who signed it by ?ssl_ca_certs= in store="
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return mask(str(error)).rstrip(".") or describe(error)
