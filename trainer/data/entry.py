"""An entry of the cache: a folder of plain .npy files and entry.json, which is written last and says what they are."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, BinaryIO, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from schemas.base import Frozen
from schemas.image import Pixels
from trainer.data.dataset import LabelledImages
from trainer.data.images import DIGEST_BYTES, Images, digest

ENTRY_FILE = "entry.json"


class Stamp(Frozen):
    """A file as it was when it was written; another stamp is another file."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        status = path.stat()
        return cls(size=status.st_size, mtime_ns=status.st_mtime_ns)


class Unreadable(Frozen):
    file: str
    reason: str


class EntryFile(Frozen):
    """entry.json. told is what a person should know of how the data was read; classes where the data names them."""

    format: Literal[1] = 1
    parts: Annotated[dict[str, dict[str, Stamp]], Field(description="part -> its files")]
    classes: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()


@dataclass(frozen=True)
class Entry:
    """What entry.json says, and the images, which stay in their file."""

    parts: dict[str, LabelledImages]
    classes: tuple[str, ...]
    told: tuple[str, ...]
    unreadable: tuple[Unreadable, ...]


class PartWriter:
    """One part (train, test) of an entry, image by image; it keeps each one's hash, label and name in memory."""

    def __init__(self, folder: Path, name: str, shape: tuple[int, int, int]) -> None:
        self._folder, self._name, self._shape = folder, name, shape
        self._digests = bytearray()
        self._labels: list[int] = []
        self._names: list[bytes] = []
        self._file: BinaryIO = self._path("images").open("wb")
        self._header_bytes = self._write_header(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._digests) // DIGEST_BYTES

    def append(self, images: Iterable[Pixels]) -> None:
        for image in images:
            whole = np.ascontiguousarray(image)
            self._file.write(whole.data)
            self._digests += digest(whole)

    def label(self, labels: Iterable[int], names: Iterable[bytes] = ()) -> None:
        """Of the images appended, in their order."""
        self._labels.extend(labels)
        self._names.extend(names)

    def finish(self) -> dict[str, Stamp]:
        """Writes what is known only now, and everything through to the disk."""
        self._file.seek(0)
        if self._write_header(len(self)) != self._header_bytes:
            raise RuntimeError("numpy left no room for the number of images in its header")
        self._file.close()
        np.save(self._path("digests"), np.frombuffer(self._digests, np.uint8).reshape(-1, DIGEST_BYTES))
        np.save(self._path("labels"), np.array(self._labels, np.int64))
        if self._names:
            np.save(self._path("names"), np.array(self._names, np.bytes_))
        written = sorted(self._folder.glob(f"{self._name}-*.npy"))
        for path in written:
            _sync(path)
        return {path.name: Stamp.of(path) for path in written}

    def _write_header(self, count: int) -> int:
        """numpy pads its header so that the first axis can grow in place."""
        described = {"descr": "|u1", "fortran_order": False, "shape": (count, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, described)
        return self._file.tell()

    def _path(self, what: str) -> Path:
        return self._folder / f"{self._name}-{what}.npy"


def write_entry(folder: Path, entry: EntryFile) -> None:
    """Last of all: without it there is no entry."""
    path = folder / ENTRY_FILE
    path.write_text(entry.model_dump_json(indent=2), encoding="utf-8")
    _sync(path)


def read_entry(folder: Path) -> Entry | None:
    """None where there is none, or a file of it is missing, cut or changed."""
    try:
        entry = EntryFile.model_validate_json((folder / ENTRY_FILE).read_bytes(), strict=True)
        parts = {name: _part(folder, name, files) for name, files in entry.parts.items()}
        return Entry(parts, entry.classes, entry.told, entry.unreadable)
    except (OSError, ValueError, EOFError):
        return None


def _part(folder: Path, name: str, files: dict[str, Stamp]) -> LabelledImages:
    arrays: dict[str, npt.NDArray[Any]] = {}
    for file, stamp in files.items():
        path = folder / file
        if Stamp.of(path) != stamp:
            raise ValueError(f"{path} was changed")
        mapped: Literal["r"] | None = None if file.endswith(("-labels.npy", "-names.npy")) else "r"
        arrays[file.removeprefix(f"{name}-").removesuffix(".npy")] = np.load(path, mmap_mode=mapped, allow_pickle=False)
    images, digests, labels, names = (arrays.get(what) for what in ("images", "digests", "labels", "names"))
    if images is None or digests is None or labels is None:
        raise ValueError(f"{folder} lacks a file")
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) != 1 or images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"{folder} holds something else")
    return LabelledImages(Images(images, digests), labels, names)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
