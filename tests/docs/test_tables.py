import json
import re

from schemas.problem import ProblemCode
from service.settings import settings_table
from tests.support.service_process import REPOSITORY


def test_the_table_of_settings_matches_the_settings() -> None:
    rows = [f"| `{name}` | {f'`{default}`' if default else ''} | {text} |" for name, default, text in settings_table()]
    table = "\n".join(["| Variable | Default | Meaning |", "|---|---|---|", *rows])
    page = REPOSITORY / "docs/operating.md"
    assert table in page.read_text(), f"The table of settings in {page.name} should be:\n{table}"


def test_the_tables_of_endpoints_and_error_codes_are_complete() -> None:
    page = (REPOSITORY / "docs/serving.md").read_text()
    for path in json.loads((REPOSITORY / "openapi.json").read_text())["paths"]:
        versionless = re.sub(r"^(/v2/models/\{name\})/versions/\{version\}", r"\1", path)
        assert versionless in page, path
    for code in ProblemCode:
        assert f"`{code}`" in page
