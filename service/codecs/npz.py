"""The arrays `images` and `labels` of an .npz file, as numpy.savez and numpy.savez_compressed write it.

Each array's type and shape are checked against the limits and the size in the archive's directory before memory is
allocated, and then its checksum. Images are unpacked in blocks, when they are decoded. Nothing is unpickled.
"""

import math
import threading
from collections import OrderedDict
from functools import partial
from typing import IO

import numpy as np

from schemas.errors import UnreadableImageError
from schemas.image import Pixels
from service.codecs.npy import read_header
from service.codecs.zip import Archive, File
from service.errors import InvalidRequestError, MalformedBodyError, TooManyImagesError
from service.inference.evaluation import Label
from service.inference.inputs import ArchivedPixels
from service.settings import Settings
from service.validation import shortened

SUFFIX = ".npy"
IMAGES, LABELS = "images", "labels"
WANTED_IMAGES = "uint8 [images, height, width] or [images, height, width, 1, 3 or 4]"
WANTED_LABELS = "integers or strings [images]"
_MAX_LABEL_BYTES = 4096
_BLOCK_BYTES = 2**20
_KEPT_BYTES = 16 * 2**20  # of blocks: several threads read images slightly out of order
_CHANNELS = {1, 3, 4}


def read_npz(archive: Archive, settings: Settings) -> tuple[list[ArchivedPixels], list[Label]]:
    """Returns (images, labels). Raises InvalidRequestError or TooManyImagesError."""
    files = {file.name.removesuffix(SUFFIX): file for file in archive.files}
    if set(files) != {IMAGES, LABELS}:
        raise InvalidRequestError(
            f"The .npz file holds {shortened(', '.join(files))}; it must hold only the arrays {IMAGES} and {LABELS}."
        )
    rows = _Rows(archive, files[IMAGES], settings)
    labels = _labels(archive, files[LABELS], len(rows))
    return [ArchivedPixels(partial(rows.row, i)) for i in range(len(rows))], labels


class _Rows:
    """The images of an array [n, height, width(, channels)], in blocks of about a megabyte."""

    def __init__(self, archive: Archive, file: File, settings: Settings) -> None:
        self._archive = archive
        self._file = file
        self._shape, dtype, self._start = _header(archive, file, WANTED_IMAGES)
        fits = len(self._shape) == 3 or (len(self._shape) == 4 and self._shape[3] in _CHANNELS)
        if dtype != np.uint8 or not fits or min(self._shape) < 1:
            raise InvalidRequestError(
                f"The array {IMAGES} is {dtype} {shortened(list(self._shape))}; send {WANTED_IMAGES}, not empty."
            )
        n, height, width = self._shape[:3]
        if n > settings.max_images:
            raise TooManyImagesError(settings.max_images, n)
        if height * width > settings.max_pixels:
            raise InvalidRequestError(
                f"The images have {width} x {height} pixels; at most {settings.max_pixels:,} are allowed."
            )
        _check_whole(archive, file)
        row = math.prod(self._shape[1:])
        self._step = max(1, _BLOCK_BYTES // row)
        self._most_kept = max(2, _KEPT_BYTES // (row * self._step))
        self._stream: IO[bytes] | None = None
        self._next = 0  # the number of the block at the stream's position
        self._kept: OrderedDict[int, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._shape[0]

    def row(self, i: int) -> Pixels:
        """Returns uint8 [height, width(, channels)]. Raises UnreadableImageError."""
        number, place = divmod(i, self._step)
        with self._lock:
            if number not in self._kept:
                self._read_to(number)
            image: Pixels = self._kept[number][place]
            return image

    def _read_to(self, number: int) -> None:
        with self._archive.damage_as_error():
            if self._stream is None or number < self._next:
                self._stream, self._next = self._archive.open(self._file), 0
                self._stream.read(self._start)
            while self._next <= number:
                self._read_block(self._stream)

    def _read_block(self, stream: IO[bytes]) -> None:
        rows = min(self._step, len(self) - self._next * self._step)
        shape = (rows, *self._shape[1:])
        self._kept[self._next] = np.frombuffer(stream.read(math.prod(shape)), np.uint8).reshape(shape)
        self._next += 1
        if len(self._kept) > self._most_kept:
            self._kept.popitem(last=False)


def _header(archive: Archive, file: File, wanted: str) -> tuple[tuple[int, ...], np.dtype[np.generic], int]:
    """Returns (shape, type, offset of the values). Raises InvalidRequestError."""
    try:
        with archive.damage_as_error(), archive.opened(file) as stream:
            shape, fortran_order, dtype = read_header(stream, "The file", f"an array of {wanted}")
            start = stream.tell()
    except (UnreadableImageError, MalformedBodyError) as error:
        raise InvalidRequestError(f"{file.name}: {error}") from error
    if dtype.hasobject:
        raise InvalidRequestError(f"{file.name} holds Python objects, which are not supported; save numbers or text.")
    if fortran_order and len(shape) > 1:
        raise InvalidRequestError(f"{file.name} is in Fortran order; save numpy.ascontiguousarray of it.")
    if start + math.prod(shape) * dtype.itemsize != file.size:
        raise InvalidRequestError(
            f"{file.name} announces {dtype} {shortened(list(shape))}, but has {file.size - start:,} bytes of values."
        )
    return shape, dtype, start


def _check_whole(archive: Archive, file: File) -> None:
    """Checks the checksum of the whole file, since rows are used before its end is read. Raises InvalidRequestError."""
    try:
        archive.check(file)
    except UnreadableImageError as error:
        raise InvalidRequestError(f"{file.name} is damaged: {error}") from error


def _labels(archive: Archive, file: File, images: int) -> list[Label]:
    shape, dtype, start = _header(archive, file, WANTED_LABELS)
    if dtype.kind not in "iuUS" or shape not in {(images,), (images, 1)} or dtype.itemsize > _MAX_LABEL_BYTES:
        raise InvalidRequestError(
            f"The array {LABELS} is {dtype} {shortened(list(shape))}; for {images} images it must be {WANTED_LABELS}."
        )
    try:
        values = np.frombuffer(archive.read(file), dtype, offset=start)
        if dtype.kind == "S":
            values = np.char.decode(values, "utf-8")
        return list(values.tolist())
    except (UnreadableImageError, UnicodeError, ValueError) as error:
        raise InvalidRequestError(f"The array {LABELS} cannot be read ({shortened(error)}).") from error
