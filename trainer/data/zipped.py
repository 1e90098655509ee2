"""The arrays of an .npz file, read some at a time. Nothing is unpickled."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from trainer.errors import DataError

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
