import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import grimp
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.settings import Device, Settings
from tests.support.bundles import solid, write_bundle
from tests.support.http_requests import form
from tests.support.service_process import REPOSITORY

ARCHITECTURE = (REPOSITORY / "docs/architecture.md").read_text()
CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text()
LISTED = set(re.findall(r"\[[\w/.]+\]\(\.\./([\w/]+\.py)\)", ARCHITECTURE))


def test_each_link_shows_the_name_of_its_file() -> None:
    links = re.findall(r"\[([\w/.]+)\]\(\.\./([\w/]+\.py)\)", ARCHITECTURE)
    assert len(links) > 30
    for shown, target in links:
        assert f"/{target}".endswith(f"/{shown}")


def test_lists_every_file_that_a_prediction_passes(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    with called_files() as files, TestClient(create_app(Settings(artifacts=tmp_path, device=Device.CPU))) as client:
        files.clear()
        assert client.post("/predict", files=form(solid("red"))).status_code == 200
        passed = files.copy()  # other threads still add to it
    product = {file for file in passed if file.startswith(("service/", "schemas/"))}
    assert "service/inference/pipeline.py" in product  # the batch was recorded, too
    assert {file for file in product if not file.startswith("service/telemetry/")} <= LISTED


def test_lists_every_file_that_a_training_run_can_pass() -> None:
    imported = grimp.build_graph("trainer").find_upstream_modules("trainer.run")
    files = {f"{module.replace('.', '/')}.py" for module in imported}
    modules = {file for file in files if (REPOSITORY / file).is_file() and not file.startswith("trainer/recipes/")}
    assert "trainer/training/probe.py" in modules
    assert modules <= LISTED


@contextmanager
def called_files() -> Iterator[set[str]]:
    """Yields the files of the repository whose functions are called in this thread, and in threads started within."""
    files: set[str] = set()
    root = f"{REPOSITORY}/"

    def record(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(root):
            files.add(frame.f_code.co_filename.removeprefix(root))

    threading.setprofile(record)
    sys.setprofile(record)
    try:
        yield files
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def test_every_room_of_both_packages_is_listed() -> None:
    for package in ("service", "trainer"):
        table = ARCHITECTURE.partition(f"## The rooms of the {package}")[2].partition("\n## ")[0]
        listed = set(re.findall(r"\b(\w+)/", table)) | set(re.findall(r"`(\w+\.py)`", table))
        folder = REPOSITORY / package
        rooms = {file.parent.name for file in folder.glob("*/*.py")} | {file.name for file in folder.glob("*.py")}
        assert listed >= rooms - {"__init__.py", "__main__.py"}
        assert listed <= rooms


def test_every_place_that_contributing_names_exists() -> None:
    for place in re.findall(r"`((?:schemas|service|trainer|benchmarks|tests)/[\w/.]*)`", CONTRIBUTING):
        assert (REPOSITORY / place).exists(), place
