"""Reading a bundle: nothing in it is believed before its hash is seen to be right.

Writing one is the trainer's (trainer/bundle/writer.py). The format is specified in artifacts/README.md.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from schemas.errors import (
    BundleError,
    GoldenMismatchError,
    HashMismatchError,
    ImageError,
    ManifestError,
    MissingFileError,
    ShapeMismatchError,
)
from schemas.files import read_regular_file
from schemas.image import Pixels, decode_image
from schemas.manifest import HashedFile, ModelManifest, Variant, parse_manifest

MANIFEST_FILE = "manifest.json"
INPUT_NAME = "images"
OUTPUT_NAMES = ("probabilities", "logits")

FloatArray = npt.NDArray[np.float32]
Infer = Callable[[Pixels], FloatArray]
"""uint8 [batch, height, width, channels] -> probabilities float32 [batch, classes]."""


@dataclass(frozen=True)
class GoldenSample:
    file: str
    image: bytes
    probabilities: FloatArray


@dataclass(frozen=True)
class TensorInfo:
    """A graph's input or output, in ONNX Runtime's words; a symbolic dimension is a string or None."""

    name: str
    type: str
    shape: Sequence[int | str | None]


@dataclass(frozen=True)
class Bundle:
    path: Path
    manifest: ModelManifest

    def read(self, entry: HashedFile) -> bytes:
        """The file's bytes, those that were hashed: what is used cannot differ from what was verified.

        Raises MissingFileError or HashMismatchError.
        """
        data = _read(self.path / entry.file, entry.file)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise HashMismatchError(
                f"{entry.file} does not have the sha256 that the manifest gives; restore or retrain."
            )
        return data

    def golden_samples(self) -> tuple[GoldenSample, ...]:
        """Raises MissingFileError, HashMismatchError or ManifestError."""
        golden = self.manifest.golden
        shape = (len(golden.images), len(self.manifest.labels))
        try:
            expected = np.array(json.loads(self.read(golden.expected)), dtype=np.float64)
        except (ValueError, TypeError, RecursionError) as error:
            raise ManifestError(f"{golden.expected.file} does not hold lists of numbers.") from error
        if expected.shape != shape:
            raise ManifestError(f"{golden.expected.file} holds {list(expected.shape)} numbers, not {list(shape)}.")
        if not ((expected >= 0) & (expected <= 1)).all():  # written so that NaN fails
            raise ManifestError(f"{golden.expected.file} holds a number that is no probability.")
        rows = expected.astype(np.float32)
        return tuple(
            GoldenSample(entry.file, self.read(entry), row) for entry, row in zip(golden.images, rows, strict=True)
        )

    def check_signature(self, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> None:
        """Raises ShapeMismatchError where the graph's inputs or outputs are not those of the manifest."""
        classes = len(self.manifest.labels)
        _check_tensors("input", inputs, [(INPUT_NAME, "tensor(uint8)", self.manifest.input.shape)])
        _check_tensors("output", outputs, [(name, "tensor(float)", (classes,)) for name in OUTPUT_NAMES])

    def check_golden(self, variant: Variant, infer: Infer) -> None:
        """Replays the golden samples through the real decode and the given session, one by one and as one batch.

        Raises GoldenMismatchError naming the sample; also for probabilities that are not finite.
        """
        samples = self.golden_samples()
        try:
            images = np.stack([decode_image(sample.image, self.manifest.input) for sample in samples])
        except ImageError as error:
            raise GoldenMismatchError(f"A golden sample cannot be decoded: {error}") from error
        single = np.concatenate([infer(images[i : i + 1]) for i in range(len(samples))])
        for answered in (single, infer(images)):
            if answered.shape != (len(samples), len(self.manifest.labels)):
                raise GoldenMismatchError(
                    f"The {len(samples)} golden samples are answered with {list(answered.shape)} numbers, not with one "
                    "probability a class for each."
                )
            for sample, row in zip(samples, answered, strict=True):
                difference = float(np.abs(row - sample.probabilities).max())
                if not difference <= variant.golden_tolerance:  # written so that NaN fails
                    raise GoldenMismatchError(
                        f"The golden sample {sample.file} is answered {difference:.2g} away from what the manifest "
                        f"expects of {variant.name} (at most {variant.golden_tolerance:g}); the model is not the one "
                        "that was exported, or this machine computes it wrongly."
                    )


def open_bundle(path: Path) -> Bundle:
    """Reads the manifest of artifacts/<model>/<version>/; files are verified as they are read.

    Raises MissingFileError, ManifestError or FormatVersionError.
    """
    manifest = parse_manifest(_read(path / MANIFEST_FILE, MANIFEST_FILE))
    # The visible path counts, too: a version may be a link into a store of builds.
    places = [f"{place.parent.name}/{place.name}" for place in (path.absolute(), path.resolve())]
    if f"{manifest.name}/{manifest.version}" not in places:
        raise ManifestError(
            f"The manifest says {manifest.name} version {manifest.version}, but the bundle lies in {places[0]}; "
            "a bundle's folder is <name>/<version>."
        )
    return Bundle(path, manifest)


def hash_file(path: Path, root: Path) -> HashedFile:
    """The manifest's entry for a file below root."""
    return HashedFile(file=path.relative_to(root).as_posix(), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def _read(path: Path, name: str) -> bytes:
    try:
        return read_regular_file(path)
    except FileNotFoundError as error:
        raise MissingFileError(f"{name} is missing.") from error
    except OSError as error:
        raise BundleError(f"{name} cannot be read: {error.strerror}.") from error


def _check_tensors(
    kind: str, found: Sequence[TensorInfo], expected: Sequence[tuple[str, str, tuple[int, ...]]]
) -> None:
    by_name = {tensor.name: tensor for tensor in found}
    if set(by_name) != {name for name, _, _ in expected}:
        raise ShapeMismatchError(f"The graph's {kind}s are {sorted(by_name)}, not {[name for name, _, _ in expected]}.")
    for name, kind_of_number, shape in expected:
        tensor = by_name[name]
        symbolic_batch = len(tensor.shape) > 0 and not isinstance(tensor.shape[0], int)
        if tensor.type != kind_of_number or not symbolic_batch or tuple(tensor.shape[1:]) != shape:
            raise ShapeMismatchError(
                f"The graph's {kind} '{name}' is {tensor.type} {list(tensor.shape)}, "
                f"not {kind_of_number} ['batch', {', '.join(map(str, shape))}]."
            )
