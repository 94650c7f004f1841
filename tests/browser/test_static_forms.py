"""The static forms in pixels: what is seen of them where no kernel is.

Each case of `static_cases` is drawn as every front end draws it: as it is, without any style (GitHub), through
JupyterLab's own sanitizer and in its styles, in nbconvert's pages, as the page of its own, and printed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbconvert import HTMLExporter

from ipybatch.jupyter import static_html, static_page
from tests.browser.static_cases import cases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from tests.browser.lab import Lab

CASES = cases()
WIDTHS = (1000, 480)  # of what holds the form
ROW_PX = 29  # of one line
DOCUMENT = '<!doctype html><html><head><meta charset="utf-8"></head><body style="margin:0">{}</body></html>'
# JupyterLab's sanitizer is found by its name: the token of it cannot be had from outside.
SANITIZE = """sources => {
  const name = '@jupyterlab/apputils-extension:sanitizer';
  const {provides} = [...app.pluginRegistry._plugins.values()].find(({id}) => id === name);
  return app.resolveRequiredService(provides).then(its => sources.map(source => its.sanitize(source)));
}"""
# Of each bar its segments, of each table its rows and columns, and what is beyond its form or cut unsaid.
MEASURE = """form => {
  const box = node => node.getBoundingClientRect(), all = (node, tags) => [...node.querySelectorAll(tags)];
  const share = node => Number(getComputedStyle(node).flexGrow);
  const bars = all(form, 'div').filter(node => getComputedStyle(node).display === 'flex');
  const segments = bars.map(bar => [...bar.children].filter(share).map(node => ({
    width: box(node).width, top: box(node).top - box(bar).top, height: box(node).height, share: share(node),
    colour: getComputedStyle(node).borderTopColor, whole: box(bar).width})));
  const tables = all(form, 'table').filter(table => table.querySelector('col'));
  const rows = tables.map(table => ({
    heights: all(table, 'tr').map(row => box(row).height),
    widths: all(table, 'thead th').map(cell => [cell.innerText, box(cell).width]),
    isCut: !table.querySelector('.whole')}));
  const scrolls = node => node.closest('[style*="overflow-x"], .box');
  const right = box(form).right + 1;
  const outside = all(form, '*').filter(node => box(node).width && !scrolls(node) && box(node).right > right);
  const cells = tables.flatMap(table => all(table, 'td, th'));
  const cut = cells.filter(cell => cell.scrollWidth > cell.clientWidth + 1);
  const untitled = cut.filter(cell => !cell.title && !cell.querySelector('[title]'));
  const told = nodes => nodes.map(node => node.outerHTML.slice(0, 300));
  const beyond = form.scrollWidth - form.clientWidth;
  return {segments, rows, outside: told(outside), untitled: told(untitled), beyond};
}"""
BROKEN = """() => [...document.querySelectorAll('td[nowrap]')].filter(cell => {
  const range = new Range();
  range.selectNodeContents(cell);
  return new Set([...range.getClientRects()].map(({bottom}) => bottom)).size > 2;
}).map(cell => cell.outerHTML)"""
CUT_IN_PRINT = r"""() => [...document.querySelectorAll('td')].filter(cell =>
  cell.scrollWidth > cell.clientWidth + 1 && !/\p{M}{9}/u.test(cell.innerText)).map(cell => cell.outerHTML)"""
SHOW = """html => {
  document.querySelector('#forms')?.remove();
  const node = document.createElement('div');
  node.id = 'forms';
  node.innerHTML = html;
  node.style.cssText = 'position:absolute;inset:0;z-index:9999;overflow:auto;background:var(--jp-layout-color0)';
  document.body.append(node);
}"""


def outputs() -> dict[str, str]:
    """Return the output of each case, as HTML."""
    return {name: static_html.output(facts.snapshot, facts.summary, facts.group_word) for name, facts in CASES.items()}


def framed(sources: dict[str, str], width: int, class_name: str = "") -> str:
    """Return the forms one below the other, each in a frame of that width."""
    frame = f'<div class="form {class_name}" style="width:{width}px">'
    return "".join(f"{frame}{source}</div>" for source in sources.values())


def measured(page: Page, frames: str = ".form") -> dict[str, Any]:
    """Return what each form measures, by case."""
    found = page.locator(frames).all()
    assert len(found) == len(CASES)
    return {name: form.evaluate(MEASURE) for name, form in zip(CASES, found, strict=True)}


def check(forms: dict[str, Any]) -> None:
    """Refuse bars that are not their shares, rows of more than a line, and what is beyond its form or cut unsaid."""
    for name, form in forms.items():
        check_bar(name, *form["segments"])
        assert form["outside"] == [], name
        assert form["untitled"] == [], name
        assert form["beyond"] <= 0, name
        for rows in form["rows"]:
            assert not rows["isCut"] or max(rows["heights"]) <= ROW_PX, name
            assert all(width >= 40 for _, width in rows["widths"]), (name, rows["widths"])
            assert all(width >= 150 for title, width in rows["widths"] if title == "Error"), (name, rows["widths"])


def check_bar(name: str, segments: list[dict[str, Any]]) -> None:
    """Refuse a bar whose segments are not as wide as their shares, or too narrow to be seen."""
    counts = CASES[name].snapshot.counts
    shares = [counts.completed, counts.failed, counts.timeout, counts.running, counts.cancelled, counts.skipped]
    shares = [share for share in (*shares, counts.pending) if share] if counts.total else [1]
    assert [segment["share"] for segment in segments] == shares, name
    assert len({segment["colour"] for segment in segments}) == len(segments) - (counts.cancelled > 0 < counts.skipped)
    taken_px = 3 * len(segments)  # by gaps and least widths, at most
    for segment in segments:
        assert (segment["top"], segment["height"]) == (0, 8), (name, segment)
        share_px = (segment["whole"] - len(segments) + 1) * segment["share"] / sum(shares)
        most_px = max(2.0, share_px)
        assert max(2.0, share_px - taken_px) <= round(segment["width"], 1) <= round(most_px + 0.1, 1), (name, segment)


@pytest.fixture(scope="module")
def lab_page(browser: Browser, lab: Lab) -> Iterator[Page]:
    """JupyterLab without a notebook: its sanitizer, its styles, its themes."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{lab.url}/lab/workspaces/static?reset&token={lab.token}")
    page.wait_for_function("() => window.jupyterapp?.restored")
    page.evaluate("async () => { await jupyterapp.restored; window.app = jupyterapp }")
    yield page
    context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_as_it_is(page: Page, width: int) -> None:
    """As VS Code and plain pages show it."""
    page.set_content(DOCUMENT.format(framed(outputs(), width)))
    check(measured(page))


@pytest.mark.parametrize("width", WIDTHS)
def test_in_jupyterlab_of_an_untrusted_notebook(lab_page: Page, width: int) -> None:
    """After its sanitizer and in its styles, light and dark: nothing of the form depends on what it takes away."""
    sources = outputs()
    kept = dict(zip(sources, lab_page.evaluate(SANITIZE, list(sources.values())), strict=True))
    lab_page.evaluate(SHOW, framed(kept, width, "jp-RenderedHTMLCommon jp-RenderedHTML"))
    check(measured(lab_page))


@pytest.mark.parametrize("template", ["lab", "classic"])
def test_in_a_page_of_nbconvert(page: Page, template: str) -> None:
    """Neither its styles nor those of print change what is seen."""
    cells = [
        nbformat.v4.new_code_cell(name, outputs=[nbformat.v4.new_output("display_data", {"text/html": source})])
        for name, source in outputs().items()
    ]
    exporter = HTMLExporter(template_name=template, require_js_url="", mathjax_url="", jquery_url="")
    converted, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=cells))
    page.set_content(converted, wait_until="domcontentloaded")
    for medium in ("screen", "print"):
        page.emulate_media(media=medium)
        check(measured(page, ".output_html:has(table), .jp-RenderedHTML:has(table)"))


@pytest.mark.parametrize("width", WIDTHS)
def test_without_any_style(page: Page, width: int) -> None:
    """As GitHub shows it: the bar is one line of text, and status and numbers are not broken."""
    bare = {name: re.sub(r' style="[^"]*"', "", source) for name, source in outputs().items()}
    page.set_content(DOCUMENT.format(framed(bare, width)))
    assert page.evaluate(BROKEN) == []
    for name, facts in CASES.items():
        bars = re.findall("[█▚▞▓▒░]+", re.sub("<[^>]*>", "", bare[name]))
        assert list(map(len, bars)) == ([] if facts.snapshot.counts.total is None else [40]), name


def test_as_a_page_of_its_own(page: Page) -> None:
    """At most as wide as the window; printed, nothing is cut."""
    for name, facts in CASES.items():
        page.set_content(static_page.page(facts, []).replace("<main>", '<main class="form">'))
        check({name: page.locator(".form").evaluate(MEASURE)})
        page.emulate_media(media="print")
        assert page.evaluate(CUT_IN_PRINT) == [], name
        page.emulate_media(media="screen")
