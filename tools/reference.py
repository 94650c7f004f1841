"""Reference pages of the site that are made from what the program says of itself: modules, REST, the command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ipybatch import __main__ as command

HELP_WIDTH = 100  # characters
BASE = "/ipybatch/api/v1"
MODULE = re.compile(r"^## `([\w.]+)`$", flags=re.MULTILINE)
HEADING = re.compile(r"^(#{2,4}) (`[^`\n]+`)$", flags=re.MULTILINE)
SEE = re.compile(r"^See `([\w.]+)`\.$", flags=re.MULTILINE)
COMMON = {"400", "403", "413", "415", "422", "503"}  # told once, at the head of the page
Schema = Mapping[str, Any]


def api_pages(text: str) -> dict[str, tuple[str, list[str]]]:
    """Return the page of each public module, from docs/api.md, and the anchors that it had there.

    Headings are one level higher than in docs/api.md: a name is a section of its module's page.
    """
    parts = MODULE.split(text)[1:]
    modules = dict(zip(parts[::2], parts[1::2], strict=True))
    pages: dict[str, tuple[str, list[str]]] = {}
    told: dict[str, int] = {}
    for module, body in modules.items():
        anchors = [_anchor(module, told)] + [_anchor(name, told) for _, name in HEADING.findall(body)]
        raised = HEADING.sub(lambda found: f"{found[1][1:]} {found[2]}", body)
        pages[module] = (f"# `{module}`{SEE.sub(lambda found: _see(found[1], modules), raised)}", anchors)
    return pages


def api_index(pages: Mapping[str, tuple[str, list[str]]]) -> str:
    """Return the page that lists the public modules and what each of them has."""
    told = (
        "What is listed here is public, and keeps to [semantic versions](contributing.md#versions); all else may "
        "change at any time. The pages are made from the docstrings."
    )
    out = ["# Python", told]
    for module, (text, _) in pages.items():
        names = re.findall(r"^## `(\w+)`$", text, flags=re.MULTILINE)
        told = " ".join(text.split("\n\n")[1].split())
        links = " · ".join(f"[{name}](api/{module}.md#{_slug(name)})" for name in names)
        out += [f"## [`{module}`](api/{module}.md)", told, links]
    tree = ["```{toctree}", ":hidden:", "", *[f"api/{module}" for module in pages], "```"]
    return "\n\n".join([*out, "\n".join(tree)]) + "\n"


def rest(document: Schema) -> str:
    """Return what the page of the REST API lists, from its OpenAPI document."""
    paths: Schema = document["paths"]
    schemas: Schema = document["components"]["schemas"]
    tags: dict[str, list[str]] = {}
    for path, item in paths.items():
        shared = item.get("parameters", [])
        for verb, operation in item.items():
            if verb != "parameters":
                told = "\n\n".join(_operation(verb, path, operation, shared))
                tags.setdefault(operation["tags"][0], []).append(told)
    out = [
        document["info"]["description"],
        _answers(paths),
    ]
    for tag, operations in tags.items():
        out += [f"## {tag.capitalize()}", *operations]
    out.append("## Types")
    for name, schema in sorted(schemas.items(), key=lambda entry: _type_name(entry[0])):
        out += [f"(type-{_key(name)})=\n### {_type_name(name)}", *_type(schema)]
    return "\n\n".join(out) + "\n"


def command_line() -> str:
    """Return the help of each command as sections."""
    parser = command._parser()
    out = ["## Every command", *_help(parser)]
    return "\n\n".join(out) + "\n"


def _help(parser: argparse.ArgumentParser) -> Iterator[str]:
    parser.formatter_class = _formatter(parser.formatter_class)
    yield f"### `{parser.prog.removeprefix('python -m ')}`\n\n```text\n{parser.format_help().rstrip()}\n```"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in dict.fromkeys(action.choices.values()):
                yield from _help(child)


def _formatter(kind: Any) -> Any:
    """Return a formatter that asks no terminal for its width."""

    def made(prog: str) -> argparse.HelpFormatter:
        formatter: argparse.HelpFormatter = kind(prog, width=HELP_WIDTH)
        return formatter

    return made


def _anchor(name: str, told: dict[str, int]) -> str:
    """Return the anchor that GitHub gives a heading, one after the other of the same page."""
    slug = _slug(name)
    count = told[slug] = told.get(slug, -1) + 1
    return f"{slug}-{count}" if count else slug


def _slug(name: str) -> str:
    return re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-")


def _see(dotted: str, modules: Mapping[str, str]) -> str:
    module, _, name = dotted.rpartition(".")
    if module not in modules:
        return f"See `{dotted}`."
    return f"See [`{dotted}`]({module}.md#{_slug(name)})."


def _answers(paths: Schema) -> str:
    """Return what the answers mean that nearly every operation has."""
    told: dict[str, str] = {}
    for item in paths.values():
        for verb, operation in item.items():
            if verb != "parameters":
                for code, answer in operation["responses"].items():
                    told.setdefault(code, answer["description"])
    rows = [f"| {code} | {told[code]} |" for code in sorted(COMMON & told.keys())]
    return "\n".join(["| status, of any operation | meaning |", "|---|---|", *rows])


def _operation(verb: str, path: str, operation: Schema, shared: list[Schema]) -> Iterator[str]:
    yield f"### `{verb.upper()} {path.removeprefix(BASE) or '/'}`"
    yield f"{operation['summary']}."
    if operation.get("description"):
        yield operation["description"]
    if parameters := [*shared, *operation.get("parameters", [])]:
        rows = [
            f"| `{each['name']}` | {each['in']} | {_shape(each['schema'])} | {_cell(each.get('description', ''))} |"
            for each in parameters
        ]
        yield "\n".join(["| parameter | in | | |", "|---|---|---|---|", *rows])
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"Body: `{kind}`, {_shape(content.get('schema', {}))}."
    answers = []
    for code, answer in operation["responses"].items():
        if code not in COMMON:
            shapes = [
                _shape(content["schema"]) if kind.endswith("json") and "schema" in content else f"`{kind}`"
                for kind, content in answer.get("content", {}).items()
            ]
            told = answer["description"].rstrip(".")
            answers.append(f"{code} {told}" + (f": {' or '.join(dict.fromkeys(shapes))}" if shapes else ""))
    yield "Answers: " + "; ".join(answers) + "."


def _type(schema: Schema) -> Iterator[str]:
    if told := schema.get("description"):
        yield told
    required = set(schema.get("required", ()))
    rows = [
        f"| `{name}`{'' if name in required else ', may be left out'} | {_shape(each)} | "
        f"{_cell(each.get('description', ''))} |"
        for name, each in schema.get("properties", {}).items()
    ]
    if rows:
        yield "\n".join(["| field | | |", "|---|---|---|", *rows])
    elif "properties" not in schema:
        yield _shape(schema)


def _shape(schema: Schema) -> str:
    """Return what a value may be, in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{_type_name(name)}](#type-{_key(name)})"
    if "anyOf" in schema or "oneOf" in schema:
        kinds = [_shape(each) for each in schema.get("anyOf") or schema["oneOf"]]
        return " or ".join(dict.fromkeys(kinds))
    if values := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return _cell(", ".join(f"`{value}`" for value in values))
    return _kind(schema)


def _kind(schema: Schema) -> str:
    kind = schema.get("type", "anything")
    if kind == "array":
        items = schema.get("items") or schema.get("prefixItems", [{}])[0]
        return f"list of {_shape(items)}" if items else "list"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_shape(schema['additionalProperties'])}"
    low, high = schema.get("minimum", schema.get("minLength")), schema.get("maximum", schema.get("maxLength"))
    bounds = {(True, True): f", {low} to {high}", (True, False): f", >= {low}", (False, True): f", <= {high}"}
    return str(kind) + bounds.get((low is not None, high is not None), "")


def _type_name(name: str) -> str:
    """Return a type's name; of two with the same one, the module's too."""
    *_, module, last = ("", *name.split("."))
    return f"{last} ({module})" if "." in name else last


def _key(name: str) -> str:
    return re.sub(r"\W+", "-", name).lower()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
