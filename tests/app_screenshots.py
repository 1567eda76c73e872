"""Draws the screenshots of docs/app.md: ``python tests/app_screenshots.py``, from the root.

It wants what the tests in a browser want. Nothing else is written.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import browser
from PIL import Image

from captum_pullback.app import command as app
from captum_pullback.app.server import serving
from captum_pullback.commands.parser import parser

IMAGES = Path(__file__).parents[1] / "docs" / "images"
PATIENCE = 60_000


def main() -> None:
    """Three pictures: light, dark, and on a narrow screen."""
    given: argparse.Namespace = parser().parse_args(["app"])
    with (
        serving(app._networks(given), app._samples()) as url,
        browser.chromium() as chromium,
    ):
        page = visit(chromium, url, 1280, 860, "light")
        save(page, "app-light")
        page = visit(chromium, url, 1280, 860, "dark")
        page.locator('[data-pick="chelsea"]').click()
        page.locator("#cp-answers:not(.cp-old) header p", has_text="chelsea").wait_for(
            timeout=PATIENCE
        )
        page.get_by_role("tab", name="Ascend").click()
        page.locator("#cp-ascend").click()
        page.locator("#cp-ascents .cp-curve").wait_for(timeout=PATIENCE)
        save(page, "app-dark")
        page = visit(chromium, url, 390, 844, "light")
        page.locator("#cp-show label").nth(1).click()
        page.locator("#cp-answers img.cp-exact").first.wait_for(state="detached", timeout=PATIENCE)
        save(page, "app-narrow")


def visit(chromium: Any, url: str, width: int, height: int, scheme: str) -> Any:
    """A page that has settled."""
    page = chromium.new_page(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        device_scale_factor=1.5,
    )
    page.goto(url)
    page.wait_for_function(
        "document.querySelector('#cp-answers .cp-figures') && !document.querySelector("
        "'.cp-blank, .cp-old, .cp-wait, .cp-progress')",
        timeout=PATIENCE,
    )
    return page


def save(page: Any, name: str) -> None:
    """What the window shows, in 256 colors, which a page of few has not many more than."""
    page.mouse.move(5, 5)
    page.evaluate("document.fonts.ready")
    page.wait_for_timeout(600)
    with Image.open(io.BytesIO(page.screenshot())) as image:
        small = image.convert("RGB").quantize(256, kmeans=2, dither=Image.Dither.NONE)
    small.save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
