"""Keeps decoded images in memory-mapped files, so that a second run over the same files starts at once.

The choice of the key and its limits: docs/decisions/0005-decode-once.md.
"""

import hashlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import PIL
import simplejpeg
from PIL import features
from pydantic import Field, JsonValue

from schemas.base import Frozen
from schemas.files import sync_entry
from schemas.image import HEIC_DECODER, Pixels
from schemas.value_range import ValueRange
from trainer.data.dataset import DIGEST_BYTES, Images, LabelledImages, digest
from trainer.errors import DataError

ENTRY_FILE = "entry.json"
FOLDER_NAME = ".convoy-cache"
_CODE = (
    __name__,
    "trainer.data.dataset",
    *(f"schemas.{name}" for name in ("image", "jpeg", "metadata", "tiff", "value_range")),
)
_TICK = 0.05  # seconds; file systems' clocks tick every 10 ms or faster
_FORGOTTEN = 24 * 3600  # seconds after which an unfinished entry counts as left by a crash


class Stamp(Frozen):
    """Size and time of a file when it was written; a different stamp means a different file."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        status = path.stat()
        return cls(size=status.st_size, mtime_ns=status.st_mtime_ns)


class Unreadable(Frozen):
    file: str
    reason: str


class Decoded(Frozen):
    """What a source reports about the images that it wrote: one note per decision about how it read the data."""

    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    value_range: Annotated[ValueRange | None, Field(description="of 32-bit images, if there are any")] = None


class EntryFile(Decoded):
    """entry.json."""

    format: Literal[1] = 1
    parts: Annotated[dict[str, dict[str, Stamp]], Field(description="part -> its files")]


@dataclass(frozen=True)
class Entry:
    """The contents of entry.json, and the images, which stay in their file."""

    parts: dict[str, LabelledImages]
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    unreadable: tuple[Unreadable, ...]
    value_range: ValueRange | None


class PartWriter:
    """Writes one part (train, test) of an entry, image by image; keeps hashes, labels and names in memory."""

    def __init__(self, folder: Path, name: str, shape: tuple[int, int, int]) -> None:
        self._folder, self._name, self._shape = folder, name, shape
        self._digests = bytearray()
        self._labels: list[int] = []
        self._names: list[bytes] = []
        self._file: BinaryIO = self._path("images").open("wb")
        self._header_bytes = self._write_header(0)

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._digests) // DIGEST_BYTES

    def append(self, images: Iterable[Pixels]) -> None:
        for image in images:
            whole = np.ascontiguousarray(image)
            self._file.write(whole.data)
            self._digests += digest(whole)

    def label(self, labels: Iterable[int], names: Iterable[bytes] = ()) -> None:
        """Adds labels and names of the appended images, in their order."""
        self._labels.extend(labels)
        self._names.extend(names)

    def finish(self) -> dict[str, Stamp]:
        """Writes the header, digests, labels and names, and syncs all files to the disk."""
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
            sync_entry(path)
        return {path.name: Stamp.of(path) for path in written}

    def _write_header(self, count: int) -> int:
        """numpy pads its header so that the first axis can grow in place."""
        described = {"descr": "|u1", "fortran_order": False, "shape": (count, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, described)
        return self._file.tell()

    def _path(self, what: str) -> Path:
        return self._folder / f"{self._name}-{what}.npy"


def write_entry(folder: Path, entry: EntryFile) -> None:
    """Writes entry.json last: a folder without it is not an entry."""
    path = folder / ENTRY_FILE
    path.write_text(entry.model_dump_json(indent=2), encoding="utf-8")
    sync_entry(path)


def read_entry(folder: Path) -> Entry | None:
    """Returns the entry, or None if it or one of its files is missing, cut short or changed."""
    try:
        entry = EntryFile.model_validate_json((folder / ENTRY_FILE).read_bytes(), strict=True)
        parts = {name: _part(folder, name, files) for name, files in entry.parts.items()}
        return Entry(parts, entry.classes, entry.notes, entry.unreadable, entry.value_range)
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


@dataclass(frozen=True)
class Decoding:
    """Everything that determines the decoded images: the files below folder, the settings, and the modules that read.

    classes are the names of the class folders, if there are any: an empty folder has no file to show it.
    """

    kind: str
    folder: Path
    files: Sequence[Path]
    settings: Mapping[str, JsonValue]
    code: Sequence[str]
    classes: Sequence[str] = ()

    @property
    def slot(self) -> str:
        """Returns the kind and settings of an entry; only the newest entry of a slot is kept."""
        return f"{self.kind}-{_short_hash(self.settings)}"

    def key(self) -> str:
        """Raises OSError if a file's status cannot be read."""
        stamps = [[file.relative_to(self.folder).as_posix(), *_stamp(file)] for file in self.files]
        libraries = [features.version(name) for name in ("webp", "avif")]
        decoders = [PIL.__version__, simplejpeg.__version__, HEIC_DECODER, *libraries]
        code = [_hash_of_module(name) for name in (*_CODE, *self.code)]
        return _short_hash([stamps, list(self.classes), decoders, code])


class EntryWriter:
    """Writes the parts of an entry."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.parts: dict[str, dict[str, Stamp]] = {}

    @contextmanager
    def part(self, name: str, shape: tuple[int, int, int]) -> Iterator[PartWriter]:
        with closing(PartWriter(self._folder, name, shape)) as part:
            yield part
            self.parts[name] = part.finish()


def decode_once(decoding: Decoding, place: Path | None, decode: Callable[[EntryWriter], Decoded]) -> Entry:
    """Returns the entry of an earlier run if nothing has changed since; else calls decode and keeps the result.

    place is the folder of the entries; None is beside the data, else the user's cache folder. Raises DataError if a
    file cannot be read or no folder can be written.
    """
    try:
        name = f"{decoding.slot}-{decoding.key()}"
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror}).") from error
    places = _places(decoding.folder, place)
    for where in places:
        found = read_entry(where / name)
        if found is not None:
            return replace(found, notes=(*found.notes, f"decoded before, read from {where}"))
    _wait_for_the_clock(decoding.files)
    reasons = []
    for where in places:
        try:
            started = time.perf_counter()
            _write(where, name, decoding, decode)
            seconds = time.perf_counter() - started
            found = read_entry(where / name)
        except OSError as error:
            reasons.append(f"{where} ({error.strerror})")
            continue
        if found is not None:
            return replace(found, notes=(*found.notes, f"decoded in {seconds:.1f} s, kept in {where}"))
        reasons.append(f"{where} (removed by another process)")
    raise DataError(
        f"The decoded images of {decoding.folder} could not be written to {' or '.join(reasons)}. Free some space, or "
        "give another folder with --cache."
    )


def _write(where: Path, name: str, decoding: Decoding, decode: Callable[[EntryWriter], Decoded]) -> None:
    """Writes to a sibling folder and renames it, so that readers see a whole entry or none."""
    new = where / f".new-{uuid.uuid4().hex}"
    new.mkdir(parents=True)
    try:
        writer = EntryWriter(new)
        decoded = decode(writer)
        write_entry(new, EntryFile(parts=writer.parts, **dict(decoded)))
        if read_entry(where / name) is None:
            shutil.rmtree(where / name, ignore_errors=True)  # a damaged one
        try:
            new.rename(where / name)
        except OSError:
            if read_entry(where / name) is None:
                raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    _tidy(where, decoding.slot, name)


def _tidy(where: Path, slot: str, name: str) -> None:
    """Removes outdated entries of this slot, and unfinished entries that a crash left."""
    for entry in where.iterdir():
        replaced = entry.name.startswith(f"{slot}-") and entry.name != name
        if replaced or (entry.name.startswith(".new-") and _age(entry) > _FORGOTTEN):
            shutil.rmtree(entry, ignore_errors=True)


def _age(folder: Path) -> float:
    """Returns the seconds since the last write to the folder."""
    try:
        return time.time() - max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:
        return 0.0  # another run is removing it


def _places(folder: Path, place: Path | None) -> list[Path]:
    """Returns the folders to try, in order."""
    resolved = folder.resolve()
    own = f"{resolved.name}-{_short_hash(str(resolved))}"
    if place is not None:
        return [place / own]
    return [folder / FOLDER_NAME, *(cache / "convoy" / own for cache in _user_cache())]


def _user_cache() -> list[Path]:
    """Returns the user's cache folder; nothing for a user without a home."""
    if "XDG_CACHE_HOME" in os.environ:
        return [Path(os.environ["XDG_CACHE_HOME"])]
    try:
        return [Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")]
    except RuntimeError:
        return []


def _stamp(file: Path) -> tuple[int, int, int]:
    """Includes ctime, because `cp -p` of another file of the same size keeps mtime."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _wait_for_the_clock(files: Sequence[Path]) -> None:
    """Waits until the clock has passed the newest file, so that a later change has another time than the key."""
    newest = max((file.stat().st_ctime for file in files), default=0.0)
    if abs(time.time() - newest) < _TICK:
        time.sleep(_TICK)


def _hash_of_module(name: str) -> str:
    source = sys.modules[name].__file__
    return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""


def _short_hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]
