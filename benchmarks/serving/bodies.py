"""The request bodies and bundles that the benchmark makes."""

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from schemas.bundle import MANIFEST_FILE
from schemas.image import Pixels

_BOUNDARY = "benchmark"


def form(name: str, images: Sequence[bytes], kind: str) -> tuple[str, bytes]:
    """Content type and body of a form with one file part per image, with the headers that curl sends."""
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{i}.{kind}"\r\n'
        f"Content-Type: image/{kind}\r\n\r\n".encode()
        + image
        + b"\r\n"
        for i, image in enumerate(images)
    ]
    return f"multipart/form-data; boundary={_BOUNDARY}", b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()


def photo(width: int, height: int) -> bytes:
    """A JPEG with about the detail of a photo: smoothed noise."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def encode_npy(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    return buffer.getvalue()


def copies(bundle: Path, folder: Path, count: int = 3) -> Path:
    """Writes the bundle under several model names below folder; returns the first copy."""
    paths = [folder / f"{bundle.parent.name}-{i}" / "1" for i in range(count)]
    for path in paths:
        shutil.copytree(bundle, path)
        manifest = json.loads((path / MANIFEST_FILE).read_text())
        (path / MANIFEST_FILE).write_text(json.dumps(manifest | {"name": path.parent.name, "version": 1}))
    return paths[0]
