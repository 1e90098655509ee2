from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.processes import Service, serving, train


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """artifacts/ with digits, version 1, trained as `make train` does."""
    folder = tmp_path_factory.mktemp("newcomer") / "artifacts"
    train("digits", artifacts=folder)
    return folder


@pytest.fixture(scope="session")
def service(artifacts: Path) -> Iterator[Service]:
    with serving(artifacts) as running:
        yield running
