"""What a public function raises, its docstring says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "ipybatch"
MODULES = {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text("utf-8")) for path in SOURCE.rglob("*.py")}
CONSTRUCTORS = ("__init__", "__post_init__")  # what they raise stands in the docstring of the class
Function = ast.FunctionDef | ast.AsyncFunctionDef


BASES = {
    node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
    for tree in MODULES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.ClassDef)
}


def kinds_of(name: str) -> set[str]:
    """The name of a class and of all that it is derived from."""
    return {name}.union(*map(kinds_of, BASES.get(name, ())))


ERRORS = {name for name in BASES if "BatchError" in kinds_of(name)}  # those outside errors.py included


def name_of(error: ast.expr | None) -> str:
    """The class of an error that is raised or caught, by its last name."""
    if isinstance(error, ast.Call):
        error = error.func
    return error.attr if isinstance(error, ast.Attribute) else getattr(error, "id", "")


def caught(handlers: list[ast.ExceptHandler]) -> set[str]:
    """The classes that the handlers of a ``try`` catch."""
    kinds = [handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type] for handler in handlers]
    return {name_of(kind) or "Exception" for some in kinds for kind in some}


def raised(node: ast.AST) -> set[str]:
    """The errors of ours that leave a body which raises them itself, those of functions in it left out."""
    if isinstance(node, ast.Raise):
        return {name_of(node.exc)} & ERRORS
    inner = [
        child for child in ast.iter_child_nodes(node) if not isinstance(child, Function | ast.Lambda | ast.ClassDef)
    ]
    if not isinstance(node, ast.Try):
        return set().union(*map(raised, inner))
    stopped = caught(node.handlers)
    body = set() if "Exception" in stopped else set().union(*map(raised, node.body))
    body = {error for error in body if not kinds_of(error) & stopped}
    return body.union(*map(raised, [*node.handlers, *node.orelse, *node.finalbody]))


def told(docstring: str | None) -> set[str]:
    """What stands under Raises."""
    section = re.search(r"^Raises:\n((?: +.*\n?)+)", docstring or "", flags=re.MULTILINE)
    return set(re.findall(r"^    (\w+):", section[1], flags=re.MULTILINE)) if section else set()


def silent(tree: ast.Module) -> Iterator[str]:
    """Yield each public function of a module that raises an error and names neither it nor a base of it."""
    for node in tree.body:
        if isinstance(node, Function):
            yield from missing(node.name, node, node)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for member in node.body:
                if isinstance(member, Function):
                    is_made = member.name in CONSTRUCTORS
                    yield from missing(f"{node.name}.{member.name}", member, node if is_made else member)


def missing(name: str, function: Function, documented: Function | ast.ClassDef) -> Iterator[str]:
    if function.name.startswith("_") and function.name not in CONSTRUCTORS:
        return
    known = told(ast.get_docstring(documented))
    lacking = {error for error in raised(function) if not kinds_of(error) & known}
    if lacking:
        yield f"{name} raises {', '.join(sorted(lacking))}"


@pytest.mark.parametrize("path", sorted(MODULES))
def test_docstring_names_what_the_body_raises(path: str) -> None:
    assert list(silent(MODULES[path])) == []


def test_a_silent_function_is_found() -> None:
    tree = ast.parse(
        "def base():\n '''Do.\n\n Raises:\n     ItemError: Always.\n '''\n raise Permanent('x')\n"
        "def told():\n '''Do.\n\n Raises:\n     InputError: Always.\n '''\n raise InputError\n"
        "def silent():\n '''Do.'''\n def inner():\n  raise Refused('x')\n raise errors.InputError('x')\n"
        "class Thing:\n '''A thing.'''\n def __post_init__(self):\n  raise Permanent('x')\n"
        "def other():\n raise ValueError\n"
        "def caught():\n try:\n  raise Permanent('x')\n except (KeyError, ItemError):\n  pass\n"
        "def handing_on():\n '''Do.'''\n try:\n  pass\n except Exception:\n  raise Transient('x') from None\n"
    )
    assert list(silent(tree)) == [
        "silent raises InputError",
        "Thing.__post_init__ raises Permanent",
        "handing_on raises Transient",
    ]
