import re
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest
from fastapi.testclient import TestClient

from service.api.routes.pages import STATIC

PAGES = ("/", "/docs", "/redoc")


class Loads(HTMLParser):
    """Addresses that a page makes the browser load, and script or style that stands in the page itself."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [
            value
            for name in ("src", "spec-url", "srcset", *(["href"] if tag == "link" else []))
            if (value := given.get(name))
        ]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_nothing_from_another_host_and_all_of_it_is_there(client: TestClient, page: str) -> None:
    response = client.get(page)
    assert response.status_code == 200
    loads = Loads(response.text)
    assert len(loads.addresses) >= 3
    for address in loads.addresses:
        assert not urlsplit(address).netloc, address
        assert client.get(urljoin(page, address)).status_code == 200, address


@pytest.mark.parametrize("page", PAGES)
def test_the_browser_is_told_to_load_nothing_from_another_host(client: TestClient, page: str) -> None:
    """ReDoc's script asks for a logo of its maker's host; only this policy keeps the browser from it."""
    policy = client.get(page).headers["content-security-policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'self'"
    assert "unsafe-eval" not in policy
    for sources in directives.values():
        assert set(sources.split()) <= {"'self'", "'none'", "'unsafe-inline'", "data:", "blob:"}
    assert "script-src" not in directives


@pytest.mark.parametrize("page", PAGES)
def test_a_page_holds_no_script_or_style_of_its_own(client: TestClient, page: str) -> None:
    assert Loads(client.get(page).text).inline == []


def test_our_own_files_name_no_other_host() -> None:
    # The XML namespace of SVG is a name, not an address.
    for file in STATIC.iterdir():
        hosts = set(re.findall(r"https?://[^\s\"'`)]+", file.read_text())) - {"http://www.w3.org/2000/svg"}
        assert hosts == set(), file.name


def test_the_favicon_is_ours(client: TestClient) -> None:
    assert client.get("/favicon.ico").headers["content-type"].startswith("image/svg+xml")
