import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.backends.base import Runtime
from service.backends.onnx import OnnxRuntime
from service.repository.coordinator import Coordinator
from service.repository.registry import Registry
from service.settings import Device, Reload, Settings


def loaded_registry(
    artifacts: Path, request: pytest.FixtureRequest, runtime: Runtime | None = None, **settings: Any
) -> Registry:
    """Returns a registry with the models that a service with these settings loads at its start."""
    read = Settings(artifacts=artifacts, **settings)
    registry = Registry(read, runtime or OnnxRuntime(Device.CPU, threads=1, spin=False))
    asyncio.run(Coordinator(read.model_copy(update={"reload": Reload.OFF}), registry).start())
    request.addfinalizer(lambda: asyncio.run(registry.close()))
    return registry
