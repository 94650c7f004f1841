"""Errors as Google's services word them: one JSON shape for every status.

    {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "...", "details": [{"@type": ...}, ...]}}

Source: https://ai.google.dev/gemini-api/docs/troubleshooting and https://google.aip.dev/193, read 2026-11-22.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .service import Reply, as_json

if TYPE_CHECKING:
    from collections.abc import Sequence

STATUSES = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_IN_TROUBLE = {
    500: "An internal error has occurred. Please retry or report in "
    "https://developers.generativeai.google/guide/troubleshooting",
    503: "The model is overloaded. Please try again later.",
    504: "Deadline expired before operation could complete.",
}


def as_error(code: int, message: str, details: Sequence[dict[str, Any]] = ()) -> Reply:
    """Return an error as the service words it; ``details`` are absent when there are none."""
    error: dict[str, Any] = {"code": code, "message": message, "status": STATUSES[code]}
    if details:
        error["details"] = list(details)
    return as_json({"error": error}, status=code)


def as_trouble(code: int) -> Reply:
    """Return what the service says when the fault is its own: 500, 503 or 504."""
    return as_error(code, _IN_TROUBLE[code])


def detail(kind: str, **fields: object) -> dict[str, Any]:
    """Return one entry of an error's details, ``kind`` being its name in google.rpc."""
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


def not_found(what: str) -> Reply:
    """Return 404 for a name that is not there."""
    return as_error(404, f"{what} is not found, or you have no permission to see it.")


def key_refusal(given: str | None) -> Reply:
    """Return 403 when there is no key and 400 when it is a wrong one."""
    if not given:
        return as_error(
            403,
            "Method doesn't allow unregistered callers (callers without established identity). "
            "Please use API Key or other form of API consumer identity to call this API.",
        )
    reason = detail(
        "ErrorInfo",
        reason="API_KEY_INVALID",
        domain="googleapis.com",
        metadata={"service": "generativelanguage.googleapis.com"},
    )
    return as_error(400, "API key not valid. Please pass a valid API key.", [reason])
