"""Schemathesis checks that a real service conforms to its OpenAPI description."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bundles import write_bundle
from tests.support.service_process import serving_bundles

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).with_name("schemathesis.toml")
REPOSITORY = (
    "^/v2/repository/models/"  # load and unload run separately, because they change the state that other requests see
)


@pytest.mark.parametrize(
    "chosen", [("--exclude-path-regex", REPOSITORY), ("--include-path-regex", REPOSITORY)], ids=["all", "repository"]
)
def test_the_service_conforms_to_openapi(tmp_path: Path, chosen: tuple[str, str]) -> None:
    artifacts = tmp_path / "artifacts"
    write_bundle(artifacts, version=1)
    with serving_bundles(artifacts) as service:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
        arguments = [f"{service.url}/openapi.json", "--phases", "examples,coverage,fuzzing", "--no-color", *chosen]
        result = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr + "".join(service.log)
    assert " 0 generated" not in result.stdout
