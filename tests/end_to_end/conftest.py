import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeOnce
from tests.support.service_process import Service, serving_bundles
from tests.support.trainer_process import train


@pytest.fixture(scope="session")
def artifacts(make_once: MakeOnce, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """artifacts/ with version 1 of digits, trained as by `make train`; a copy, because the service writes to it."""
    trained = make_once("digits", lambda folder: train("digits", artifacts=folder / "artifacts"))
    return shutil.copytree(trained / "artifacts", tmp_path_factory.mktemp("newcomer") / "artifacts")


@pytest.fixture(scope="session")
def service(artifacts: Path) -> Iterator[Service]:
    with serving_bundles(artifacts) as running:
        yield running
