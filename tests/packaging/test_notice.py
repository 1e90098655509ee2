"""NOTICE names the versions of the third-party scripts that the pages and their tests load."""

import re
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOTICE = (ROOT / "NOTICE").read_text()
STATIC = files("fastapi_offline") / "static"


def test_names_the_version_of_fastapi_offline() -> None:
    assert f"fastapi-offline {version('fastapi-offline')} " in NOTICE


def test_names_the_version_of_swagger_ui() -> None:
    (found,) = re.findall(r'PACKAGE_VERSION:"([\d.]+)"', (STATIC / "swagger-ui-bundle.js").read_text())
    assert f"Swagger UI {found} " in NOTICE


def test_names_the_version_of_redoc() -> None:
    (found,) = re.findall(r'ReDoc Version: ","([\d.]+)"', (STATIC / "redoc.standalone.js").read_text())
    assert f"ReDoc {found} " in NOTICE


def test_names_the_version_of_each_vendored_file_whose_licence_lies_beside_it() -> None:
    vendored = [
        *(ROOT / "service" / "api" / "static" / "vendor").glob("*.js"),
        *(ROOT / "tests" / "support" / "axe").glob("*.js"),
    ]
    assert len(vendored) == 2
    for file in vendored:
        (name, version) = re.findall(r"(marked|axe) v([\d.]+)", file.read_text()[:200])[0]
        assert f"{name}-{version}." in file.name
        assert re.search(rf"{name}(-core)? {version} ", NOTICE)
        assert any("LICENSE" in beside.name for beside in file.parent.iterdir())
