"""The package: what it needs, and whether its types are those of the service."""

import inspect
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from convoy_client import AsyncClient, Client, __version__, exchange, results
from tests.clients.python.conftest import KEY
from tests.support.bundles import solid
from tests.support.pages import code_blocks
from tests.support.service_process import REPOSITORY, Service

PACKAGE = REPOSITORY / "clients/python"
OPENAPI = json.loads((REPOSITORY / "openapi.json").read_text())
SCHEMAS: dict[str, Any] = OPENAPI["components"]["schemas"]
# Classes that are not named as their schema, or stand for several.
SHAPES = {"Prediction": ("Prediction", "RejectedPrediction", "FailedPrediction"), "Predictions": ("PredictResponse",)}
CLASSES = [each for each in vars(results).values() if inspect.isclass(each) and each.__module__ == results.__name__]


@pytest.mark.parametrize("result", CLASSES, ids=lambda result: result.__name__)
def test_a_result_has_the_fields_of_the_service(result: type[Any]) -> None:
    shapes = [SCHEMAS[name] for name in SHAPES.get(result.__name__, (result.__name__,)) if name in SCHEMAS]
    properties = {name: schema for shape in shapes for name, schema in shape["properties"].items()}
    assert properties.keys() - {"type"} <= {field.name for field in fields(result)}
    always = set.intersection(*(set(shape.get("required", ())) for shape in shapes))
    for field in fields(result):
        assert field.default is not MISSING or field.name in always, field.name


def test_the_deadline_header_is_the_services() -> None:
    parameters = OPENAPI["paths"]["/predict"]["post"]["parameters"]
    assert exchange.TIMEOUT_HEADER in {each["name"] for each in parameters if each["in"] == "header"}


def test_both_clients_have_the_same_methods() -> None:
    for name in ("predict", "explain", "evaluate", "models"):
        sync, asynchronous = (inspect.signature(getattr(kind("http://a"), name)) for kind in (Client, AsyncClient))
        assert list(sync.parameters.values()) == list(asynchronous.parameters.values())
        assert inspect.getdoc(getattr(Client, name)) == inspect.getdoc(getattr(AsyncClient, name))
    assert next(iter(inspect.signature(Client("http://a").predict).parameters)) == "images"


def test_it_needs_neither_the_service_nor_pillow_nor_numpy() -> None:
    script = "import convoy_client, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", script]
    loaded = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, check=True).stdout.split()
    assert "httpx" in loaded
    assert {"service", "schemas", "trainer", "numpy", "PIL", "pydantic"}.isdisjoint(loaded)


def test_httpx_is_the_only_dependency() -> None:
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    assert [re.match(r"\w+", each)[0] for each in project["dependencies"]] == ["httpx"]  # type: ignore[index]
    imported = {
        name
        for file in (PACKAGE / "convoy_client").glob("*.py")
        for name in re.findall(r"^(?:from|import) (\w+)", file.read_text(), re.MULTILINE)
    }
    assert imported - set(sys.stdlib_module_names) == {"convoy_client", "httpx"}


@pytest.mark.slow
def test_the_wheel_has_the_package_with_its_types(tmp_path: Path) -> None:
    # setuptools writes build folders beside the sources.
    source = shutil.copytree(PACKAGE, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__"))
    options = (
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
        "--wheel-dir",
        tmp_path,
    )
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, source], cwd=tmp_path, check=True)
    (wheel,) = tmp_path.glob(f"convoy_client-{__version__}-*.whl")
    modules = {f"convoy_client/{file.name}" for file in (PACKAGE / "convoy_client").glob("*.*")}
    assert modules <= set(zipfile.ZipFile(wheel).namelist())
    assert "convoy_client/py.typed" in modules


def test_the_examples_of_the_readme_work(service: Service, tmp_path: Path) -> None:
    for name, colour in {"cat.jpg": "red", "dog.png": "green"}.items():
        (tmp_path / name).write_bytes(solid(colour))
    examples = code_blocks(PACKAGE / "README.md", "python")
    assert len(examples) >= 3
    for example in examples:
        script = example.replace('"http://127.0.0.1:8000"', f'"{service.url}", key="{KEY}"')
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            cwd=tmp_path,
            env={"PYTHONPATH": str(PACKAGE)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, script + run.stderr
