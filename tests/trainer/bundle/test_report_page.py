import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from schemas.metrics import measure
from schemas.report_style import REPORT_STYLE_SOURCE
from tests.support.bundles import solid
from trainer.bundle.report_page import write_page

LABELS = ["<b>cat</b>", "dog & co", "caf\udce9"]


class Elements(HTMLParser):
    """Collects the elements of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def page_of(folder: Path, name: str = "pets") -> str:
    metrics = measure(np.array([0, 1, 2, 2]), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], LABELS)
    write_page(folder, name, "my <photos>", metrics)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_needs_nothing_that_a_strict_policy_forbids(tmp_path: Path) -> None:
    for name in ("curves.png", "mistakes.png"):
        (tmp_path / name).write_bytes(solid("red"))
    (tmp_path / "predictions.csv").touch()
    (tmp_path / "model.txt").write_text("layer <1>")
    page = page_of(tmp_path)
    elements = Elements(page).found
    assert not {tag for tag, _ in elements} & {"script", "link", "iframe", "object", "base", "b"}
    (style,) = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in REPORT_STYLE_SOURCE
    assert [tag for tag, _ in elements].count("style") == 1
    for _, attributes in elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
    pictures = [attributes["src"] or "" for tag, attributes in elements if tag == "img"]
    assert len(pictures) == 2
    assert all(source.startswith("data:image/png;base64,") for source in pictures)
    assert [attributes["href"] for tag, attributes in elements if tag == "a"] == ["predictions.csv"]


def test_names_from_the_data_are_escaped(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert "&lt;b&gt;cat&lt;/b&gt;" in page
    assert "dog &amp; co" in page
    assert "pets on my &lt;photos&gt;" in page


def test_the_page_has_the_metrics_of_each_class(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert "75.00%" in page
    assert page.count('scope="row"') == 4 + len(LABELS)


def test_a_plot_that_could_not_be_drawn_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "curves.png").write_bytes(solid("red"))
    page = page_of(tmp_path)
    assert "<h2>Training</h2>" in page
    assert "<h2>Mistakes</h2>" not in page


def test_the_title_does_not_repeat_a_model_that_is_named_after_its_data(tmp_path: Path) -> None:
    assert "<h1>my &lt;photos&gt;</h1>" in page_of(tmp_path, name="my <photos>")
