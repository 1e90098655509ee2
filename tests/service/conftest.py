import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.backends.base import Runtime
from service.settings import Device, Settings
from tests.support.bundles import write_bundle

Serve = Callable[..., TestClient]


@pytest.fixture
def anyio_backend() -> str:
    """Tests that are coroutines run on asyncio."""
    return "asyncio"


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """A folder with the one bundle `colours`, version 1."""
    write_bundle(tmp_path / "artifacts")
    return tmp_path / "artifacts"


@pytest.fixture
def serve(artifacts: Path) -> Iterator[Serve]:
    """Starts the application over artifacts with the given settings, or with another runtime.

    The caller is on the same machine, as admin calls without keys want it.
    """
    with ExitStack() as stack:

        def start(runtime: Runtime | None = None, **settings: Any) -> TestClient:
            app = create_app(Settings(**{"artifacts": artifacts, "device": Device.CPU, **settings}), runtime)
            here = TestClient(app, "http://127.0.0.1", raise_server_exceptions=False, client=("127.0.0.1", 50000))
            return stack.enter_context(here)

        yield start


@pytest.fixture
def client(serve: Serve) -> TestClient:
    return serve()


class FullPipe(NamedTuple):
    reader: int
    writer: int


@pytest.fixture
def full_pipe() -> Iterator[FullPipe]:
    """A pipe that nobody reads: writing to it blocks."""
    pipe = FullPipe(*os.pipe())
    os.set_blocking(pipe.writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe.writer, b"x" * 4096)
    os.set_blocking(pipe.writer, True)
    yield pipe
    for end in pipe:
        os.close(end)
