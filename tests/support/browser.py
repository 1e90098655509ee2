"""A real Chromium, and pages that fail their test for an error in the console or a request to another host."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

CHROMIUM = "CONVOY_TEST_CHROMIUM"
SCREENSHOTS = "CONVOY_TEST_SCREENSHOTS"
_ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
_AXE = Path(__file__).parent / "axe" / "axe-4.14.1.min.js"
# Chromium itself reports a response of 400 or above, which several tests provoke.
_FAILED_RESPONSE = "Failed to load resource"


expect.set_options(timeout=30_000)  # milliseconds; the machine may be busy

needs_chromium = pytest.mark.skipif(CHROMIUM not in os.environ, reason=f"{CHROMIUM} does not name a Chromium")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yields the browser that CONVOY_TEST_CHROMIUM names."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ[CHROMIUM], args=_ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, *, dark: bool = False, width: int = 1100) -> Iterator[Page]:
    """Yields the page at url. Fails for errors in the console, exceptions, and requests to other hosts."""
    faults: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(_FAILED_RESPONSE):
            faults.append(message.text)

    def on_request(request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in {"blob", "data"} and address.netloc != urlsplit(url).netloc:
            faults.append(f"a request to {request.url}")

    context = browser.new_context(
        color_scheme="dark" if dark else "light", viewport={"width": width, "height": 900}, reduced_motion="reduce"
    )
    page = context.new_page()
    page.on("console", on_console)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", on_request)
    page.goto(url)
    yield page
    context.close()
    assert faults == []


def serious_findings(page: Page) -> list[str]:
    """Returns axe's findings of impact serious or critical."""
    page.evaluate(_AXE.read_text())
    result: dict[str, Any] = page.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [
        f"{finding['id']}: {node['html']}"
        for finding in result["violations"]
        if finding["impact"] in {"serious", "critical"}
        for node in finding["nodes"]
    ]


def overflow(page: Page) -> int:
    """Returns by how many pixels the page is wider than the window."""
    pixels: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return pixels


def take_screenshot(page: Page, name: str, folder: Path) -> None:
    """Writes name.png to the folder in CONVOY_TEST_SCREENSHOTS, or to the given one."""
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=Path(os.environ.get(SCREENSHOTS) or folder) / f"{name}.png")
