"""The built panel on a bare page, in a host that has little more than anywidget's protocol asks for: no Jupyter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tools.shot_states import maker
from tools.shots import Studio, made_apart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from tools.shot_states import Shown


@pytest.fixture(scope="module")
def opened() -> Iterator[Shown]:
    """A session whose breaker is open."""
    with maker() as make:
        yield made_apart("breaker-open", make)


def style(studio: Studio, selector: str, name: str) -> str:
    """Return a computed style of the first element that a selector finds."""
    value: str = studio.page.locator(selector).first.evaluate(f"node => getComputedStyle(node).{name}")
    return value


@pytest.mark.parametrize("theme", ["light", "dark", "contrast", "none"])
def test_it_is_drawn_and_a_button_is_answered(browser: Browser, opened: Shown, theme: str) -> None:
    studio = Studio(browser, theme, "plain")
    studio.show(opened, "panel")
    expect(studio.page.locator(".ib-state").first).to_contain_text("running")
    studio.page.locator(".ib-pause").click()
    expect(studio.page.locator(".ib-said").first).not_to_be_empty()
    assert studio.faults == []
    studio.page.context.close()


def test_forced_colours_leave_every_state_a_shape(browser: Browser, opened: Shown) -> None:
    """Backgrounds are forced away, and with them what only they told."""
    studio = Studio(browser, "light", "forced")
    studio.show(opened, "panel")
    filled = style(studio, ".ib-pips i[data-on]", "backgroundColor")
    assert filled == style(studio, ".ib-pips i[data-on]", "borderTopColor") == style(studio, ".ib-panel", "color")
    assert "repeating-linear-gradient" in style(studio, ".ib-bar i.ib-bad", "backgroundImage")
    chosen, other = '[role="tab"][aria-selected="true"]', '[role="tab"][aria-selected="false"]'
    assert style(studio, chosen, "borderBottomWidth") != style(studio, other, "borderBottomWidth")
    studio.page.context.close()


def test_nothing_moves_for_who_asked_for_that(browser: Browser, opened: Shown) -> None:
    still, moving = Studio(browser, "light", "plain"), Studio(browser, "light", "motion")
    for studio in (still, moving):
        studio.show(opened, "panel")
    names = [style(studio, ".ib-state .ib-icon", "animationName") for studio in (still, moving)]
    assert names == ["none", "ipybatch-pulse"]
    for studio in (still, moving):
        studio.page.context.close()


def test_a_dark_panel_is_printed_black_on_white_with_its_bars(browser: Browser, opened: Shown) -> None:
    studio = Studio(browser, "dark", "print")
    studio.show(opened, "panel")
    studio.page.emulate_media(media="print")
    assert style(studio, ".ib-panel", "backgroundColor") == "rgb(255, 255, 255)"
    assert style(studio, ".ib-bar i.ib-ok", "printColorAdjust") == "exact"
    for name in ("pause", "cancel", "tabs", "copy"):
        expect(studio.page.locator(f".ib-{name}").first).to_be_hidden()
    studio.page.context.close()
