"""Images: rows of an array in memory or of a file mapped into it. A view copies no more than what is asked of it."""

import hashlib
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt

from schemas.image import Pixels

Rows = npt.NDArray[np.int64]
Digests = npt.NDArray[np.uint8]
"""sha256 of each image's bytes: uint8 [n, 32]."""

DIGEST_BYTES = 32
_BLOCK_BYTES = 8 * 2**20


class Images:
    """A read-only sequence of images, uint8 [n, height, width, channels], by position, slice or array of positions.

    What is read is a copy in memory; the rest stays where it is. np.asarray copies all of it.
    """

    def __init__(self, pixels: Pixels, digests: Digests | None = None) -> None:
        """pixels may be memory-mapped. digests, where they are known already, spare reading all of it for them."""
        # Of an array whose images do not lie one after the other, take would copy the whole at every batch. A mapped
        # one is not copied, and what is taken of it is mapped no more.
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
        """All of it, in memory."""
        return np.asarray(self[:], dtype)

    def take(self, positions: Rows) -> "Images":
        """The images at these positions, as a view."""
        view = object.__new__(Images)
        view._pixels, view._hashed, view.rows = self._pixels, self._hashed, self.rows[positions]
        return view

    def gather(self, positions: Rows, into: Pixels) -> None:
        """Copies the images at these positions into an array of their shape."""
        self._pixels.take(self.rows[positions], axis=0, out=into, mode="clip")  # other modes copy twice

    def blocks(self) -> Iterator[Pixels]:
        """All images in order, some megabytes at a time."""
        step = max(1, _BLOCK_BYTES // max(1, int(np.prod(self.shape[1:]))))
        for start in range(0, len(self), step):
            yield self[start : start + step]

    @property
    def digests(self) -> Digests:
        return self._hashed.digests[self.rows]


class _Hashed:
    """The digests of an array's images, computed once for all views of it, when they are first asked for."""

    def __init__(self, pixels: Pixels, known: Digests | None) -> None:
        self._pixels, self._known = pixels, known

    @cached_property
    def digests(self) -> Digests:
        if self._known is not None:
            return self._known
        joined = b"".join(digest(image) for image in self._pixels)
        return np.frombuffer(joined, np.uint8).reshape(-1, DIGEST_BYTES)


def digest(image: Pixels) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()
