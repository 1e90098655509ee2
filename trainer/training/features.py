"""Features of a frozen backbone, of each image and its mirror image: computed once, and cached for later runs.

On a CPU, ONNX Runtime computes them faster than PyTorch. The exported backbone is cached, too.
"""

import hashlib
import io
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from schemas.bundle import FloatArray
from schemas.files import atomic_write
from schemas.image import Pixels
from schemas.manifest import InputSpec
from trainer.data.dataset import LabelledImages
from trainer.data.progress_bar import tracked
from trainer.evaluation.onnx_session import OnnxModel
from trainer.export.body import BODY_OUTPUTS, export_body
from trainer.models.backbones import Body
from trainer.models.layers import as_input
from trainer.training.progress import Reporter

_BATCH = 64
_FORECAST_BATCHES = 4
_LONG_SECONDS = 10
_KEPT_FILES = 4

Forward = Callable[[Pixels], FloatArray]


@dataclass(frozen=True)
class Features:
    """images and mirrored are float32 [n, features]; seconds is the time to compute them.

    body is the ONNX file that computed them, if one did.
    """

    images: FloatArray
    mirrored: FloatArray
    seconds: float
    body: bytes | None = None


def compute_features(
    body: Body,
    spec: InputSpec,
    parts: Sequence[LabelledImages],
    device: torch.device,
    reporter: Reporter,
    cache: Path | None = None,
) -> Features:
    """Returns the features of the parts' images, one part after the other.

    cache is the folder for features of earlier runs; None keeps none. Raises ExportError.
    """
    body = body.eval()
    file = None if cache is None else cache / f"{_key(body, parts)}.npz"
    if file is not None and (found := _read(file)) is not None:
        reporter.note(f"using cached features from {file}")
        return found
    started, count = time.perf_counter(), sum(map(len, parts))
    graph = None if device.type == "cuda" else export_body(body, spec)
    forward = _gpu_forward(body, device) if graph is None else _cpu_forward(graph)
    rows: list[tuple[FloatArray, FloatArray]] = []
    for batch in tracked(_batches(parts), "computing features", -(-count // _BATCH) + len(parts) - 1):
        first = time.perf_counter()
        rows.append((forward(batch), forward(np.ascontiguousarray(batch[:, :, ::-1]))))
        left = (time.perf_counter() - first) * (count / _BATCH - len(rows))
        if len(rows) == _FORECAST_BATCHES and left > _LONG_SECONDS:
            reporter.note(f"computing the features of {count:,} images and their mirror images: about {left:.0f} s")
    images, mirrored = (np.concatenate(side) for side in zip(*rows, strict=True))
    features = Features(images, mirrored, time.perf_counter() - started, graph)
    if file is not None:
        try:
            _write(file, features)
        except OSError as error:
            reporter.note(
                f"the features are not kept for later runs: {file.parent} cannot be written ({error.strerror})"
            )
    return features


def _batches(parts: Sequence[LabelledImages]) -> Iterator[Pixels]:
    for part in parts:
        for start in range(0, len(part), _BATCH):
            yield part.images[start : start + _BATCH]


def _cpu_forward(graph: bytes) -> Forward:
    model = OnnxModel(graph)
    return lambda images: model.compute(images, BODY_OUTPUTS[:1])[0]


def _gpu_forward(body: Body, device: torch.device) -> Forward:
    body = body.to(device)

    @torch.inference_mode()
    def forward(images: Pixels) -> FloatArray:
        features: FloatArray = body(as_input(torch.from_numpy(images).to(device)))[0].cpu().numpy()
        return features

    return forward


def _key(body: Body, parts: Sequence[LabelledImages]) -> str:
    """Depends on the layers with their settings, on the weights, and on the images as decoded and resized.

    Two of timm's networks can have the same weights and other layers: they differ in padding or in epsilon.
    """
    content = hashlib.sha256(repr(body).encode())
    for name, tensor in body.state_dict().items():
        content.update(name.encode())
        content.update(tensor.cpu().contiguous().numpy().tobytes())
    for part in parts:
        content.update(repr(part.images.shape).encode())
        content.update(part.images.digests.tobytes())
    return content.hexdigest()[:32]


def _read(file: Path) -> Features | None:
    """Returns None if there is no file, or if it is damaged."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            body = arrays["body"].tobytes() or None
            return Features(arrays["images"], arrays["mirrored"], float(arrays["seconds"]), body)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(file: Path, features: Features) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    body = np.frombuffer(features.body or b"", np.uint8)
    np.savez(content, images=features.images, mirrored=features.mirrored, seconds=features.seconds, body=body)
    atomic_write(file, content.getvalue())
    for old in sorted(file.parent.glob("*.npz"), key=lambda path: path.stat().st_mtime)[:-_KEPT_FILES]:
        old.unlink(missing_ok=True)
