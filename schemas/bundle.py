"""Reads and verifies bundles: no file is used before its hash has been checked.

The trainer writes bundles (trainer/bundle/writer.py). artifacts/README.md specifies the format.
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
MAP_NAME = "cam"

FloatArray = npt.NDArray[np.float32]
Infer = Callable[[Pixels], FloatArray]
"""uint8 [batch, height, width, channels] -> probabilities float32 [batch, classes]."""
Explain = Callable[[Pixels], tuple[FloatArray, FloatArray]]
"""As Infer, and the class activation map of the most probable class, float32 [batch, height, width]."""


@dataclass(frozen=True)
class GoldenSample:
    file: str
    image: bytes
    probabilities: FloatArray


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a graph, as ONNX Runtime describes it; a symbolic dimension is a string or None."""

    name: str
    type: str
    shape: Sequence[int | str | None]


@dataclass(frozen=True)
class Bundle:
    path: Path
    manifest: ModelManifest

    def read(self, entry: HashedFile) -> bytes:
        """Returns the file's bytes after checking their hash, so a later change of the file has no effect.

        Raises MissingFileError, HashMismatchError, or BundleError if the file cannot be read.
        """
        data = _read(self.path / entry.file, entry.file)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise HashMismatchError(
                f"The SHA-256 of {entry.file} differs from the manifest's; restore the file or train again."
            )
        return data

    def golden_samples(self) -> tuple[GoldenSample, ...]:
        """Returns the samples in the manifest's order. Raises MissingFileError, HashMismatchError or ManifestError."""
        golden = self.manifest.golden
        shape = (len(golden.images), len(self.manifest.labels))
        try:
            expected = np.array(json.loads(self.read(golden.expected)), dtype=np.float64)
        except (ValueError, TypeError, RecursionError) as error:
            raise ManifestError(f"{golden.expected.file} must contain lists of numbers.") from error
        if expected.shape != shape:
            raise ManifestError(f"{golden.expected.file} has shape {list(expected.shape)}; expected {list(shape)}.")
        if not ((expected >= 0) & (expected <= 1)).all():  # this form rejects NaN
            raise ManifestError(f"{golden.expected.file} contains a number outside 0 to 1.")
        rows = expected.astype(np.float32)
        return tuple(
            GoldenSample(entry.file, self.read(entry), row) for entry, row in zip(golden.images, rows, strict=True)
        )

    def read_with_map(self, variant: Variant) -> bytes:
        """Returns the variant's graph, with the output `cam` if the network has maps. Raises as read.

        Protobuf merges concatenated messages: their lists of nodes, constants and outputs are joined.
        """
        return self.read(variant) + (self.read(variant.explanation) if variant.explanation else b"")

    def check_signature(
        self, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], *, with_map: bool = False
    ) -> None:
        """Raises ShapeMismatchError if the graph's inputs or outputs differ from the manifest."""
        classes = len(self.manifest.labels)
        _check_tensors("input", inputs, [(INPUT_NAME, "tensor(uint8)", self.manifest.input.shape)])
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(OUTPUT_NAMES, (classes,))
        if with_map and self.manifest.map_shape:
            shapes[MAP_NAME] = self.manifest.map_shape
        _check_tensors("output", outputs, [(name, "tensor(float)", shape) for name, shape in shapes.items()])

    def check_golden(self, variant: Variant, infer: Infer) -> None:
        """Decodes the golden samples and runs `infer` on them, one at a time and as one batch.

        Raises GoldenMismatchError naming the first sample whose probabilities differ or are not finite.
        """
        samples = self.golden_samples()
        images = self._decoded(samples)
        single = np.concatenate([infer(images[i : i + 1]) for i in range(len(samples))])
        for probabilities in (single, infer(images)):
            shape = (len(samples), len(self.manifest.labels))
            if probabilities.shape != shape:
                raise GoldenMismatchError(
                    f"The output for the golden samples has shape {list(probabilities.shape)}; expected {list(shape)}."
                )
            for sample, row in zip(samples, probabilities, strict=True):
                difference = float(np.abs(row - sample.probabilities).max())
                if not difference <= variant.golden_tolerance:  # this form rejects NaN
                    raise GoldenMismatchError(
                        f"Golden sample {sample.file}: the probabilities of {variant.name} differ from the expected "
                        f"ones by {difference:.2g} (tolerance {variant.golden_tolerance:g}). Either the model changed "
                        "after its export, or this machine computes it incorrectly."
                    )

    def check_golden_maps(self, variant: Variant, explain: Explain) -> None:
        """Like check_golden, for the maps of the golden samples as one batch.

        The map of another class than the expected one is not compared: a variant may decide a near tie differently.
        """
        tolerance, file = variant.explanation, self.manifest.golden.maps
        if tolerance is None or file is None:
            return
        samples, expected = self.golden_samples(), self._golden_maps(file)
        probabilities, found = explain(self._decoded(samples))
        if found.shape != expected.shape:
            raise GoldenMismatchError(
                f"The maps of the golden samples have shape {list(found.shape)}; expected {list(expected.shape)}."
            )
        for sample, answer, row, map_ in zip(samples, probabilities, found, expected, strict=True):
            difference = float(np.abs(row - map_).max())
            same_class = answer.argmax() == sample.probabilities.argmax()
            if not np.isfinite(difference) or (same_class and difference > tolerance.golden_tolerance):
                raise GoldenMismatchError(
                    f"Golden sample {sample.file}: the class activation map of {variant.name} differs from the "
                    f"expected one by {difference:.2g} (tolerance {tolerance.golden_tolerance:.2g}). Either the model "
                    "changed after its export, or this machine computes it incorrectly."
                )

    def _golden_maps(self, file: HashedFile) -> FloatArray:
        shape = (len(self.manifest.golden.images), *(self.manifest.map_shape or ()))
        try:
            maps = np.array(json.loads(self.read(file)), dtype=np.float32)
        except (ValueError, TypeError, RecursionError) as error:
            raise ManifestError(f"{file.file} must contain lists of numbers.") from error
        if maps.shape != shape or not np.isfinite(maps).all():
            raise ManifestError(f"{file.file} must contain {shape[0]} maps of {shape[1]} x {shape[2]} finite numbers.")
        return maps

    def _decoded(self, samples: Sequence[GoldenSample]) -> Pixels:
        try:
            return np.stack([decode_image(sample.image, self.manifest.input) for sample in samples])
        except ImageError as error:
            raise GoldenMismatchError(f"A golden sample cannot be decoded: {error}") from error


def open_bundle(path: Path) -> Bundle:
    """Reads the manifest of artifacts/<model>/<version>/. Other files are verified when they are read.

    Raises MissingFileError, ManifestError or FormatVersionError.
    """
    manifest = parse_manifest(_read(path / MANIFEST_FILE, MANIFEST_FILE))
    # The path before resolving links also counts: a version may be a link to a build folder.
    places = [f"{place.parent.name}/{place.name}" for place in (path.absolute(), path.resolve())]
    if f"{manifest.name}/{manifest.version}" not in places:
        raise ManifestError(
            f"The manifest is of {manifest.name} version {manifest.version}, but the bundle is in {places[0]}; "
            f"move it to {manifest.name}/{manifest.version}."
        )
    return Bundle(path, manifest)


def hash_file(path: Path, root: Path) -> HashedFile:
    """Returns the manifest entry for a file below root."""
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
        raise ShapeMismatchError(
            f"The graph's {kind}s are {sorted(by_name)}; expected {[name for name, _, _ in expected]}."
        )
    for name, dtype, shape in expected:
        tensor = by_name[name]
        symbolic_batch = len(tensor.shape) > 0 and not isinstance(tensor.shape[0], int)
        if tensor.type != dtype or not symbolic_batch or tuple(tensor.shape[1:]) != shape:
            raise ShapeMismatchError(
                f"The graph's {kind} '{name}' is {tensor.type} {list(tensor.shape)}; "
                f"expected {dtype} ['batch', {', '.join(map(str, shape))}]."
            )
