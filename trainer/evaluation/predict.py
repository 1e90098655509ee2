"""Classifies image files with a bundle, through ONNX Runtime and without PyTorch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.bundle import Bundle, FloatArray
from schemas.errors import ImageError
from schemas.image import decode_image
from schemas.prediction import ClassProbability
from trainer.data.photo import is_document
from trainer.errors import DataError
from trainer.evaluation.onnx_session import OnnxModel
from trainer.files import find_files, open_newest_bundle

TOP = 3
_FILES = 256  # decoded at a time


@dataclass(frozen=True)
class Answer:
    """The most probable classes of a file in descending order, or the error."""

    file: str
    top: tuple[ClassProbability, ...]
    error: str | None = None


def predict_files(bundle_path: Path, paths: Sequence[Path]) -> list[Answer]:
    """Returns an answer per file, in order; folders are searched at any depth, and an unreadable file has its error.

    Raises BundleError for a bundle that must not answer, and DataError if the bundle, a path or any image is missing.
    """
    bundle = open_newest_bundle(bundle_path)
    model = OnnxModel(bundle.read(bundle.manifest.fp32))
    bundle.check_signature(model.inputs, model.outputs)
    files = list(_image_files(paths))
    answers: list[Answer] = []
    for start in range(0, len(files), _FILES):
        answers += _answer_batch(bundle, model, files[start : start + _FILES])
    return answers


def _answer_batch(bundle: Bundle, model: OnnxModel, files: Sequence[Path]) -> list[Answer]:
    images, errors = {}, {}
    for file in files:
        try:
            images[file] = decode_image(file.read_bytes(), bundle.manifest.input)
        except ImageError as error:
            errors[file] = str(error)
        except OSError as error:
            errors[file] = f"The file cannot be read ({error.strerror})."
    probabilities = (
        dict(zip(images, model.probabilities(np.stack(list(images.values()))), strict=True)) if images else {}
    )
    labels = bundle.manifest.labels
    return [
        Answer(str(file), (), errors[file]) if file in errors else Answer(str(file), _top(probabilities[file], labels))
        for file in files
    ]


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
