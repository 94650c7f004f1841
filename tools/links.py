"""Links of a built site: each leads to a file and an anchor that are there; the network is not asked."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

LOADED = {"script": "src", "img": "src", "source": "srcset", "iframe": "src", "video": "src"}
LOADING = ("stylesheet", "icon", "preload", "modulepreload", "preconnect")


class Page(HTMLParser):
    """What a page links to, what it loads, and the anchors that it has.

    Attributes:
        links: Addresses, as they are written.
        loads: Of these, what the browser fetches by itself.
        anchors: Names that stand after a "#".
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the addresses and the anchor of a tag."""
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and "href" in found:
            loads = any(word in LOADING for word in found.get("rel", "").split())
            (self.loads if loads else self.links).append(found["href"])
        elif tag in LOADED and found.get(LOADED[tag]):
            self.loads.append(found[LOADED[tag]])


def broken(folder: Path) -> list[str]:
    """Return a line for each link of the pages of a folder that leads nowhere, and for each load from elsewhere.

    Addresses of other sites are looked at for their form only.
    """
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for address in dict.fromkeys([*page.links, *page.loads]):
            fault = _fault(address, path, pages, is_loaded=address in page.loads)
            if fault:
                found.append(f"{path.relative_to(folder.resolve())}: {address}: {fault}")
    return found


def _fault(address: str, path: Path, pages: dict[Path, Page], *, is_loaded: bool) -> str:
    try:
        parts = urlsplit(address)
    except ValueError as error:
        return str(error)
    if parts.scheme or parts.netloc:
        return _fault_elsewhere(address, parts, is_loaded=is_loaded)
    goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if goal.is_dir():
        goal /= "index.html"
    if not goal.exists():
        return "there is no such file"
    if parts.fragment and goal in pages and unquote(parts.fragment) not in pages[goal].anchors:
        return "there is no such anchor"
    return ""


def _fault_elsewhere(address: str, parts: SplitResult, *, is_loaded: bool) -> str:
    if parts.scheme == "data":
        return ""
    if is_loaded:
        return "is loaded from another site"
    is_formed = parts.scheme == "mailto" or (parts.scheme in ("http", "https") and "." in parts.netloc)
    return "" if is_formed and " " not in address else "is no address"
