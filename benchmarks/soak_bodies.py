"""What the soak asks: good, bad and oversized requests, each with the status that it must get."""

import base64
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

BODY_LIMIT = 256 * 1024  # bytes; the soak sets CONVOY_MAX_BODY_BYTES to it

_BOUNDARY = "soak"


@dataclass(frozen=True)
class Ask:
    """One request and the status that answers it; overload (503) and lateness (504) may always answer instead."""

    kind: str
    path: str
    content_type: str
    body: bytes
    status: int


def asks(images: Sequence[bytes], labels: Sequence[str], shape: tuple[int, int, int]) -> Callable[[random.Random], Ask]:
    """Draws one of many prepared requests. images are encoded ones that the model of this input shape takes."""
    prepared = [
        (35, [_raw(image) for image in images]),
        (20, [_form("form, three images", "/predict", list(images[i : i + 3]), ()) for i in range(len(images) - 2)]),
        (10, [_json("JSON, base64", {"instances": [{"b64": _base64(image)}]}, 200) for image in images]),
        (6, [Ask("npy, 40 images", "/predict", "application/x-npy", _npy((40, *shape)), 200)]),
        (5, [_form("evaluation", "/evaluate", list(images[:3]), [labels[0]] * 3)]),
        (4, [_tensor(shape)]),
        (4, [Ask("truncated image", "/predict", "image/png", images[0][: len(images[0]) // 2], 422)]),
        (3, [_form("one bad image of three", "/predict", [images[0], b"no image", images[1]], ())]),
        (3, [Ask("invalid JSON", "/predict", "application/json", b'{"instances": [', 400)]),
        (3, [_json("unknown field", {"instances": [{"b64": ""}], "topk": 1}, 422)]),
        (3, [Ask("body too large", "/predict", "image/png", b"\x89PNG" + bytes(BODY_LIMIT), 413)]),
        (2, [Ask("unknown model", "/models/nobody/predict", "image/png", images[0], 404)]),
        (2, [Ask("unsupported media type", "/predict", "text/plain", b"cat", 415)]),
    ]
    weights = [weight for weight, _ in prepared]
    choices = [several for _, several in prepared]

    def draw(generator: random.Random) -> Ask:
        return generator.choice(generator.choices(choices, weights)[0])

    return draw


def _raw(image: bytes) -> Ask:
    return Ask("one image", "/predict", "image/png", image, 200)


def _json(kind: str, message: object, status: int) -> Ask:
    return Ask(kind, "/predict", "application/json", json.dumps(message).encode(), status)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _npy(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    return buffer.getvalue()


def _tensor(shape: tuple[int, int, int]) -> Ask:
    pixels = np.random.default_rng(1).integers(0, 256, (2, *shape), dtype=np.uint8)
    tensor = {"name": "images", "datatype": "UINT8", "shape": [2, *shape], "data": pixels.ravel().tolist()}
    return Ask(
        "v2 tensor", "/v2/models/{model}/infer", "application/json", json.dumps({"inputs": [tensor]}).encode(), 200
    )


def _form(kind: str, path: str, files: Sequence[bytes], labels: Sequence[str]) -> Ask:
    parts = [
        b'--%b\r\nContent-Disposition: form-data; name="files"; filename="%d.png"\r\n\r\n%b\r\n'
        % (_BOUNDARY.encode(), i, file)
        for i, file in enumerate(files)
    ] + [
        b'--%b\r\nContent-Disposition: form-data; name="labels"\r\n\r\n%b\r\n' % (_BOUNDARY.encode(), label.encode())
        for label in labels
    ]
    body = b"".join(parts) + b"--%b--\r\n" % _BOUNDARY.encode()
    status = 422 if b"no image" in files else 200
    return Ask(kind, path, f"multipart/form-data; boundary={_BOUNDARY}", body, status)
