"""Requests and responses of the Open Inference Protocol."""

import json
from typing import Any

import httpx2
import numpy as np

from schemas.image import Pixels
from schemas.inference_protocol import InferRequest
from schemas.manifest import ModelManifest
from service.codecs.inference_protocol import read_infer
from service.inference.inputs import Image, PixelArray
from service.settings import Settings
from tests.support.bundles import COLOURS, SPEC


def pixels(*colours: str) -> Pixels:
    """uint8 [colours, 8, 8, 3], each image of one colour."""
    return np.stack([np.full(SPEC.shape, COLOURS[colour], np.uint8) for colour in colours])


def uint8(array: Pixels, data: Any = None) -> dict[str, Any]:
    """The input as JSON data, or with data=None announced as binary."""
    tensor: dict[str, Any] = {"name": "images", "shape": list(array.shape), "datatype": "UINT8"}
    return tensor | ({"parameters": {"binary_data_size": array.size}} if data is None else {"data": data})


def body_of(request: Any, binary: bytes = b"") -> dict[str, Any]:
    """Returns the keyword arguments of a post: JSON, and the header with its length if a binary tensor follows."""
    text = json.dumps(request).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))} if binary else {}
    return {"content": text + binary, "headers": headers}


def elements(*items: bytes) -> bytes:
    """A BYTES tensor as binary data."""
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


def error_of(response: httpx2.Response, status: int) -> str:
    """Returns the protocol's error, which must be one sentence."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    message: str = response.json()["error"]
    assert message.endswith("."), message
    assert len(message) < 400, message
    return message


def outputs_of(response: httpx2.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    (output,) = response.json()["outputs"]
    return dict(output)


class Reader:
    """Reads bodies for the colours model."""

    def __init__(self, manifest: ModelManifest) -> None:
        self._manifest = manifest

    def raw(self, body: bytes, header: str | None = None, **settings: Any) -> tuple[InferRequest, list[Image]]:
        return read_infer(body, header, self._manifest, Settings(**settings))

    def __call__(self, request: Any, binary: bytes | None = None, **settings: Any) -> list[Image]:
        text = json.dumps(request).encode()
        header = None if binary is None else str(len(text))
        return self.raw(text + (binary or b""), header, **settings)[1]


def asking(tensor: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"inputs": [tensor], **more}


def encoded(count: Any, **more: Any) -> dict[str, Any]:
    return asking({"name": "images", "shape": [count], "datatype": "BYTES", **more})


def arrays(images: list[Image]) -> np.ndarray[Any, Any]:
    return np.stack([image.pixels for image in images if isinstance(image, PixelArray)])
