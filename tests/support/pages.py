"""The Markdown pages of the repository, and their content."""

import re
from pathlib import Path

from tests.support.service_process import REPOSITORY

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FOLDERS = ("docs", "docs/decisions", "docs/guides")

PAGES = sorted(
    [*REPOSITORY.glob("*.md"), REPOSITORY / "artifacts/README.md", REPOSITORY / "clients/python/README.md"]
    + [page for folder in _FOLDERS for page in (REPOSITORY / folder).glob("*.md")]
)


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def code_blocks(page: Path, language: str) -> list[str]:
    return [code for tag, code in _FENCE.findall(page.read_text()) if tag == language]


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return _FENCE.sub("", page.read_text())
