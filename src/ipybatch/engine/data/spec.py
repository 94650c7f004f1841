"""Work: what a user's function is, found by looking at it once."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from types import CodeType
from typing import Any

import msgspec

from ipybatch.errors import InputError


class Work(msgspec.Struct, frozen=True):
    """A work function or object.

    Attributes:
        is_coroutine: Whether it runs on the loop; else in threads.
        takes_attempt: Whether it has a parameter named "attempt".
        code_hash: Changes with the function's code; None when it has none to look at.
    """

    call: Callable[..., Any]
    is_coroutine: bool
    takes_attempt: bool
    code_hash: bytes | None


def inspect_work(work: Any) -> Work:
    """Look at a work function.

    Raises:
        InputError: It cannot be called, or not with one item.
    """
    if not callable(work):
        msg = f"work must be a function of one item (or an object with __call__), got {work!r}"
        raise InputError(msg)
    function = _function(work)
    return Work(work, inspect.iscoroutinefunction(function), _takes_attempt(work), _hash(function))


def _function(work: Any) -> Any:
    while isinstance(work, functools.partial):
        work = work.func
    if inspect.isfunction(work) or inspect.ismethod(work) or inspect.isbuiltin(work) or inspect.isclass(work):
        return work
    return type(work).__call__


def _takes_attempt(work: Any) -> bool:
    try:
        signature = inspect.signature(work)
    except (TypeError, ValueError):
        return False  # some builtins do not say
    takes_attempt = "attempt" in signature.parameters
    try:
        signature.bind(*([None] * (2 if takes_attempt else 1)))
    except TypeError as error:
        msg = f"work must take one item (and, if it likes, attempt): {error}, got {work!r}{signature}"
        raise InputError(msg) from None
    return takes_attempt


def _hash(function: Any) -> bytes | None:
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    return None if code is None else hashlib.blake2b(repr(_facts(code)).encode(), digest_size=8).digest()


def _facts(code: CodeType) -> tuple[Any, ...]:
    """Return what makes code what it is: not its file, nor its lines."""
    return code.co_code, code.co_names, tuple(_constant(const) for const in code.co_consts)


def _constant(const: Any) -> Any:
    if isinstance(const, CodeType):
        return _facts(const)
    # A set of strings has another order in each process.
    return sorted(map(repr, const)) if isinstance(const, frozenset) else repr(const)
