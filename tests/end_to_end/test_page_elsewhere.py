"""The page below a path of a proxy, and calls from the page of another site, in a real browser."""

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from typing import Any

import pytest
from playwright.sync_api import Browser, FilePayload, expect

from tests.support.browser import chromium, needs_chromium, opened
from tests.support.bundles import solid, write_bundle
from tests.support.http_requests import b64
from tests.support.http_server import QuietHandler, http_server
from tests.support.service_process import Service, serving
from tests.support.stripping_proxy import stripping_proxy

pytestmark = needs_chromium

PREFIX = "/tools/convoy"
CALL = """async ([url, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const form = new FormData();
  form.append("files", new Blob([bytes]), "red.png");
  const headers = { "X-API-Key": "key", "X-Request-ID": "from-a-page" };
  try {
    const response = await fetch(url + "/predict", { method: "POST", body: form, headers });
    const answer = await response.json();
    return [answer.predictions[0].label, response.headers.get("x-request-id"), response.headers.has("server-timing")];
  } catch (error) {
    return String(error);
  }
}"""


class Page(QuietHandler, SimpleHTTPRequestHandler):
    """Serves a folder."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("<!doctype html><title>Another site</title><link rel=icon href=data:,>")
    with http_server(partial(Page, directory=str(folder))) as url:
        yield url


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, site: str) -> Iterator[Service]:
    artifacts = tmp_path_factory.mktemp("artifacts")
    write_bundle(artifacts)
    with serving(artifacts=artifacts, workers=1, root_path=PREFIX, cors_origins=site) as running:
        yield running


@pytest.fixture(scope="module")
def url(service: Service) -> Iterator[str]:
    with stripping_proxy(service.url, PREFIX) as proxied:
        yield proxied


def test_the_page_works_below_a_path(browser: Browser, url: str) -> None:
    with opened(browser, f"{url}/") as page:
        requested: list[str] = []
        page.on("response", lambda response: requested.append(f"{response.status} {response.url}"))
        page.reload()
        page.locator("input[type=file]").first.set_input_files(
            FilePayload(name="red.png", mimeType="image/png", buffer=solid("red"))
        )
        expect(page.get_by_text("100.0 %").first).to_be_visible()
        page.get_by_role("tab", name="Models").click()
        expect(page.get_by_text("colours").last).to_be_visible()
        made = [line for line in requested if not line.split()[1].startswith(("blob:", "data:"))]
    assert any(line.endswith("/models") for line in made)
    assert [line for line in made if not line.split()[1].startswith(f"{url}/") or line >= "4"] == []


def test_try_it_out_works_below_a_path(browser: Browser, url: str) -> None:
    with opened(browser, f"{url}/docs") as page:
        operation = page.locator("#operations-models-models_models_get")
        operation.click()
        operation.get_by_role("button", name="Try it out").click()
        with page.expect_response(f"{url}/models") as answer:
            operation.get_by_role("button", name="Execute").click()
        assert answer.value.status == 200


def call(browser: Browser, page_url: str, service_url: str) -> Any:
    page = browser.new_page()
    try:
        page.goto(page_url)
        return page.evaluate(CALL, [service_url, b64(solid("red"))["b64"]])
    finally:
        page.close()


def test_a_page_of_an_allowed_origin_calls_the_service(browser: Browser, service: Service, site: str) -> None:
    assert call(browser, site, service.url) == ["red", "from-a-page", True]


def test_a_page_of_another_origin_cannot_read_the_answer(browser: Browser, service: Service, site: str) -> None:
    assert call(browser, site.replace("127.0.0.1", "localhost"), service.url) == "TypeError: Failed to fetch"
