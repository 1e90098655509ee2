"""One .npz file: images and labels, and if there are any, those of a validation and a test split, and classes.

It knows Convoy's names (images, labels_test, classes), Keras's (x_train, y_val), MedMNIST's (train_images, test_labels)
and scikit-learn's (data, target). An image may be a row of values, and have its channels first or last. Images are read
in blocks, so that they may be larger than memory.
"""

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from schemas.image import fit_pixels
from schemas.manifest import InputSpec
from schemas.value_range import ValueRange, outside, shown_range, to_bytes
from trainer.data.dataset import Labels, SourceData, data_name
from trainer.data.decode_cache import Decoded, Decoding, EntryWriter, decode_once
from trainer.data.labels import Values, index_classes, read_labels, rename_classes
from trainer.data.pixel_range import decide_range
from trainer.data.progress_bar import tracked
from trainer.data.table import Shape, square
from trainer.errors import DataError
from trainer.recipe import DataConfig

_CLASSES = ("classes", "class_names", "label_names")
_PARTS = {
    "train": (
        ("images", "labels"),
        ("x_train", "y_train"),
        ("train_images", "train_labels"),
        ("train_x", "train_y"),
        ("x", "y"),
        ("data", "target"),
        ("data", "labels"),
        ("images_train", "labels_train"),
        ("image", "label"),
    ),
    "validation": (
        ("images_val", "labels_val"),
        ("x_val", "y_val"),
        ("val_images", "val_labels"),
        ("val_x", "val_y"),
        ("x_valid", "y_valid"),
        ("x_validation", "y_validation"),
        ("images_validation", "labels_validation"),
        ("validation_images", "validation_labels"),
    ),
    "test": (
        ("images_test", "labels_test"),
        ("x_test", "y_test"),
        ("test_images", "test_labels"),
        ("test_x", "test_y"),
    ),
}
_CODE = (__name__, "trainer.data.pixel_range", "trainer.data.labels", "trainer.data.table")
_CHANNELS = {1: "grey", 3: "RGB", 4: "RGBA over white"}
_LEAST_VALUES = 16  # of an image in a row
_BLOCK_BYTES = 8 * 2**20


class Layout(NamedTuple):
    """One image in an array."""

    height: int
    width: int
    channels: int
    channels_first: bool

    @property
    def stored(self) -> tuple[int, int, int]:
        height, width, channels, first = self
        return (channels, height, width) if first else (height, width, channels)

    @property
    def spec(self) -> InputSpec:
        """The size of the images in colour or grey; RGBA is laid over white."""
        return InputSpec(height=self.height, width=self.width, channels=1 if self.channels == 1 else 3)

    def __str__(self) -> str:
        kind = f"{_CHANNELS[self.channels]}{', channels first' if self.channels_first else ''}"
        return f"{self.height}x{self.width} {kind}"


class ZippedArray:
    """One array, as its header describes it; its values stay in the file until they are read."""

    def __init__(self, file: zipfile.ZipFile, name: str) -> None:
        """Raises DataError for a member that is not an array."""
        self._file, self.name = file, name
        with self._member() as member:
            self.shape, self._columns_first, self.dtype = _header(member)
        row = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        self._step = max(1, _BLOCK_BYTES // max(1, row))

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    @property
    def block_count(self) -> int:
        return 1 if self._columns_first else -(-len(self) // self._step)

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """Yields rows in order, some megabytes at a time; all at once if they are stored column by column."""
        if self._columns_first:
            yield self.whole()
            return
        with self._member() as member:
            _header(member)
            for start in range(0, len(self), self._step):
                yield self._read(member, (min(self._step, len(self) - start), *self.shape[1:]))

    def whole(self) -> npt.NDArray[Any]:
        with self._member() as member:
            _header(member)
            return self._read(member, self.shape)

    @contextmanager
    def _member(self) -> Iterator[IO[bytes]]:
        with _damage_as_error(self.name), self._file.open(f"{self.name}.npy") as member:
            yield member

    def _read(self, member: IO[bytes], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        with _damage_as_error(self.name):
            data = member.read(int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize)
            return np.frombuffer(data, self.dtype).reshape(shape, order="F" if self._columns_first else "C")


@contextmanager
def open_archive(path: Path) -> Iterator[dict[str, ZippedArray]]:
    """Yields the arrays by name, in lower case. A DataError, also the block's own, names the file."""
    try:
        with _damage_as_error("it"):
            file = zipfile.ZipFile(path)
        with file:
            names = [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]
            yield {name.lower(): ZippedArray(file, name) for name in names}
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)


@contextmanager
def _damage_as_error(name: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError) as error:
        raise DataError(f"{name} is damaged, cut short or not a numpy array ({error}).") from error


Arrays = Mapping[str, ZippedArray]


@dataclass(frozen=True)
class NpzSource:
    """place is the file, or a folder that holds one; cache is the folder for decoded images (None: the usual one)."""

    place: Path
    config: DataConfig
    cache: Path | None = None

    def check(self) -> None:
        """Raises DataError if the file is missing, or lacks an array."""
        with open_archive(_find(self.place)) as arrays:
            _parts(arrays)

    def shape(self) -> Shape:
        """Returns height, width and channels of the images. Raises DataError."""
        if self.config.input.spec is not None:
            return self.config.input.spec.shape
        with open_archive(_find(self.place)) as arrays:
            images, _ = next(iter(_parts(arrays).values()))
            return _layout(images, self.config.shape).spec.shape

    def resized(self, size: InputSpec) -> Self:
        return replace(self, config=self.config.with_input(size))

    def load(self) -> SourceData:
        """Raises DataError naming the array that is missing or unfit."""
        path, config = _find(self.place), self.config

        def decode(writer: EntryWriter) -> Decoded:
            with open_archive(path) as arrays:
                return self._decode(arrays, writer)

        settings: dict[str, JsonValue] = config.model_dump(mode="json", include={"value_range", "input", "shape"})
        entry = decode_once(Decoding("npz", path.parent, [path], settings, _CODE), self.cache, decode)
        with open_archive(path) as arrays:
            names = _class_names(arrays)
            unknown = [name for name in entry.classes if names and not name.isdecimal() and name not in names]
            if unknown:
                raise DataError(f"the label '{unknown[0]}' is not one of the classes ({', '.join(names)}).")
            labels, parts = rename_classes(entry.classes, names or config.labels, entry.parts)
        height, width, channels = parts["train"].images.shape[1:]
        spec = config.input.spec or InputSpec(height=height, width=width, channels=channels)
        return SourceData(
            data_name(path), labels, spec, parts["train"], parts.get("test"), entry.notes, parts.get("validation")
        )

    def _decode(self, arrays: Arrays, writer: EntryWriter) -> Decoded:
        parts = _parts(arrays)
        layouts = {images.name: _layout(images, self.config.shape) for images, _ in parts.values()}
        if len(set(layouts.values())) > 1:
            different = " and ".join(f"{images.name} {list(images.shape)}" for images, _ in parts.values())
            raise DataError(f"The arrays hold images of different shapes: {different}.")
        classes, indices = index_classes({part: _labels(*arrays) for part, arrays in parts.items()})
        value_range = self.config.value_range or decide_range(
            {images.name: images.blocks() for images, _ in parts.values()},
            bytes_by_type=all(images.dtype == np.uint8 for images, _ in parts.values()),
        )
        notes = [self._write(parts[part][0], indices[part], value_range, part, writer) for part in parts]
        read = {array.name for pair in parts.values() for array in pair}
        unread = [array.name for name, array in arrays.items() if array.name not in read and name not in _CLASSES]
        if unread:
            notes.append(f"left out arrays of other names: {', '.join(unread)}")
        return Decoded(notes=tuple(notes), classes=classes)

    def _write(
        self, images: ZippedArray, labels: Labels, value_range: ValueRange, name: str, writer: EntryWriter
    ) -> str:
        layout = _layout(images, self.config.shape)
        spec = self.config.input.spec or layout.spec
        with writer.part(name, spec.shape) as part:
            for block in tracked(images.blocks(), f"reading {images.name}", images.block_count):
                wrong = outside(block, value_range)
                if wrong.any():
                    image, *place = (int(i) for i in np.argwhere(wrong)[0])
                    raise DataError(
                        f"{images.name}{[image + len(part), *place]} is {block[wrong][0]:g}, outside "
                        f"{shown_range(value_range)}, which data.value_range can change."
                    )
                pixels = to_bytes(block, value_range).reshape(-1, *layout.stored)
                pixels = np.moveaxis(pixels, 1, 3) if layout.channels_first else pixels
                part.append(fit_pixels(image, spec) for image in pixels)
            part.label(labels.tolist())
        return f"{images.name}: {len(labels):,} images of {layout}, values {shown_range(value_range)}"


def _parts(arrays: Arrays) -> dict[str, tuple[ZippedArray, ZippedArray]]:
    """Returns images and labels by part. Raises DataError for a missing array, and one of Python objects."""
    parts = {}
    for part, pairs in _PARTS.items():
        found = sorted(
            (pair for pair in pairs if set(pair) & set(arrays)), key=lambda pair: not set(pair) <= set(arrays)
        )
        pair = next(iter(found), pairs[0] if part == "train" else None)
        if pair is not None:
            parts[part] = (_named(arrays, pair[0]), _named(arrays, pair[1]))
    return parts


def _named(arrays: Arrays, name: str) -> ZippedArray:
    if name not in arrays:
        there = ", ".join(array.name for array in arrays.values()) or "none"
        known = "; ".join(f"{images}, {labels}" for images, labels in _PARTS["train"])
        raise DataError(f"there is no array {name}, but {there}. The names of images and labels can be {known}.")
    array = arrays[name]
    if array.dtype.hasobject:  # would have to be unpickled
        raise DataError(f"{array.name} holds Python objects, which are not read for safety; save numbers or text.")
    return array


def _class_names(arrays: Arrays) -> tuple[str, ...]:
    name = next((name for name in _CLASSES if name in arrays), None)
    if name is None:
        return ()
    names = _named(arrays, name).whole()
    return tuple(map(str, (np.char.decode(names, "utf-8") if names.dtype.kind == "S" else names).tolist()))


def _layout(images: ZippedArray, given: Shape | None) -> Layout:
    """Returns the shape of one image. A row of values is an image of the given shape, else a square one."""
    if 0 in images.shape:
        raise DataError(f"{images.name} is empty ({list(images.shape)}).")
    shape, numbers = images.shape[1:], images.dtype.kind in "biuf"
    if numbers and len(shape) == 1 and (given or shape[0] >= _LEAST_VALUES):
        flat = given or square(shape[0])
        if flat is None or math.prod(flat) != shape[0]:
            raise DataError(
                f"{images.name} has {shape[0]:,} values an image, which is neither data.shape nor a square grey or RGB "
                "image. Set data.shape to height,width,channels."
            )
        return Layout(*flat, channels_first=False)
    if numbers and len(shape) == 2:
        return Layout(*shape, channels=1, channels_first=False)
    if numbers and len(shape) == 3 and shape[2] in _CHANNELS:
        return Layout(*shape, channels_first=False)
    if numbers and len(shape) == 3 and shape[0] in _CHANNELS and min(shape[1:]) > shape[0]:
        return Layout(*shape[1:], channels=shape[0], channels_first=True)
    raise DataError(
        f"{images.name} is {images.dtype} {list(images.shape)}; images are numbers [n, height, width], "
        "[n, height, width, channels], [n, channels, height, width] or [n, values], with 1, 3 or 4 channels."
    )


def _labels(images: ZippedArray, array: ZippedArray) -> Values:
    if len(array) != len(images):
        raise DataError(f"{images.name} holds {len(images):,} images and {array.name} {len(array):,} labels.")
    if len(array.shape) not in {1, 2} or array.dtype.kind not in "biufSU":
        raise DataError(
            f"{array.name} is {array.dtype} {list(array.shape)}; labels are one whole number or name an image, or "
            "one-hot rows."
        )
    return read_labels(array.whole(), partial("{}[{}]".format, array.name))


def _find(place: Path) -> Path:
    if place.is_file():
        return place
    if not place.is_dir():
        raise DataError(f"{place} does not exist. Give an .npz file, or the folder that holds it, with --data.")
    found = sorted(place.glob("*.npz"))
    if len(found) != 1:
        names = f" ({', '.join(path.name for path in found)})" if found else ""
        raise DataError(f"{place} holds {len(found)} .npz files{names}. Give one with --data.")
    return found[0]
