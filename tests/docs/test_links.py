import re
from pathlib import Path

import pytest

from tests.support.pages import PAGES, code_blocks, name_of, prose
from tests.support.service_process import REPOSITORY

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SOURCES = [
    path for folder in ("schemas", "service", "trainer", "benchmarks") for path in (REPOSITORY / folder).rglob("*.py")
]


def relative_links(page: Path) -> list[str]:
    return [target for target in LINK.findall(prose(page)) if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_and_image_exists(page: Path) -> None:
    for target in relative_links(page):
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{name_of(page)} links to {target}"
        assert path.is_relative_to(REPOSITORY), f"{name_of(page)} links out of the repository: {target}"
        if anchor:
            assert anchor in anchors(path), f"{name_of(path)} has no heading #{anchor}"


def test_every_guide_and_decision_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page.suffix == ".md" and page not in reached:
            reached.add(page)
            waiting += [page.parent / target.partition("#")[0] for target in relative_links(page)]
    assert {page for page in PAGES if page.is_relative_to(REPOSITORY / "docs")} <= reached


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_code_block_names_its_language(page: Path) -> None:
    assert code_blocks(page, "") == []


def test_every_page_that_the_source_names_exists() -> None:
    for source in SOURCES:
        for name in re.findall(r"\bdocs/[\w/.-]+\.md\b", source.read_text()):
            assert (REPOSITORY / name).exists(), f"{source.relative_to(REPOSITORY)} names {name}"


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 120
