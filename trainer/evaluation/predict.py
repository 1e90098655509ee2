"""Classifies image files with a bundle, through ONNX Runtime and without PyTorch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from schemas.bundle import Bundle, FloatArray
from schemas.errors import ImageError
from schemas.heat_map import overlay
from schemas.image import decode_image, encode_png
from schemas.prediction import ClassProbability
from trainer.data.photo import is_document
from trainer.errors import DataError, WriteError
from trainer.evaluation.onnx_session import OnnxModel
from trainer.files import find_files, open_newest_bundle

TOP = 3
_FILES = 256  # decoded at a time


@dataclass(frozen=True)
class Answer:
    """The most probable classes of a file in descending order, or the error. overlay is the file that was drawn."""

    file: str
    top: tuple[ClassProbability, ...]
    error: str | None = None
    overlay: str | None = None


def predict_files(bundle_path: Path, paths: Sequence[Path], overlays: Path | None = None) -> list[Answer]:
    """Returns an answer per file, in order; folders are searched at any depth, and an unreadable file has its error.

    With a folder for overlays, writes each image there with its class activation map drawn over it.

    Raises BundleError for a bundle that must not answer; DataError if the bundle, a path or any image is missing, or if
    the model has no maps; WriteError.
    """
    bundle = open_newest_bundle(bundle_path)
    model = _open(bundle, explain=overlays is not None)
    files = list(_image_files(paths))
    answers: list[Answer] = []
    for start in range(0, len(files), _FILES):
        answers += _answer_batch(bundle, model, files[start : start + _FILES], overlays, start)
    return answers


def _open(bundle: Bundle, *, explain: bool) -> OnnxModel:
    manifest = bundle.manifest
    if explain and manifest.map_shape is None:
        reason = manifest.explanation and manifest.explanation.reason
        raise DataError(
            f"{bundle.path} has no class activation maps, so leave out --explain. "
            f"{reason or 'It was trained by an earlier release; train it again.'}"
        )
    model = OnnxModel(bundle.read_with_map(manifest.fp32) if explain else bundle.read(manifest.fp32))
    bundle.check_signature(model.inputs, model.outputs, with_map=explain)
    return model


def _answer_batch(
    bundle: Bundle, model: OnnxModel, files: Sequence[Path], overlays: Path | None, start: int
) -> list[Answer]:
    images, errors = {}, {}
    for file in files:
        try:
            images[file] = decode_image(file.read_bytes(), bundle.manifest.input)
        except ImageError as error:
            errors[file] = str(error)
        except OSError as error:
            errors[file] = f"The file cannot be read ({error.strerror})."
    answers = {file: Answer(str(file), (), error) for file, error in errors.items()}
    if images:
        batch = np.stack(list(images.values()))
        probabilities, maps = model.explain(batch) if overlays else (model.probabilities(batch), None)
        for i, file in enumerate(images):
            answers[file] = Answer(str(file), _top(probabilities[i], bundle.manifest.labels))
            if overlays and maps is not None:
                target = overlays / f"{start + i:04}-{file.stem}.png"
                _write(target, encode_png(overlay(batch[i], maps[i])))
                answers[file] = replace(answers[file], overlay=str(target))
    return [answers[file] for file in files]


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise WriteError(f"{path} cannot be written ({error.strerror}).") from error


def _top(probabilities: FloatArray, labels: tuple[str, ...]) -> tuple[ClassProbability, ...]:
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    return tuple(ClassProbability(label=labels[i], index=int(i), probability=float(probabilities[i])) for i in order)


def _image_files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = [file for file in find_files(path)[0] if not is_document(file)]
            if not found:
                raise DataError(f"{path} holds no image files.")
            yield from found
        elif path.exists():
            yield path
        else:
            raise DataError(f"{path} does not exist.")
