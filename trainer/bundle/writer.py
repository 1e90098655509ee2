"""Writes a bundle: temporary sibling, fsync, rename. A reader sees a whole version or none."""

import errno
import io
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from schemas.bundle import MANIFEST_FILE, Bundle, FloatArray, hash_file, open_bundle
from schemas.errors import BundleError, SchemaError
from schemas.image import Pixels, decode_image, encode_png
from schemas.manifest import Golden, InputSpec, ModelManifest, render_manifest
from trainer.bundle.model_card import model_card
from trainer.data.dataset import LabelledImages
from trainer.errors import ArtifactsError, DataError, ExportError, WriteError
from trainer.evaluation.onnx_session import OnnxModel
from trainer.files import newest_version, sync_entry, sync_tree

GOLDEN_SAMPLES = 8
_SHOWN_LABELS = 10
_NAME_TAKEN = {errno.ENOTEMPTY, errno.EEXIST}


@contextmanager
def new_bundle(artifacts: Path, name: str) -> Iterator[Path]:
    """A folder beside the model's versions to write a bundle in; it is gone after the block unless publish moved it.

    Raises ArtifactsError where nothing can be written there, WriteError where the block cannot write all that it wants.
    """
    folder = artifacts / name / f".new-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ArtifactsError(
            f"{artifacts / name} cannot be written ({error.strerror}); choose another --artifacts."
        ) from error
    try:
        yield folder
    except OSError as error:
        raise WriteError(f"The bundle could not be written to {artifacts / name} ({error.strerror}).") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _remove_if_empty(folder.parent)


def publish(folder: Path, manifest_of: Callable[[int], ModelManifest], model: OnnxModel) -> tuple[Path, ModelManifest]:
    """Gives the folder of new_bundle the model's next version number and makes it visible under it.

    It is checked as the service will check it before anyone can see it; ExportError where it fails. Two runs at once
    take two numbers: a rename onto a version that exists fails, and the next number is tried.
    """
    while True:
        version = _next_version(folder.parent)
        manifest = manifest_of(version)
        (folder / "README.md").write_text(model_card(manifest), encoding="utf-8")
        (folder / MANIFEST_FILE).write_text(render_manifest(manifest), encoding="utf-8")
        _check(Bundle(folder, manifest), model)
        sync_tree(folder)
        target = folder.parent / str(version)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno in _NAME_TAKEN:
                continue
            raise
        sync_entry(target.parent)
        return target, manifest


def check_writable(artifacts: Path, name: str) -> None:
    """Raises ArtifactsError now rather than after the training."""
    with new_bundle(artifacts, name):
        pass


def check_labels(model_folder: Path, labels: tuple[str, ...]) -> None:
    """Raises ArtifactsError if the newest version of the model has other labels, or the same in another order."""
    try:
        path = newest_version(model_folder)
        before = open_bundle(path).manifest.labels
    except (DataError, SchemaError):  # there is none, or it can be read by nobody
        return
    if before != labels:
        raise ArtifactsError(
            f"The data has the labels {_shown(labels)}, but {path} has {_shown(before)}. Clients of "
            f"'{model_folder.name}' would get other labels. Give the new model a name of its own with --name, or "
            "confirm with --relabel."
        )


def _shown(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:_SHOWN_LABELS]) + (f", ... ({len(labels)})" if len(labels) > _SHOWN_LABELS else "")


def write_golden(folder: Path, data: LabelledImages, spec: InputSpec, model: OnnxModel) -> Golden:
    """Encoded images below folder/golden and what fp32 answers: some of each class, and one that must be resized."""
    golden = folder / "golden"
    golden.mkdir()
    images = data.images[_some_of_each_class(data)]
    files = {f"{i}.png": encode_png(image) for i, image in enumerate(images)}
    files[f"{len(images)}-twice-the-size.jpg"] = _twice_the_size(images[0])
    for name, content in files.items():
        (golden / name).write_bytes(content)
    decoded = np.stack([decode_image(content, spec) for content in files.values()])
    expected = golden / "expected.json"
    expected.write_text(json.dumps(model.probabilities(decoded).astype(float).tolist()))
    return Golden(
        expected=hash_file(expected, folder), images=tuple(hash_file(golden / name, folder) for name in files)
    )


def read_golden(folder: Path, golden: Golden, spec: InputSpec) -> tuple[Pixels, FloatArray]:
    """The images as the graph takes them, uint8 [n, height, width, channels], and what is expected of them."""
    images = np.stack([decode_image((folder / entry.file).read_bytes(), spec) for entry in golden.images])
    return images, np.array(json.loads((folder / golden.expected.file).read_bytes()), np.float32)


def _check(bundle: Bundle, model: OnnxModel) -> None:
    try:
        bundle.check_signature(model.inputs, model.outputs)
        bundle.check_golden(bundle.manifest.fp32, model.probabilities)
    except BundleError as error:
        raise ExportError(f"The service would refuse the model, so no bundle was written: {error}") from error


def _some_of_each_class(data: LabelledImages) -> list[int]:
    """The first image of each class in turn, then the second, and so on."""
    order = np.argsort(data.labels, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    starts = np.searchsorted(data.labels[order], data.labels[order], side="left")
    rank[order] = np.arange(len(order)) - starts
    chosen: list[int] = np.lexsort((data.labels, rank))[:GOLDEN_SAMPLES].tolist()
    return chosen


def _twice_the_size(image: Pixels) -> bytes:
    plane = image.repeat(2, axis=0).repeat(2, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(plane[:, :, 0] if plane.shape[2] == 1 else plane).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _next_version(model_folder: Path) -> int:
    taken = (int(entry.name) for entry in model_folder.iterdir() if entry.name.isascii() and entry.name.isdigit())
    return max(taken, default=0) + 1


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # it holds versions
