"""One .npz file: images, labels, and where there are some images_test, labels_test and classes.

Keras's names (x_train, y_train, x_test, y_test) do as well. Images are read some at a time, so that they may be larger
than memory.
"""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from schemas.image import fit_pixels
from schemas.manifest import InputSpec
from trainer.data.dataset import Labels, SourceData, class_names
from trainer.data.decode_cache import Decoded, Decoding, EntryWriter, decode_once
from trainer.data.pixel_range import BYTES, ValueRange, detect_range, outside, shown_range, to_bytes
from trainer.data.progress_bar import tracked
from trainer.errors import DataError

_CLASSES = ("classes", "class_names", "label_names")
_CODE = (__name__, "trainer.data.pixel_range")
_BLOCK_BYTES = 8 * 2**20


class ZippedArray:
    """One array, as its header describes it; its values stay in the file until they are asked for."""

    def __init__(self, file: zipfile.ZipFile, name: str) -> None:
        """Raises DataError for what is no array."""
        self._file, self.name = file, name
        with self._member() as member:
            self.shape, self._columns_first, self.dtype = _header(member)
        row = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        self._step = max(1, _BLOCK_BYTES // max(1, row))

    def refuse_objects(self) -> None:
        """Raises DataError for an array of Python objects, which would have to be unpickled."""
        if self.dtype.hasobject:
            raise DataError(f"{self.name} holds Python objects, which are not read for safety; save numbers or text.")

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    @property
    def block_count(self) -> int:
        return 1 if self._columns_first else -(-len(self) // self._step)

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """Rows in order, some megabytes at a time; all at once where they lie column by column."""
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
        with _damage_told(self.name), self._file.open(f"{self.name}.npy") as member:
            yield member

    def _read(self, member: IO[bytes], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        with _damage_told(self.name):
            data = member.read(int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize)
            return np.frombuffer(data, self.dtype).reshape(shape, order="F" if self._columns_first else "C")


@contextmanager
def open_archive(path: Path) -> Iterator[dict[str, ZippedArray]]:
    """The arrays by name. Raises DataError, also for the block's own, naming the file."""
    try:
        with _damage_told("it"):
            file = zipfile.ZipFile(path)
        with file:
            names = [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]
            yield {name: ZippedArray(file, name) for name in names}
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)


@contextmanager
def _damage_told(name: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError) as error:
        raise DataError(f"{name} is damaged, cut short or no numpy array ({error}).") from error


Arrays = Mapping[str, ZippedArray]


@dataclass(frozen=True)
class NpzSource:
    """place is the file, or a folder that holds one. labels are the classes' names where the file gives none.

    value_range is what black and white are, detected where None; input what images are resized to, their own shape
    where None. cache is the folder that decoded images are kept in, None the usual one.
    """

    place: Path
    labels: tuple[str, ...] = ()
    value_range: ValueRange | None = None
    input: InputSpec | None = None
    cache: Path | None = None

    def load(self) -> SourceData:
        """Raises DataError naming the array that is missing or unfit."""
        path = _find(self.place)

        def decode(writer: EntryWriter) -> Decoded:
            with open_archive(path) as arrays:
                return self._decode(arrays, writer)

        settings: dict[str, JsonValue] = {
            "value_range": list(self.value_range or ()),
            "input": self.input.model_dump(mode="json") if self.input else None,
        }
        entry = decode_once(Decoding("npz", path.parent, [path], settings, _CODE), self.cache, decode)
        train, test = entry.parts["train"], entry.parts.get("test")
        labels = class_names(entry.classes or self.labels, *entry.parts.values())
        height, width, channels = train.images.shape[1:]
        spec = self.input or InputSpec(height=height, width=width, channels=channels)
        return SourceData(path.stem, labels, spec, train, test, entry.told)

    def _decode(self, arrays: Arrays, writer: EntryWriter) -> Decoded:
        train = _named(arrays, "images", "x_train")
        _image_shape(train)
        parts = {"train": (train, _named(arrays, "labels", "y_train"))}
        if {"images_test", "x_test"} & set(arrays):
            test = _named(arrays, "images_test", "x_test")
            parts["test"] = (test, _named(arrays, "labels_test", "y_test"))
            if test.shape[1:] != train.shape[1:]:
                raise DataError(
                    f"{train.name} holds {list(train.shape)} and {test.name} {list(test.shape)}; all must be alike."
                )
        names = _strings(_named(arrays, *_CLASSES).whole()) if set(_CLASSES) & set(arrays) else None
        labels = {part: _labels(images, labels) for part, (images, labels) in parts.items()}
        classes, indices = _indices(labels, tuple(map(str, names)) if names is not None else ())
        value_range = self.value_range
        if value_range is None:  # the test images are read as the training images are
            value_range = BYTES if train.dtype == np.uint8 else detect_range(train.blocks())
        told = tuple(
            self._write(images, indices[part], value_range, part, writer) for part, (images, _) in parts.items()
        )
        return Decoded(told, classes)

    def _write(
        self, images: ZippedArray, labels: Labels, value_range: ValueRange, name: str, writer: EntryWriter
    ) -> str:
        shape = _image_shape(images)
        spec = self.input or InputSpec(height=shape[0], width=shape[1], channels=shape[2])
        with writer.part(name, spec.shape) as part:
            for block in tracked(images.blocks(), f"reading {images.name}", images.block_count):
                wrong = outside(block, value_range)
                if wrong.any():
                    image, *place = (int(i) for i in np.argwhere(wrong)[0])
                    raise DataError(
                        f"{images.name}{[image + len(part), *place]} is {block[wrong][0]:g}, outside "
                        f"{shown_range(value_range)}, which data.value_range can change."
                    )
                part.append(fit_pixels(pixels, spec) for pixels in to_bytes(block, value_range).reshape(-1, *shape))
            part.label(labels.tolist())
        height, width, channels = shape
        kind = "grey" if channels == 1 else "RGB"
        return f"{images.name}: {len(labels):,} images of {height}x{width} {kind}, values {shown_range(value_range)}"


def _named(arrays: Arrays, *names: str) -> ZippedArray:
    found = next((arrays[name] for name in names if name in arrays), None)
    if found is None:
        raise DataError(f"there is no array {' or '.join(names)}, but {', '.join(arrays) or 'none'}.")
    found.refuse_objects()
    return found


def _image_shape(images: ZippedArray) -> tuple[int, int, int]:
    """[height, width, channels] of one of them."""
    shape = images.shape if len(images.shape) == 4 else (*images.shape, 1)
    if len(shape) != 4 or shape[3] not in {1, 3} or images.dtype.kind not in "biuf":
        raise DataError(
            f"{images.name} is {images.dtype} {list(images.shape)}; images are numbers [n, height, width] or "
            "[n, height, width, 1 or 3]."
        )
    if 0 in shape:
        raise DataError(f"{images.name} is empty ({list(images.shape)}).")
    return shape[1], shape[2], shape[3]


def _labels(images: ZippedArray, array: ZippedArray) -> npt.NDArray[Any]:
    """One a picture, whole numbers or names."""
    labels = _strings(array.whole())
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "biuU":
        raise DataError(
            f"{array.name} is {array.dtype} {list(array.shape)}; labels are one whole number or name an image."
        )
    if len(labels) != len(images):
        raise DataError(f"{images.name} holds {len(images):,} images and {array.name} {len(labels):,} labels.")
    return labels


def _strings(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values


def _indices(
    labels: Mapping[str, npt.NDArray[Any]], classes: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, Labels]]:
    """Names become indices into the classes, or into all names in alphabetical order where none are given."""
    named = {part for part, values in labels.items() if values.dtype.kind == "U"}
    if not named:
        indices = {part: values.astype(np.int64) for part, values in labels.items()}
        every = np.concatenate(list(indices.values()))
        wrong = every[(every < 0) | (every >= len(classes) if classes else False)]
        if len(wrong):
            raise DataError(
                f"the label {wrong[0]} is no class index (0, 1, ...{f', {len(classes) - 1}' if classes else ''})."
            )
        return classes, indices
    if named != set(labels):
        raise DataError("the labels are names in one split and numbers in the other.")
    every = np.unique(np.concatenate(list(labels.values())))
    classes = classes or tuple(every.tolist())
    unknown = sorted(set(every.tolist()) - set(classes))
    if unknown:
        raise DataError(f"the label '{unknown[0]}' is none of the classes ({', '.join(classes)}).")
    index = {name: i for i, name in enumerate(classes)}
    return classes, {part: np.array([index[name] for name in values.tolist()]) for part, values in labels.items()}


def _find(place: Path) -> Path:
    if place.is_file():
        return place
    if not place.is_dir():
        raise DataError(f"{place} does not exist; name an .npz file, or the folder that holds it, with --data.")
    found = sorted(place.glob("*.npz"))
    if len(found) != 1:
        names = f" ({', '.join(path.name for path in found)})" if found else ""
        raise DataError(f"{place} holds {len(found)} .npz files{names}; name one with --data.")
    return found[0]
