"""CONVOY_ROOT_PATH: the real service behind a proxy that removes a prefix from paths."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from convoy_client import Client
from service.api.routes.pages import STATIC
from tests.service.api.routes.test_pages import PAGES, Loads
from tests.service.conftest import Serve
from tests.support.bundles import solid, write_bundle
from tests.support.http_requests import form
from tests.support.service_process import serving
from tests.support.stripping_proxy import stripping_proxy

PREFIX = "/tools/convoy"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    artifacts: Path = tmp_path_factory.mktemp("artifacts")
    write_bundle(artifacts)
    with (
        serving(artifacts=artifacts, workers=1, root_path=PREFIX) as service,
        stripping_proxy(service.url, PREFIX) as url,
    ):
        yield url


@pytest.mark.parametrize("page", PAGES)
def test_all_that_a_page_loads_is_below_the_prefix(url: str, page: str) -> None:
    response = httpx.get(url + page)
    assert response.status_code == 200
    addresses = [urljoin(url + page, address) for address in Loads(response.text).addresses]
    assert len(addresses) >= 3
    for address in addresses:
        assert address.startswith(f"{url}/")
        assert httpx.get(address).status_code == 200, address


def test_the_links_of_the_page_are_below_the_prefix(url: str) -> None:
    links = re.findall(r'href="([^"#][^"]*)"', httpx.get(f"{url}/").text)
    assert "docs" in links
    for link in links:
        assert httpx.get(urljoin(f"{url}/", link)).status_code == 200, link


def test_the_scripts_ask_relative_to_the_page() -> None:
    for script in STATIC.rglob("*.js"):
        assert re.findall(r"""(?:fetch|import|open|from)\s*\(?\s*["'`]/[^"'`]*""", script.read_text()) == [], script


@pytest.mark.parametrize("page", ["/docs/", "/redoc/"])
def test_a_slash_too_many_leads_back_to_the_page(url: str, page: str) -> None:
    response = httpx.get(url + page, follow_redirects=True)
    assert (response.status_code, str(response.url)) == (200, url + page[:-1])


def test_the_description_names_the_prefix_for_try_it_out(url: str) -> None:
    description = httpx.get(f"{url}/openapi.json").json()
    (server,) = description["servers"]
    predict = urljoin(f"{url}/openapi.json", server["url"]) + "/predict"
    assert predict == f"{url}/predict"
    assert httpx.post(predict, files=form(solid("red"))).json()["predictions"][0]["label"] == "red"


def test_files_of_the_report_are_below_the_prefix(url: str) -> None:
    (model,) = httpx.get(f"{url}/models").json()["models"]
    for file in model["report"]:
        assert httpx.get(f"{url}/models/colours/report/{file}").status_code == 200


def test_the_python_client_calls_below_the_prefix(url: str) -> None:
    with Client(url) as client:
        assert client.predict(solid("blue")).predictions[0].label == "blue"
        assert client.models().default == "colours"


def test_without_it_the_description_names_no_server(serve: Serve) -> None:
    assert "servers" not in serve().get("/openapi.json").json()
