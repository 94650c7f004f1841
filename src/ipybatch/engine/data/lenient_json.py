r"""JSON as services write it, which the strict reader refuses: that one goes first, since it is quick.

always     a byte order mark, UTF-16, half a surrogate pair (``\ud83d`` alone)
lenient    bytes that are no UTF-8, NaN, numbers beyond all bounds: for what was paid, and is not to be had again
"""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

_LONGEST = 18  # digits of a whole number that every reader takes
_decode = msgspec.json.Decoder().decode


def read_json(body: bytes | str, type_: Any = Any, *, lenient: bool = False) -> Any:
    """Return the value of a JSON text; of type ``type_``, where there is one.

    Raises:
        ValueError: It is no JSON, or no value of that type.
    """
    try:
        try:
            return _decode(body) if type_ is Any else msgspec.json.decode(body, type=type_)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return msgspec.json.decode(_repaired(body, lenient=lenient), type=type_)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _repaired(body: bytes | str, *, lenient: bool) -> bytes:
    """Return a JSON text as the strict reader takes it: what it refuses is a replacement character, or null.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deeply.
    """
    if lenient:
        text = body if isinstance(body, str) else body.decode(json.detect_encoding(body), "replace")
        value = json.loads(text, parse_constant=lambda _: None, parse_float=_float, parse_int=_int)
    else:
        value = json.loads(body)
    whole = json.dumps(value, ensure_ascii=False)
    return whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _float(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _int(digits: str) -> int | float | None:
    return int(digits) if len(digits) <= _LONGEST else _float(digits)
