"""Pictures of the panel, without a Jupyter: the built panel.js on a bare page, fed by sessions of `shot_states`.

    python -m tools.shots                                    every state at 960 px, light and dark
    python -m tools.shots running gone --width 280 480       these states at these widths
    python -m tools.shots failed-104 --tab Errors Log        with these tabs open
    python -m tools.shots running --how forced zoom print    forced colours, 200 %, on paper; also contrast, motion
    python -m tools.shots completed --form static export     the forms without scripts
    python -m tools.shots --sheet                            and out/shots/STATE.png: all pictures of a state together

JupyterLab's own themes give the colours: light, dark, contrast (its dark high-contrast theme), or none. Panels look
as they do in a notebook, commands and questions are answered by the session, and nothing moves.
"""

from __future__ import annotations

import argparse
import base64
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from playwright.sync_api import Browser, Error, Page, sync_playwright

from ipybatch.jupyter import commands, static_html
from ipybatch.jupyter.messages import Ack
from tools.chromium import ensure
from tools.shot_states import STATES, Shown, maker

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "src" / "ipybatch" / "jupyter" / "static"
LAB_THEMES = Path(sys.prefix) / "share" / "jupyter" / "lab" / "themes" / "@jupyterlab"
THEMES = {
    "light": "theme-light-extension",
    "dark": "theme-dark-extension",
    "contrast": "theme-dark-high-contrast-extension",
    "none": "",
}
WIDTHS = (280, 480, 960, 1920)
HOWS = ("plain", "zoom", "forced", "contrast", "motion", "print")
FORMS = ("panel", "progress", "table", "breaker", "timeline", "log", "static", "export")
MARGIN_PX = 8
HEIGHT_PX = 1000

BODY = """
<!doctype html><html lang="en"><meta charset="utf-8"><title>Shot</title>
<style>{theme}</style><style>{style}</style>
<style>
:root {{ color-scheme: {scheme}; }}
html {{ font-family: var(--jp-ui-font-family, sans-serif); font-size: 13px; }}
body {{ margin: {margin}px; background: var(--jp-layout-color0, light-dark(#fff, #111)); }}
body {{ color: var(--jp-content-font-color1); }}
</style><body data-jp-theme-light="{is_light}"><main id="out">{content}</main>
"""

# A minimal host: what anywidget hands to `render`, and a kernel that can only be restarted.
HOST = """
async ([source, traits, update]) => {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const { default: widget } = await import(url);
  const handlers = new Set(), slots = new Set();
  const deliver = (message) => {
    const bytes = new TextEncoder().encode(JSON.stringify(message));
    for (const handler of [...handlers]) handler({}, [new DataView(bytes.buffer)]);
  };
  const signal = { connect: (slot) => slots.add(slot), disconnect: (slot) => slots.delete(slot) };
  const kernel = {
    status: "idle", connectionStatus: "connected", statusChanged: signal, connectionStatusChanged: signal,
    disposed: signal, clientId: "page", username: "", info: Promise.resolve({ implementation: "" }),
  };
  let seq = update.seq;
  const model = {
    get: (name) => traits[name],
    set() {},
    save_changes() {},
    on: (_, handler) => handlers.add(handler),
    off: (_, handler) => handlers.delete(handler),
    send(message) {
      if (message.kind === "hello" || message.kind === "resync") {
        queueMicrotask(() => deliver({ ...update, seq: ++seq, whole: true, pages: [message.view] }));
      } else if (message.kind === "command") {
        void window.askKernel(message.id).then((answer) => answer && deliver(JSON.parse(answer)));
      }
    },
    widget_manager: { kernel },
  };
  window.restart = () => {
    kernel.status = "restarting";
    for (const slot of [...slots]) slot(kernel, "restarting");
  };
  await widget.initialize?.({ model });
  await widget.render({ model, el: document.getElementById("out") });
}
"""
# Twice: what the first frame measures is drawn by the second.
SETTLED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 30))))"


class Studio:
    """A page in one theme and manner, in which states are shown one after the other."""

    def __init__(self, browser: Browser, theme: str, how: str, *, scale: float = 1) -> None:
        context = browser.new_context(
            viewport={"width": 960, "height": HEIGHT_PX},
            device_scale_factor=scale,
            color_scheme="light" if theme == "light" else "dark" if theme in ("dark", "contrast") else None,
            forced_colors="active" if how == "forced" else None,
            contrast="more" if how == "contrast" else None,
            reduced_motion="no-preference" if how == "motion" else "reduce",
        )
        self.page: Page = context.new_page()
        self.theme, self.how = theme, how
        self.session: Any = None
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.expose_function("askKernel", self.answer)

    def answer(self, command: str) -> str:
        """Do what a button or a question wants, as the kernel does."""
        try:
            said: Any = commands.execute(self.session, command)
        except Exception as error:  # shown in the panel
            said = Ack(id=command, ok=False, done=True, text=commands.describe(error))
        return msgspec.json.encode(said).decode()

    def show(self, shown: Shown, form: str) -> None:
        """Bring a state to the page, in one of the forms."""
        self.session = shown.session
        if form == "export":
            path = self.session.export_html(Path(self.session._journal.path).with_suffix(".html"))
            self.page.set_content(path.read_text(encoding="utf-8"))
            return
        content = static_form(self.session) if form == "static" else ""
        style = (STATIC / "panel.css").read_text(encoding="utf-8")
        theme = LAB_THEMES / THEMES[self.theme] / "index.css"
        scheme = "light dark" if self.theme == "none" else "light" if self.theme == "light" else "dark"
        self.page.set_content(
            BODY.format(
                theme=theme.read_text(encoding="utf-8") if THEMES[self.theme] else "",
                style=style if form != "static" else "",
                scheme=scheme,
                margin=MARGIN_PX,
                is_light=str(self.theme == "light").lower(),
                content=content,
            )
        )
        if form == "static":
            return
        traits = {
            "panel_id": f"shot{time.monotonic_ns()}",
            "view": form,
            "initial": msgspec.json.encode(shown.update).decode(),
        }
        source = (STATIC / "panel.js").read_text(encoding="utf-8")
        self.page.evaluate(HOST, [source, traits, msgspec.to_builtins(shown.update)])
        self.settle()
        if shown.after:
            self.page.evaluate(shown.after)
            self.settle()

    def open_tab(self, name: str) -> bool:
        """Open a tab of the panel; return whether it has one of that name."""
        tab = self.page.get_by_role("tab", name=name)
        if not tab.count():
            return False
        tab.first.click()
        self.settle()
        return True

    def settle(self) -> None:
        """Wait until what changed is drawn."""
        self.page.evaluate(SETTLED)

    def take(self, path: Path, width: int) -> None:
        """Keep a picture, at a width of the panel."""
        if self.how == "print":
            self.page.emulate_media(media="print")
        zoom = 2 if self.how == "zoom" else 1  # a browser's zoom halves what a page is wide
        self.page.set_viewport_size({"width": width // zoom + 2 * MARGIN_PX, "height": HEIGHT_PX})
        self.settle()
        body = self.page.evaluate("() => Math.ceil(document.body.getBoundingClientRect().bottom)") + MARGIN_PX
        wide = self.page.evaluate("() => document.documentElement.scrollWidth")
        if wide > width // zoom + 2 * MARGIN_PX:
            print(f"{path.name}: {wide} px wide, wider than its place")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path, full_page=True, clip={"x": 0, "y": 0, "width": wide, "height": max(40, body)})
        if self.how == "print":
            self.page.emulate_media(media="null")


def static_form(session: Any) -> str:
    """Return what a front end without widgets is given."""
    from ipybatch.jupyter.messages import is_untold

    policy = session.policy
    has_breaker = policy.breaker is not None and not is_untold(session)
    return static_html.output(session.snapshot, session.summary, policy.group_word, has_breaker=has_breaker)


def sheet(browser: Browser, paths: Iterable[Path], out: Path) -> None:
    """Lay pictures out in one."""
    cells = [
        f"<figure><figcaption>{path.stem}</figcaption><img src='data:image/png;base64,"
        f"{base64.b64encode(path.read_bytes()).decode()}'></figure>"
        for path in paths
    ]
    style = "body{margin:0;background:#888;display:flex;flex-wrap:wrap;gap:8px;align-items:start;font:12px sans-serif}"
    style += "figure{margin:8px}img{display:block;max-width:1900px}"
    page = browser.new_page(viewport={"width": 1960, "height": 400})
    page.set_content(f"<style>{style}</style>{''.join(cells)}")
    page.screenshot(path=out, full_page=True)
    page.close()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("states", nargs="*", metavar="STATE", help=f"default: all of {', '.join(STATES)}")
    parser.add_argument("--width", nargs="+", type=int, default=[960], metavar="PX", help=f"such as {WIDTHS}")
    parser.add_argument("--theme", nargs="+", choices=THEMES, default=["light", "dark"])
    parser.add_argument("--how", nargs="+", choices=HOWS, default=["plain"])
    parser.add_argument("--form", nargs="+", choices=FORMS, default=["panel"])
    parser.add_argument("--tab", nargs="+", default=[""], metavar="NAME", help="open this tab before")
    parser.add_argument("--do", default="", metavar="SCRIPT", help="JavaScript to run on the page before each picture")
    parser.add_argument("--sheet", action="store_true", help="also lay the pictures of a state out in one")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "shots", metavar="FOLDER")
    asked = parser.parse_args()
    unknown = [state for state in asked.states if state not in STATES]
    if unknown:
        parser.error(f"no such state: {', '.join(unknown)}; there are {', '.join(STATES)}")
    return asked


def main() -> int:
    """Take the pictures that are asked for; return 1 when a page had an error."""
    asked = arguments()
    faults: list[str] = []
    with sync_playwright() as playwright, maker() as make:
        # Not on a loop of ours: Playwright keeps one in this thread, beside which no session could run.
        browser = playwright.chromium.launch(executable_path=ensure(), args=["--no-sandbox"])
        studios = {(theme, how): Studio(browser, theme, how) for theme in asked.theme for how in asked.how}
        for state in asked.states or STATES:
            taken: list[Path] = []
            shown = made_apart(state, make)
            for (theme, how), studio in studios.items():
                for form in asked.form:
                    for tab in asked.tab:
                        studio.show(shown, form)
                        if tab and not studio.open_tab(tab):
                            print(f"{state}: no tab {tab!r}")
                            continue
                        if asked.do:
                            studio.page.evaluate(asked.do)
                        for width in asked.width:
                            words = [state, *([form] if form != "panel" else []), *([tab] if tab else [])]
                            words += [str(width), theme, *([how] if how != "plain" else [])]
                            path = asked.out / ("-".join(words).replace(" ", "_").lower() + ".png")
                            studio.take(path, width)
                            taken.append(path)
            if asked.sheet:
                sheet(browser, taken, asked.out / f"{state}.png")
            print(f"{state}: {len(taken)} pictures in {asked.out}", flush=True)
        for (theme, how), studio in studios.items():
            faults += [f"{theme} {how}: {fault}" for fault in studio.faults]
        with suppress(Error):
            browser.close()
    print(*faults, sep="\n", file=sys.stderr)
    return 1 if faults else 0


def made_apart(state: str, make: Any) -> Shown:
    """Make a state in a thread of its own: Playwright keeps a loop running in this one."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(STATES[state], make).result()


if __name__ == "__main__":
    sys.exit(main())
