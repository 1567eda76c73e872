"""A real Chromium for tests and screenshots, where there is one and something to drive it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")


def missing() -> str:
    """What is not here, of all that a test in a browser needs; nothing, if all is."""
    for module in ("gradio", "playwright"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed: pip install '.[app,browser]'"
    if executable() is None:
        return f"there is no Chromium: none of {', '.join(NAMES)} is a program here"
    return ""


def executable() -> str | None:
    """The browser's path: CHROMIUM says where it is, or else it is looked for."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's own sandbox does not work for root, as whom containers often run. It also
        # calls home, which these switches end.
        browser = playwright.chromium.launch(
            executable_path=executable(),
            args=[
                "--no-sandbox", "--disable-background-networking", "--disable-component-update",
                "--disable-dev-shm-usage", "--disable-gpu",
            ],
        )  # fmt: skip
        try:
            yield browser
        finally:
            browser.close()
