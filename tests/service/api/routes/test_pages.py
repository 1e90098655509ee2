import re
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest
from fastapi.testclient import TestClient

from service.api.routes.pages import STATIC

PAGES = ("/", "/docs", "/redoc")


class Loads(HTMLParser):
    """The addresses that a page loads, and its inline scripts and styles."""

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
def test_a_page_loads_only_existing_files_of_this_host(client: TestClient, page: str) -> None:
    response = client.get(page)
    assert response.status_code == 200
    loads = Loads(response.text)
    assert len(loads.addresses) >= 3
    for address in loads.addresses:
        assert not urlsplit(address).netloc, address
        assert client.get(urljoin(page, address)).status_code == 200, address


@pytest.mark.parametrize("page", PAGES)
def test_the_policy_forbids_loading_from_other_hosts(client: TestClient, page: str) -> None:
    """Without this policy, ReDoc's script would load a logo from its maker's host."""
    policy = client.get(page).headers["content-security-policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'self'"
    assert "unsafe-eval" not in policy
    for sources in directives.values():
        assert set(sources.split()) <= {"'self'", "'none'", "'unsafe-inline'", "data:", "blob:"}
    assert "script-src" not in directives


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_no_inline_script_or_style(client: TestClient, page: str) -> None:
    assert Loads(client.get(page).text).inline == []


def test_static_files_name_no_other_host() -> None:
    # The XML namespace of SVG is a name, not an address. Vendored files name their projects in comments.
    own = [file for file in STATIC.rglob("*") if file.is_file() and file.parent.name != "vendor"]
    assert len(own) > 10
    for file in own:
        hosts = set(re.findall(r"https?://[^\s\"'`)]+", file.read_text())) - {"http://www.w3.org/2000/svg"}
        assert hosts == set(), file.name


def test_the_favicon_is_an_svg(client: TestClient) -> None:
    assert client.get("/favicon.ico").headers["content-type"].startswith("image/svg+xml")
