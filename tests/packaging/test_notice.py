"""NOTICE names the versions of the third-party scripts that the documentation pages load."""

import re
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

NOTICE = (Path(__file__).parents[2] / "NOTICE").read_text()
STATIC = files("fastapi_offline") / "static"


def test_names_the_version_of_fastapi_offline() -> None:
    assert f"fastapi-offline {version('fastapi-offline')} " in NOTICE


def test_names_the_version_of_swagger_ui() -> None:
    (found,) = re.findall(r'PACKAGE_VERSION:"([\d.]+)"', (STATIC / "swagger-ui-bundle.js").read_text())
    assert f"Swagger UI {found} " in NOTICE


def test_names_the_version_of_redoc() -> None:
    (found,) = re.findall(r'ReDoc Version: ","([\d.]+)"', (STATIC / "redoc.standalone.js").read_text())
    assert f"ReDoc {found} " in NOTICE
