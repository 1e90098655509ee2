"""SECURITY.md names settings and files that exist."""

import re
from pathlib import Path

from service.settings import settings_table

ROOT = Path(__file__).parents[2]
POLICY = (ROOT / "SECURITY.md").read_text()


def test_names_settings_that_exist() -> None:
    named = set(re.findall(r"CONVOY_[A-Z_]+", POLICY))
    assert named
    assert named <= {variable for variable, _, _ in settings_table()}


def test_links_to_files_that_exist() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", POLICY)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
