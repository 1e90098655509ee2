"""The site that `make docs` builds; mkdocs itself checks links and navigation there."""

import importlib.util
from types import SimpleNamespace

import pytest

from tests.support.service_process import REPOSITORY

_SPEC = importlib.util.spec_from_file_location("site_links", REPOSITORY / "docs/site_links.py")
assert _SPEC is not None
assert _SPEC.loader is not None
site_links = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(site_links)


@pytest.mark.parametrize(
    ("page", "written", "shown"),
    [
        ("serving.md", "see [openapi.json](../openapi.json).", "see openapi.json."),
        ("guides/photos.md", "[bundle](../../artifacts/README.md#files)", "bundle"),
        ("guides/photos.md", "[files](../data-formats.md#image-files)", "[files](../data-formats.md#image-files)"),
        ("serving.md", "[here](#errors) [timm](https://example.org)", "[here](#errors) [timm](https://example.org)"),
    ],
)
def test_a_link_out_of_docs_becomes_its_text(page: str, written: str, shown: str) -> None:
    page_object = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    assert site_links.on_page_markdown(written, page=page_object) == shown
