from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.session import Runtime
from service.settings import Device, Settings
from tests.bundles import write_bundle

Serve = Callable[..., TestClient]


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """A folder with the one bundle `colours`, version 1."""
    write_bundle(tmp_path / "artifacts")
    return tmp_path / "artifacts"


@pytest.fixture
def serve(artifacts: Path) -> Iterator[Serve]:
    """Starts the application over artifacts with the given settings, or with another runtime."""
    with ExitStack() as stack:

        def start(runtime: Runtime | None = None, **settings: Any) -> TestClient:
            app = create_app(Settings(**{"artifacts": artifacts, "device": Device.CPU, **settings}), runtime)
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield start


@pytest.fixture
def client(serve: Serve) -> TestClient:
    return serve()
