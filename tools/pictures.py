"""The pictures of docs/, from the real thing: sessions of `shot_states` in the built panel, and a real JupyterLab.

python -m tools.pictures                     all of them; half a minute for those of the panel, one for JupyterLab's
python -m tools.pictures panel side-bar      these, each light and dark
python -m tools.pictures panel-moving        the animation of README: one second of a short run in each picture
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tools import shot_states
from tools.chromium import ensure
from tools.shots import Studio

DOCS = Path(__file__).resolve().parents[1] / "docs"
PANEL_PX, LAB_PX, LAB_HIGH_PX = 960, 1180, 760
SCALE = 1.5  # pixels of a picture for one of the page: sharp on most screens
THEMES = ("light", "dark")
# By picture: the state of a session, and the tab that is open.
PANELS = {
    "panel": ("running", ""),
    "panel-timeline": ("breaker-open", "Timeline"),
    "panel-limits": ("breaker-open", "Limits and breaker"),
    "panel-log": ("breaker-open", "Log"),
    "panel-lanes": ("lanes", "Limits and breaker"),
    "forecast": ("forecast", ""),
    "forecast-rolled-back": ("rolled-back", ""),
    "gemini": ("gemini", ""),
}
MOVING, SIDE_BAR = "panel-moving", "side-bar"
MOMENTS_S = range(1, 31)  # of the story
FRAME_MS, LAST_MS = 400, 3000
MOST_BYTES = 1_000_000
CHANGE_THEME = "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })"

# What the side bar lists: sessions of a script, while it runs, and some that have ended; a schedule, and a template.
SCRIPT = """
import asyncio, sys
from ipybatch import BatchSession, Limits, Rate, schedules, templates

async def fetch(item):
    await asyncio.sleep(0.02)
    if item % 40 == 13:
        raise LookupError(f"404 no such game: app {item}")
    return {"item": item}

old = templates.Template(based_on="refresh", description="what nobody plays", params={"batch_size": 100})
templates.save("old games", old)
schedules.add("wishlist of the night", "old games", requests=[440, 570], every="1d", at="22:00")
for name, count in (("captions", 10), ("guild roster", 120)):
    BatchSession(name, fetch, range(count), limits=Limits(concurrency=20, batch_size=20)).run(verbose=False)
limits = Limits(concurrency=3, batch_size=15, rates=[Rate(6, per_s=2), Rate(2000, per_s=300)])
night = BatchSession("night captions", fetch, range(40), limits=limits, resource="night")
for session in (night, BatchSession("shop texts", fetch, range(160), limits=limits, resource="shop"),
                BatchSession("wishlist", fetch, range(300), limits=limits)):
    session.start()
asyncio.run(asyncio.sleep(3))
night.pause()
sys.stdin.read()
"""

T = TypeVar("T")


def apart(make: Callable[[], T]) -> T:
    """Call a function in a thread of its own: Playwright keeps a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(make).result()


def panels(browser: Browser, names: list[str]) -> Iterator[Path]:
    """Take pictures of the panel."""
    with shot_states.maker() as make:
        studios = {theme: Studio(browser, theme, "plain", scale=SCALE) for theme in THEMES}
        for name in names:
            state, tab = PANELS[name]
            shown = apart(lambda state=state: shot_states.STATES[state](make))  # type: ignore[misc]  # bound now
            for theme, studio in studios.items():
                studio.show(shown, "panel")
                if tab:
                    studio.open_tab(tab)
                path = DOCS / f"{name}-{theme}.png"
                studio.take(path, PANEL_PX)
                yield path


def moving(browser: Browser) -> Iterator[Path]:
    """Take a picture of each second of a short run, and join them."""
    with shot_states.maker() as make, tempfile.TemporaryDirectory() as folder:
        studios = {theme: Studio(browser, theme, "plain") for theme in THEMES}
        frames: dict[str, list[Path]] = {theme: [] for theme in THEMES}
        for moment_s in MOMENTS_S:
            shown = apart(lambda at_s=float(moment_s): shot_states.story(make, at_s))  # type: ignore[misc]  # bound now
            for theme, studio in studios.items():
                studio.show(shown, "panel")
                path = Path(folder) / f"{theme}-{moment_s}.png"
                studio.take(path, PANEL_PX)
                frames[theme].append(path)
        for theme, paths in frames.items():
            made = DOCS / f"{MOVING}-{theme}.webp"
            made.write_bytes(joined(paths))
            yield made


def joined(paths: list[Path]) -> bytes:
    """Return one picture that moves through these, all as large as the largest; at most a megabyte."""
    from PIL import Image

    frames = [Image.open(path).convert("RGB") for path in paths]
    size = (max(frame.width for frame in frames), max(frame.height for frame in frames))
    laid = []
    for frame in frames:
        page = Image.new("RGB", size, frame.getpixel((0, 0)))
        page.paste(frame)
        laid.append(page)
    out = io.BytesIO()
    times = [FRAME_MS] * (len(laid) - 1) + [LAST_MS]
    laid[0].save(out, "WEBP", save_all=True, append_images=laid[1:], duration=times, loop=0, lossless=True, method=6)
    if out.tell() > MOST_BYTES:
        msg = f"the animation has {out.tell():,} bytes, more than {MOST_BYTES:,}: take fewer moments"
        raise SystemExit(msg)
    return out.getvalue()


def side_bar(browser: Browser) -> Iterator[Path]:
    """Take pictures of JupyterLab: live and past sessions in the side bar, one of them as a tab."""
    from tests.browser.lab import THEMES as OF_LAB
    from tests.browser.lab import Lab

    with tempfile.TemporaryDirectory(prefix="ipybatch-lab-", ignore_cleanup_errors=True) as folder:
        lab = Lab.start(Path(folder))
        try:
            with script(Path(folder)):
                context = browser.new_context(
                    viewport={"width": LAB_PX, "height": LAB_HIGH_PX}, device_scale_factor=SCALE
                )
                page = context.new_page()
                open_session(page, f"{lab.url}/lab?token={lab.token}")
                for theme in THEMES:
                    page.evaluate(CHANGE_THEME, OF_LAB[theme])
                    is_light = str(theme == "light").lower()
                    expect(page.locator(f"body[data-jp-theme-light='{is_light}']")).to_have_count(1)
                    page.wait_for_timeout(1500)  # fonts and colours fade in
                    path = DOCS / f"{SIDE_BAR}-{theme}.png"
                    page.screenshot(path=path)
                    yield path
        finally:
            lab.stop()


def open_session(page: Page, url: str) -> None:
    """Open the side bar, and the running session as a tab."""
    page.goto(url)
    page.wait_for_function("() => window.jupyterapp?.commands.hasCommand('ipybatch:show')", timeout=60_000)
    expect(page.locator("#jupyterlab-splash")).to_have_count(0, timeout=30_000)
    page.evaluate("() => window.jupyterapp.commands.execute('ipybatch:show')")
    side = page.locator(".ib-side")
    expect(side).to_contain_text("wishlist", timeout=60_000)
    side.get_by_text("wishlist", exact=True).first.click()
    expect(page.locator(".ib-in-tab")).to_contain_text("Batch 6", timeout=60_000)


@contextmanager
def script(folder: Path) -> Iterator[None]:
    """Run a script whose sessions the server of a folder lists, until the block ends."""
    places = {
        "IPYBATCH_CONFIG": folder / "settings-of-ipybatch",
        "IPYBATCH_JOURNAL": folder / "journal.db",
        "XDG_RUNTIME_DIR": folder / "run",
    }
    environment = os.environ | {name: str(path) for name, path in places.items()}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, env=environment)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> int:
    """Take the pictures that are asked for."""
    names = [*PANELS, MOVING, SIDE_BAR]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(names)}")
    asked: Any = parser.parse_args().names or names
    if unknown := sorted(set(asked) - set(names)):
        parser.error(f"no such picture: {', '.join(unknown)}; there are {', '.join(names)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=ensure(), args=["--no-sandbox"])
        taken = panels(browser, [name for name in asked if name in PANELS])
        others = {MOVING: moving, SIDE_BAR: side_bar}
        for pictures in (taken, *[take(browser) for name, take in others.items() if name in asked]):
            for path in pictures:
                print(f"{path.relative_to(DOCS.parent)}: {path.stat().st_size / 1000:,.0f} KB", flush=True)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
