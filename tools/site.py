"""Build the documentation site into out/docs, warnings as errors, and check every link of it.

    python -m tools.site

The pages are those of GitHub: Markdown in docs/, the notebooks, and a few files of the project's root.  A copy of
them goes to out/docs-source, in which what Sphinx reads differently is written for it: pictures for light and dark,
links out of docs/, and the order of the pages, which is that of the links in docs/index.md.  Some reference pages are
made on the way, by `tools.reference`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from tools import reference
from tools.links import broken
from tools.notebooks import CHART

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SOURCE, TREES, TARGET = (ROOT / "out" / name for name in ("docs-source", "docs-trees", "docs"))
OPENAPI = ROOT / "src" / "ipybatch" / "server" / "openapi.json"

PICTURE = re.compile(
    r"<picture>(?P<sources>(?:\s*<source [^>]*>)+)\s*"
    r"<img alt=\"(?P<told>[^\"]*)\" src=\"(?P<light>[^\"]+)\">\s*</picture>"
)
PICTURE_SOURCE = re.compile(r"<source media=\"([^\"]*)\" srcset=\"([^\"]+)\">")
# Code, which stays as it is; a link within this project, which has no scheme; the same as a definition.
READ = re.compile(
    r"(?P<code>^ *```.*?^ *```|`[^`\n]+`)"
    r"|\[(?P<text>(?:[^\[\]`]|`[^`\n]+`)*)\]\((?P<to>[^()\s#:]*)(?P<anchor>#[^()\s]*)?\)"
    r"|^\[(?P<name>[^\]]+)\]: (?P<goal>[^\s#:]*)(?P<place>#\S*)?$",
    flags=re.DOTALL | re.MULTILINE,
)
FOR_TESTS = re.compile(r"^# NBVAL_\w+\n?", flags=re.MULTILINE)  # what a comparison of outputs is told
SECTION = re.compile(r"^## (.+)$", flags=re.MULTILINE)
API = "api.md"


def plan() -> dict[Path, str]:
    """Return where on the site each file goes that is a page, or that pages show."""
    places = {path: path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*")) if path.is_file()}
    places = {path: place for path, place in places.items() if not place.startswith(("_static/", "conf.py", "__"))}
    places |= {path: f"notebooks/{path.name}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    places |= {path: f"{path.stem.lower()}.md" for path in sorted(ROOT.glob("*.md")) if path.name != "README.md"}
    return places | {OPENAPI: OPENAPI.name}


def assemble(places: Mapping[Path, str], source: Path) -> None:
    """Write what Sphinx reads, and nothing else, to a folder."""
    shutil.rmtree(source, ignore_errors=True)
    texts: dict[str, str] = {}
    for path, place in places.items():
        if path.suffix == ".md":
            texts[place] = path.read_text(encoding="utf-8")
        elif path.suffix != ".ipynb":
            (source / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, source / place)
    modules = reference.api_pages(texts.pop(API))
    homes = {anchor: f"api/{name}.md" for name, (_, anchors) in modules.items() for anchor in anchors}
    for path, place in places.items():
        if place in texts:
            texts[place] = for_sphinx(texts[place], path, places, homes)
        elif path.suffix == ".ipynb":
            write(source / place, notebook_for_sphinx(path, places, homes))
    texts["index.md"] = with_order(texts["index.md"])
    texts["command-line.md"] += "\n" + reference.command_line()
    texts["rest.md"] += "\n" + reference.rest(json.loads(OPENAPI.read_text(encoding="utf-8")))
    texts |= {API: reference.api_index(modules)} | {f"api/{name}.md": text for name, (text, _) in modules.items()}
    for place, text in texts.items():
        write(source / place, text)


def for_sphinx(text: str, path: Path, places: Mapping[Path, str], homes: Mapping[str, str]) -> str:
    """Return a page with pictures and links as Sphinx reads them; code stays as it is.

    Args:
        text: The page.
        path: Where the page lies in the project.
        places: Where on the site files of the project are.
        homes: The page of each anchor of api.md, which is split.

    Raises:
        SystemExit: A link leads to nothing.
    """

    def read(found: re.Match[str]) -> str:
        if found["code"]:
            return found[0]
        to = found["to"] if found["name"] is None else found["goal"]
        anchor = (found["anchor"] if found["name"] is None else found["place"]) or ""
        link = anchor if not to else resolved(to, anchor, path, places, homes)
        if found["name"] is not None:
            return f"[{found['name']}]: {link}"
        return f"[{found['text']}]({link})" if link else found["text"]

    return READ.sub(read, PICTURE.sub(pictures, text))


def resolved(to: str, anchor: str, path: Path, places: Mapping[Path, str], homes: Mapping[str, str]) -> str:
    """Return a link of a page of the project as one of the site; "" for a file that is no part of it.

    Raises:
        SystemExit: There is no such file.
    """
    goal = (path.parent / to).resolve()
    place = places.get(goal)
    if place is None:
        if goal.exists():
            return ""
        msg = f"{path.relative_to(ROOT)}: {to} is not there"
        raise SystemExit(msg)
    if place == API and anchor:
        place = homes.get(anchor[1:], place)
    return Path(os.path.relpath(place, Path(places[path]).parent)).as_posix() + anchor


def pictures(found: re.Match[str]) -> str:
    """Return the pictures of which the theme, and what the reader wants to see move, show one."""
    sources = [("", found["light"]), *PICTURE_SOURCE.findall(found["sources"])]
    has_stills = any("reduced-motion" in media for media, _ in sources)
    made = []
    for media, source in sources:
        classes = ["only-dark" if "dark" in media else "only-light"]
        classes += [("still" if "reduced-motion" in media else "moving")] * has_stills
        made.append(f"```{{image}} {source}\n:alt: {found['told']}\n:class: {' '.join(classes)}\n```")
    return "\n\n".join(made)


def notebook_for_sphinx(path: Path, places: Mapping[Path, str], homes: Mapping[str, str]) -> str:
    """Return a notebook with the links of its text as those of the site, and its charts as the pictures beside them."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(CHART, None)
        if cell["cell_type"] == "code":
            cell["source"] = FOR_TESTS.sub("", "".join(cell["source"]))
        if cell["cell_type"] == "markdown":
            cell["source"] = for_sphinx("".join(cell["source"]), path, places, homes)
    return json.dumps(notebook)


def with_order(text: str) -> str:
    """Return the first page with the pages that each of its sections links to, in that order, for the side bar."""
    parts = SECTION.split(text)
    out = ["```{rst-class} first-page\n```\n\n", parts[0]]  # for its style
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        entries: dict[str, str] = {}
        for found in READ.finditer(body):
            if found["to"]:
                entries.setdefault(Path(found["to"]).with_suffix("").as_posix(), found["text"])
        told = [f"{name} <{page}>" for page, name in entries.items()]
        tree = ["```{toctree}", ":hidden:", f":caption: {title}", "", *told, "```"]
        out.append(f"## {title}{body.rstrip()}\n\n" + "\n".join(tree) + "\n\n")
    return "".join(out)


def write(path: Path, text: str) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def sphinx(arguments: Iterable[str]) -> int:
    """Run Sphinx; 0 when there was nothing to warn of."""
    from sphinx.cmd.build import main as build

    return int(build(list(arguments)))


def main() -> int:
    """Build the site; return 1 when there was a warning, or a link leads nowhere."""
    assemble(plan(), SOURCE)
    for folder in (TARGET, TREES):
        shutil.rmtree(folder, ignore_errors=True)
    folders = [str(each) for each in (SOURCE, TARGET)]
    warned = sphinx(["-b", "html", "-W", "--keep-going", "-q", "-c", str(DOCS), "-d", str(TREES), *folders])
    lost = broken(TARGET) if warned in (0, 1) else []  # 2: there is no site
    print(*lost, sep="\n", end="\n" * bool(lost), file=sys.stderr)
    if not (warned or lost):
        print(f"{sum(1 for _ in TARGET.rglob('*.html'))} pages: {TARGET.relative_to(ROOT) / 'index.html'}")
    return 1 if warned or lost else 0


if __name__ == "__main__":
    sys.exit(main())
