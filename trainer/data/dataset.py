"""Labelled images, and the protocol of the data sources that load them."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from schemas.image import Pixels, fit_pixels
from schemas.manifest import InputSpec

Rows = npt.NDArray[np.int64]
Digests = npt.NDArray[np.uint8]
"""sha256 of each image's bytes: uint8 [n, 32]."""

DIGEST_BYTES = 32
_BLOCK_BYTES = 8 * 2**20
Labels = npt.NDArray[np.int64]
Names = npt.NDArray[np.bytes_]


class Images:
    """A read-only sequence of images, uint8 [n, height, width, channels], by position, slice or array of positions.

    Indexing copies into memory; the rest stays where it is. np.asarray copies all images.
    """

    def __init__(self, pixels: Pixels, digests: Digests | None = None) -> None:
        """pixels may be memory-mapped. Known digests save reading all pixels to compute them."""
        # take() would copy a non-contiguous array at every batch. A mapped array is contiguous and not copied here.
        self._pixels = np.ascontiguousarray(pixels)
        self._hashed = _Hashed(self._pixels, digests)
        self.rows: Rows = np.arange(len(pixels))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        _, height, width, channels = self._pixels.shape
        return len(self), height, width, channels

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, key: int | np.integer | slice | list[int] | Rows) -> Pixels:
        if isinstance(key, int | np.integer):
            return np.array(self._pixels[self.rows[key]])
        return self._pixels.take(self.rows[key], axis=0)

    def __iter__(self) -> Iterator[Pixels]:
        for block in self.blocks():
            yield from block

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Pixels:
        """Returns all images, in memory."""
        return np.asarray(self[:], dtype)

    def take(self, positions: Rows) -> "Images":
        """Returns a view of the images at these positions."""
        view = object.__new__(Images)
        view._pixels, view._hashed, view.rows = self._pixels, self._hashed, self.rows[positions]
        return view

    def gather(self, positions: Rows, into: Pixels) -> None:
        """Copies the images at these positions into an array of their shape."""
        self._pixels.take(self.rows[positions], axis=0, out=into, mode="clip")  # other modes copy twice

    def blocks(self) -> Iterator[Pixels]:
        """Yields all images in order, some megabytes at a time."""
        step = max(1, _BLOCK_BYTES // max(1, int(np.prod(self.shape[1:]))))
        for start in range(0, len(self), step):
            yield self[start : start + step]

    @property
    def digests(self) -> Digests:
        return self._hashed.digests[self.rows]


class _Hashed:
    """The digests of an array's images, computed once for all views, on first use."""

    def __init__(self, pixels: Pixels, known: Digests | None) -> None:
        self._pixels, self._known = pixels, known

    @cached_property
    def digests(self) -> Digests:
        if self._known is not None:
            return self._known
        joined = b"".join(digest(image) for image in self._pixels)
        return np.frombuffer(joined, np.uint8).reshape(-1, DIGEST_BYTES)


def data_name(place: Path) -> str:
    """Returns the name of a file without its suffix, or of a folder, as text that JSON can hold."""
    name = place.stem if place.is_file() else place.resolve().name
    return name.encode(errors="replace").decode()


def digest(image: Pixels) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()


class LabelledImages:
    """images uint8 [n, height, width, channels], labels [n] as class indices, names [n] of their files, if any.

    The images may be a view of a file that is larger than memory.
    """

    def __init__(self, images: Images | Pixels, labels: Labels, names: Names | None = None) -> None:
        self.images = images if isinstance(images, Images) else Images(images)
        self.labels = labels
        self.names = names

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Rows) -> "LabelledImages":
        """Returns a view; no pixel is copied."""
        names = self.names[positions] if self.names is not None else None
        return LabelledImages(self.images.take(positions), self.labels[positions], names)

    def name(self, position: int) -> str:
        """Returns the name of the image's file, else its row in the source, from 0."""
        if self.names is not None:
            return os.fsdecode(bytes(self.names[position]))
        return f"image {self.images.rows[position]:,}"


@dataclass(frozen=True)
class SourceData:
    """All images of a data set. validation and test are None if the data set publishes no such split.

    notes holds one sentence for each decision about how the data was read; unreadable the files that were left out,
    each with the reason.
    """

    name: str
    labels: tuple[str, ...]
    input: InputSpec
    train: LabelledImages
    test: LabelledImages | None
    notes: tuple[str, ...] = ()
    validation: LabelledImages | None = None
    unreadable: tuple[tuple[str, str], ...] = ()

    @property
    def parts(self) -> list[LabelledImages]:
        """The training, validation and test images that there are."""
        return [part for part in (self.train, self.validation, self.test) if part is not None]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def take(self, positions: Rows) -> list[LabelledImages]:
        """Returns one view per part that holds any of these positions, which count through the parts in order."""
        views, start = [], 0
        for part in self.parts:
            views.append(part.take(positions[(positions >= start) & (positions < start + len(part))] - start))
            start += len(part)
        return [view for view in views if len(view)] or views[:1]

    def everything(self) -> LabelledImages:
        """Returns the images of all parts, in memory."""
        images = np.concatenate([part.images[:] for part in self.parts])
        names = [part.name(i).encode(errors="surrogateescape") for part in self.parts for i in range(len(part))]
        return LabelledImages(images, np.concatenate([part.labels for part in self.parts]), np.array(names))

    def content_hash(self) -> str:
        """sha256 over names, shapes, labels and the sha256 of each image: the same hash means the same data."""
        content = hashlib.sha256("\0".join(self.labels).encode())
        for part in self.parts:
            content.update(b"validation" if part is self.validation else b"")
            content.update(repr(part.images.shape).encode())
            content.update(part.images.digests.tobytes())
            content.update(part.labels.astype(np.int64).tobytes())
        return content.hexdigest()


class DataSource(Protocol):
    def load(self) -> SourceData:
        """Raises DataError if the data is missing, damaged or unusable."""
        ...

    def shape(self) -> tuple[int, int, int]:
        """Returns height, width and channels of the images, without loading them. Raises DataError."""
        ...

    def resized(self, size: InputSpec) -> Self:
        """Returns the same data with its images at another size."""
        ...


@dataclass(frozen=True)
class FakeSource:
    """A source for tests: returns the data it holds."""

    data: SourceData

    def load(self) -> SourceData:
        return self.data

    def shape(self) -> tuple[int, int, int]:
        return self.data.input.shape

    def resized(self, size: InputSpec) -> Self:
        def at_size(part: LabelledImages) -> LabelledImages:
            return LabelledImages(np.stack([fit_pixels(image, size) for image in part.images]), part.labels, part.names)

        data = self.data
        test, validation = data.test and at_size(data.test), data.validation and at_size(data.validation)
        resized = replace(data, input=size, train=at_size(data.train), test=test, validation=validation)
        return replace(self, data=resized)
