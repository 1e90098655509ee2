"""The requests of the soak test: valid, invalid and oversized, each with its expected status code."""

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
class SoakRequest:
    """A request and its expected status code; 503 (overload) and 504 (deadline) are always allowed."""

    kind: str
    path: str
    content_type: str
    body: bytes
    status: int


def request_generator(
    images: Sequence[bytes], labels: Sequence[str], shape: tuple[int, int, int]
) -> Callable[[random.Random], SoakRequest]:
    """Returns a function that chooses one of many prepared requests. images are encoded, shape is the model's input."""
    prepared = [
        (35, [_raw(image) for image in images]),
        (20, [_form("form, three images", "/predict", list(images[i : i + 3]), ()) for i in range(len(images) - 2)]),
        (10, [_json("JSON, base64", {"instances": [{"b64": _base64(image)}]}, 200) for image in images]),
        (6, [SoakRequest("npy, 40 images", "/predict", "application/x-npy", _npy((40, *shape)), 200)]),
        (5, [_form("evaluation", "/evaluate", list(images[:3]), [labels[0]] * 3)]),
        (4, [_tensor(shape)]),
        (4, [SoakRequest("truncated image", "/predict", "image/png", images[0][: len(images[0]) // 2], 422)]),
        (3, [_form("one bad image of three", "/predict", [images[0], b"no image", images[1]], ())]),
        (3, [SoakRequest("invalid JSON", "/predict", "application/json", b'{"instances": [', 400)]),
        (3, [_json("unknown field", {"instances": [{"b64": ""}], "topk": 1}, 422)]),
        (3, [SoakRequest("body too large", "/predict", "image/png", b"\x89PNG" + bytes(BODY_LIMIT), 413)]),
        (2, [SoakRequest("unknown model", "/models/unknown/predict", "image/png", images[0], 404)]),
        (2, [SoakRequest("unsupported media type", "/predict", "text/plain", b"cat", 415)]),
    ]
    weights = [weight for weight, _ in prepared]
    choices = [requests for _, requests in prepared]

    def draw(generator: random.Random) -> SoakRequest:
        return generator.choice(generator.choices(choices, weights)[0])

    return draw


def _raw(image: bytes) -> SoakRequest:
    return SoakRequest("one image", "/predict", "image/png", image, 200)


def _json(kind: str, message: object, status: int) -> SoakRequest:
    return SoakRequest(kind, "/predict", "application/json", json.dumps(message).encode(), status)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _npy(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    return buffer.getvalue()


def _tensor(shape: tuple[int, int, int]) -> SoakRequest:
    pixels = np.random.default_rng(1).integers(0, 256, (2, *shape), dtype=np.uint8)
    tensor = {"name": "images", "datatype": "UINT8", "shape": [2, *shape], "data": pixels.ravel().tolist()}
    return SoakRequest(
        "v2 tensor", "/v2/models/{model}/infer", "application/json", json.dumps({"inputs": [tensor]}).encode(), 200
    )


def _form(kind: str, path: str, files: Sequence[bytes], labels: Sequence[str]) -> SoakRequest:
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
    return SoakRequest(kind, path, f"multipart/form-data; boundary={_BOUNDARY}", body, status)
