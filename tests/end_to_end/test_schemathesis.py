"""What OpenAPI says of the service is true of it: schemathesis asks a real one, with its default checks."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bundles import write_bundle
from tests.support.service_process import serving_bundles

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).with_name("schemathesis.toml")
REPOSITORY = "^/v2/repository/models/"  # load and unload: in a run of their own, for they change what the others see


@pytest.mark.parametrize(
    "chosen", [("--exclude-path-regex", REPOSITORY), ("--include-path-regex", REPOSITORY)], ids=["all", "repository"]
)
def test_the_service_is_what_openapi_says(tmp_path: Path, chosen: tuple[str, str]) -> None:
    artifacts = tmp_path / "artifacts"
    write_bundle(artifacts, version=1)
    with serving_bundles(artifacts) as service:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
        asked = [f"{service.url}/openapi.json", "--phases", "examples,coverage,fuzzing", "--no-color", *chosen]
        ended = subprocess.run([*command, *asked], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr + "".join(service.log)
    assert "0 generated" not in ended.stdout
