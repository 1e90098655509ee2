"""Image files -> predictions with a bundle, through ONNX Runtime; PyTorch is not needed."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from schemas.bundle import Bundle, FloatArray, open_bundle
from schemas.errors import ImageError
from schemas.image import decode_image
from trainer.errors import DataError
from trainer.evaluation.onnx_session import BATCH, OnnxModel
from trainer.files import newest_version

TOP = 3
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}


@dataclass(frozen=True)
class Guess:
    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Answer:
    """The most probable classes in falling order, or why there is none."""

    file: str
    top: tuple[Guess, ...]
    error: str | None = None


def predict_files(bundle_path: Path, paths: Sequence[Path]) -> list[Answer]:
    """Answers for files and folders (searched for images, at any depth), in order; an unreadable one carries its error.

    Raises BundleError for a bundle that must not answer, DataError where it, a path, or any image is missing.
    """
    bundle = open_bundle(newest_version(bundle_path))
    model = OnnxModel(bundle.read(bundle.manifest.fp32))
    bundle.check_signature(model.inputs, model.outputs)
    files = list(_image_files(paths))
    answers: list[Answer] = []
    for start in range(0, len(files), BATCH):
        answers += _answer_batch(bundle, model, files[start : start + BATCH])
    return answers


def as_json(answers: Iterable[Answer]) -> str:
    return json.dumps([_entry(answer) for answer in answers], indent=2)


def as_table(answers: Sequence[Answer]) -> str:
    rows = [("file", "label", "probability", "next")]
    for answer in answers:
        if answer.error is not None:
            rows.append((answer.file, "-", "-", answer.error))
            continue
        first, *rest = answer.top
        others = ", ".join(f"{guess.label} {guess.probability:.2%}" for guess in rest)
        rows.append((answer.file, first.label, f"{first.probability:.2%}", others))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        f"{file:<{widths[0]}}  {label:<{widths[1]}}  {probability:>{widths[2]}}  {others}"
        for file, label, probability, others in rows
    )


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


def _top(probabilities: FloatArray, labels: tuple[str, ...]) -> tuple[Guess, ...]:
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    return tuple(Guess(labels[i], int(i), float(probabilities[i])) for i in order)


def _entry(answer: Answer) -> dict[str, object]:
    if answer.error is not None:
        return {"file": answer.file, "error": answer.error}
    return {"file": answer.file, **asdict(answer.top[0]), "top": [asdict(guess) for guess in answer.top]}


def _image_files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not found:
                raise DataError(f"{path} holds no image files ({', '.join(sorted(SUFFIXES))}).")
            yield from found
        elif path.exists():
            yield path
        else:
            raise DataError(f"{path} does not exist.")
