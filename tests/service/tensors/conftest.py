import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.inference_protocol import InferRequest
from schemas.manifest import ModelManifest, parse_manifest
from service.codecs.inference_protocol import read_infer
from service.inference.inputs import Image, PixelArray
from service.settings import Settings
from tests.support.bundles import write_bundle


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> ModelManifest:
    bundle: Path = write_bundle(tmp_path_factory.mktemp("artifacts"))
    return parse_manifest((bundle / "manifest.json").read_bytes())


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


@pytest.fixture
def read(manifest: ModelManifest) -> Reader:
    return Reader(manifest)


def asking(tensor: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"inputs": [tensor], **more}


def encoded(count: Any, **more: Any) -> dict[str, Any]:
    return asking({"name": "images", "shape": [count], "datatype": "BYTES", **more})


def arrays(images: list[Image]) -> np.ndarray[Any, Any]:
    return np.stack([image.pixels for image in images if isinstance(image, PixelArray)])
