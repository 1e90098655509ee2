"""What tests ask in the Open Inference Protocol, the real server that they ask, and what stands for the coordinator."""

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import numpy as np
import uvicorn
from fastapi import FastAPI

from schemas.image import Pixels
from service.errors import ModelNotFoundError
from service.telemetry.statistics import BatchStatistics, Duration, Statistics
from tests.support.bundles import COLOURS, SPEC

START_SECONDS = 30.0


def pixels(*colours: str) -> Pixels:
    """uint8 [colours, 8, 8, 3], each image of one colour."""
    return np.stack([np.full(SPEC.shape, COLOURS[colour], np.uint8) for colour in colours])


def uint8(array: Pixels, data: Any = None) -> dict[str, Any]:
    """The input as JSON data, or with data=None announced as binary."""
    tensor: dict[str, Any] = {"name": "images", "shape": list(array.shape), "datatype": "UINT8"}
    return tensor | ({"parameters": {"binary_data_size": array.size}} if data is None else {"data": data})


def body_of(request: Any, binary: bytes = b"") -> dict[str, Any]:
    """The keyword arguments of a post: JSON, and where there is a tensor behind it, the header with its length."""
    text = json.dumps(request).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))} if binary else {}
    return {"content": text + binary, "headers": headers}


def elements(*items: bytes) -> bytes:
    """A BYTES tensor as binary data."""
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


def error_of(response: httpx2.Response, status: int) -> str:
    """The protocol's error, which must be one sentence for a person."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    said: str = response.json()["error"]
    assert said.endswith("."), said
    assert len(said) < 400, said
    return said


def outputs_of(response: httpx2.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    (output,) = response.json()["outputs"]
    return dict(output)


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """A real server of the application on a free port; its host:port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="on", ws="none", log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    waited = threading.Event()
    for _ in range(int(START_SECONDS / 0.01)):
        if server.started or not thread.is_alive():
            break
        waited.wait(0.01)
    assert server.started
    try:
        (listener,) = server.servers[0].sockets
        host, port = listener.getsockname()[:2]
        yield f"{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)


@dataclass
class RecordingControl:
    """A ModelControl that knows one model and does nothing but remember."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)

    async def load(self, name: str, version: int | None = None) -> None:
        self._find(name)
        self.calls.append(("load", name, version))

    async def unload(self, name: str) -> None:
        self._find(name)
        self.calls.append(("unload", name))

    async def statistics(self) -> Sequence[Statistics]:
        return [
            Statistics(
                name="colours",
                version=1,
                last_inference=1_700_000_000_000,
                inference_count=5,
                execution_count=2,
                success=Duration(count=3, ns=30),
                queue=Duration(count=3, ns=10),
                batches=(
                    BatchStatistics(
                        batch_size=3,
                        compute_input=Duration(count=1, ns=5),
                        compute_infer=Duration(count=1, ns=10),
                        compute_output=Duration(count=1, ns=2),
                    ),
                ),
            ),
            Statistics(name="more", version=7),
        ]

    def _find(self, name: str) -> None:
        if name != "colours":
            raise ModelNotFoundError(f"There is no model '{name}' to load or unload; there are colours.")


@dataclass
class SlowControl(RecordingControl):
    """Does what it is asked for when it is let; finished is set once something is done."""

    let: asyncio.Event = field(default_factory=asyncio.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    async def load(self, name: str, version: int | None = None) -> None:
        await self.let.wait()
        await super().load(name, version)
        self.finished.set()

    async def unload(self, name: str) -> None:
        await self.let.wait()
        await super().unload(name)
        self.finished.set()

    async def statistics(self) -> Sequence[Statistics]:
        await self.let.wait()
        return await super().statistics()
