"""Writes a bundle into a hidden sibling folder, flushes it and renames it: a reader sees a whole version or none."""

import errno
import io
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image

from schemas.bundle import MANIFEST_FILE, Bundle, FloatArray, hash_file
from schemas.errors import BundleError
from schemas.files import sync_entry
from schemas.image import Pixels, decode_image, encode_png
from schemas.manifest import Golden, InputSpec, ModelManifest, render_json
from trainer.bundle.model_card import model_card
from trainer.data.dataset import LabelledImages
from trainer.errors import ArtifactsError, ExportError, WriteError
from trainer.evaluation.onnx_session import OnnxModel
from trainer.export.graph import GoldenMaps, Graph
from trainer.files import sync_tree, version_folders

GOLDEN_SAMPLES = 8
_NAME_TAKEN = {errno.ENOTEMPTY, errno.EEXIST}


@contextmanager
def new_bundle(artifacts: Path, name: str) -> Iterator[Path]:
    """Yields a folder beside the model's versions; it is removed after the block unless publish renamed it.

    Raises ArtifactsError if it cannot be created, and WriteError if the block raises an OSError.
    """
    folder = artifacts / name / f".new-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ArtifactsError(
            f"{artifacts / name} is not writable ({error.strerror}). Choose another folder with --artifacts."
        ) from error
    try:
        yield folder
    except OSError as error:
        raise WriteError(f"The bundle could not be written to {artifacts / name} ({error.strerror}).") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # it holds versions
            folder.parent.rmdir()


def publish(folder: Path, manifest: ModelManifest, graph: Graph) -> Bundle:
    """Renames the folder of new_bundle to the model's next version, with manifest.json and the model card.

    Checks first what the service will check; raises ExportError if that fails. If another run takes the version at the
    same time, the rename fails, and the next version is tried.
    """
    while True:
        version = max(version_folders(folder.parent), default=0) + 1
        manifest = manifest.model_copy(update={"version": version})
        (folder / "README.md").write_text(model_card(manifest, folder), encoding="utf-8")
        (folder / MANIFEST_FILE).write_text(render_json(manifest), encoding="utf-8")
        _check(Bundle(folder, manifest), graph)
        sync_tree(folder)
        target = folder.parent / str(version)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno in _NAME_TAKEN:
                continue
            raise
        sync_entry(target.parent)
        return Bundle(target, manifest)


def check_writable(artifacts: Path, name: str) -> None:
    """Raises ArtifactsError, so that a run fails before the training and not after it."""
    with new_bundle(artifacts, name):
        pass


def write_golden(
    folder: Path, data: LabelledImages, spec: InputSpec, model: OnnxModel
) -> tuple[Golden, Pixels, FloatArray]:
    """Writes golden/: encoded images, of each class and one that needs resizing, and the model's probabilities.

    Returns the manifest's entry, the decoded images, uint8 [n, height, width, channels], and their probabilities.
    """
    golden = folder / "golden"
    golden.mkdir()
    images = data.images[_some_of_each_class(data)]
    files = {f"{i}.png": encode_png(image) for i, image in enumerate(images)}
    files[f"{len(images)}-twice-the-size.jpg"] = _twice_the_size(images[0])
    for name, content in files.items():
        (golden / name).write_bytes(content)
    decoded = np.stack([decode_image(content, spec) for content in files.values()])
    probabilities = model.probabilities(decoded)
    expected = golden / "expected.json"
    expected.write_text(json.dumps(probabilities.astype(float).tolist()))
    entries = tuple(hash_file(golden / name, folder) for name in files)
    return Golden(expected=hash_file(expected, folder), images=entries), decoded, probabilities


def write_golden_maps(folder: Path, golden: Golden, graph: Graph, images: Pixels) -> tuple[Golden, GoldenMaps | None]:
    """Adds the maps of the golden images, if the graph has maps."""
    if not graph.map_nodes:
        return golden, None
    probabilities, maps = graph.with_map.explain(images)
    file = folder / "golden" / "maps.json"
    file.write_text(json.dumps(maps.astype(float).tolist()))
    entry = golden.model_copy(update={"maps": hash_file(file, folder)})
    return entry, GoldenMaps(images, probabilities.argmax(axis=1), maps)


def _check(bundle: Bundle, graph: Graph) -> None:
    model, fp32 = graph.model, bundle.manifest.fp32
    try:
        bundle.check_signature(model.inputs, model.outputs)
        bundle.check_golden(fp32, model.probabilities)
        if fp32.explanation:
            with_map = OnnxModel(bundle.read_with_map(fp32))
            bundle.check_signature(with_map.inputs, with_map.outputs, with_map=True)
            bundle.check_golden_maps(fp32, with_map.explain)
    except BundleError as error:
        raise ExportError(f"The service would refuse the bundle, so it was not written: {error}") from error


def _some_of_each_class(data: LabelledImages) -> list[int]:
    """Returns the positions of the first image of each class in turn, then the second, and so on."""
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
