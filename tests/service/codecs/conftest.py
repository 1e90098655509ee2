from pathlib import Path

import pytest

from schemas.manifest import ModelManifest, parse_manifest
from tests.support.bundles import write_bundle
from tests.support.inference_protocol import Reader


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> ModelManifest:
    bundle: Path = write_bundle(tmp_path_factory.mktemp("artifacts"))
    return parse_manifest((bundle / "manifest.json").read_bytes())


@pytest.fixture
def read(manifest: ModelManifest) -> Reader:
    return Reader(manifest)
