"""The request bodies, images and bundles that the benchmark makes."""

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from schemas.bundle import MANIFEST_FILE
from schemas.image import Pixels

PHOTO_SIZE = (500, 375)  # width, height
_COLOURS = {"blue": (60, 60, 200), "green": (60, 200, 60), "red": (200, 60, 60)}
_BOUNDARY = "benchmark"


def form(name: str, images: Sequence[bytes], kind: str) -> tuple[str, bytes]:
    """Returns the content type and the body of a form with one file per image, with the headers that curl sends."""
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{i}.{kind}"\r\n'
        f"Content-Type: image/{kind}\r\n\r\n".encode()
        + image
        + b"\r\n"
        for i, image in enumerate(images)
    ]
    return f"multipart/form-data; boundary={_BOUNDARY}", b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()


def photo(colour: tuple[int, int, int] = _COLOURS["red"], seed: int = 0) -> bytes:
    """Returns a JPEG with about the detail of a photo: smoothed noise over a colour."""
    noise = np.random.default_rng(seed).integers(0, 256, (*reversed(PHOTO_SIZE), 3), dtype=np.uint8)
    image = Image.blend(Image.fromarray(noise), Image.new("RGB", PHOTO_SIZE, colour), 0.5)
    buffer = io.BytesIO()
    image.filter(ImageFilter.GaussianBlur(2)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def write_photos(folder: Path, per_class: int = 40) -> None:
    """Writes a data set of photos by colour: enough to train a large network that int8 does not change."""
    for name, colour in _COLOURS.items():
        (folder / name).mkdir(parents=True)
        for seed in range(per_class):
            (folder / name / f"{seed}.jpg").write_bytes(photo(colour, seed))


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
