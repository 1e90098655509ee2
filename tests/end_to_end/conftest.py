from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service_process import Service, serving_bundles
from tests.support.trainer_process import train


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """artifacts/ with digits, version 1, trained as `make train` does."""
    folder = tmp_path_factory.mktemp("newcomer") / "artifacts"
    train("digits", artifacts=folder)
    return folder


@pytest.fixture(scope="session")
def service(artifacts: Path) -> Iterator[Service]:
    with serving_bundles(artifacts) as running:
        yield running
