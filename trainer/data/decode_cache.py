"""Decode once: images lie decoded in mapped files, and a second run over the same files starts at once.

Why the key is made as it is, and what it cannot see: docs/decisions/0005-decode-once.md.
"""

import hashlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, BinaryIO, Literal, Self

import numpy as np
import numpy.typing as npt
import PIL
from PIL import features
from pydantic import Field, JsonValue

from schemas.base import Frozen
from schemas.image import Pixels
from trainer.data.dataset import DIGEST_BYTES, Images, LabelledImages, digest
from trainer.errors import DataError
from trainer.files import sync_entry

ENTRY_FILE = "entry.json"
FOLDER_NAME = ".convoy-cache"
_CODE = (__name__, "trainer.data.dataset")
_TICK = 0.05  # seconds; file systems' clocks tick every 10 ms or faster
_FORGOTTEN = 24 * 3600  # seconds after which an entry that nobody finished is taken for a crash's


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
    """Last of all: without it there is no entry."""
    path = folder / ENTRY_FILE
    path.write_text(entry.model_dump_json(indent=2), encoding="utf-8")
    sync_entry(path)


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


@dataclass(frozen=True)
class Decoding:
    """All that decides the decoded images: these files, below folder, read by these modules with these settings.

    classes are the folders' names where those are the classes: an empty one has no file that would show it.
    """

    kind: str
    folder: Path
    files: Sequence[Path]
    settings: Mapping[str, JsonValue]
    code: Sequence[str]
    classes: Sequence[str] = ()

    @property
    def slot(self) -> str:
        """What an entry is of, whatever the files hold: of one slot, only the newest entry is kept."""
        return f"{self.kind}-{_short_hash(self.settings)}"

    def key(self) -> str:
        """Raises OSError where a file cannot be looked at."""
        stamps = [[file.relative_to(self.folder).as_posix(), *_stamp(file)] for file in self.files]
        decoders = [PIL.__version__, *(features.version(name) for name in ("libjpeg_turbo", "webp"))]
        code = [_hash_of_module(name) for name in ("schemas.image", *_CODE, *self.code)]
        return _short_hash([stamps, list(self.classes), decoders, code])


class EntryWriter:
    """Where a source decodes into, a part after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.parts: dict[str, dict[str, Stamp]] = {}

    @contextmanager
    def part(self, name: str, shape: tuple[int, int, int]) -> Iterator[PartWriter]:
        with PartWriter(self._folder, name, shape) as part:
            yield part
            self.parts[name] = part.finish()


@dataclass(frozen=True)
class Decoded:
    """What a source says of what it has decoded; the images went to the writer."""

    told: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()


def decode_once(decoding: Decoding, place: Path | None, decode: Callable[[EntryWriter], Decoded]) -> Entry:
    """The images as they were decoded before, where nothing that decides them has changed; else decode is called.

    place is the folder to keep them in; None is beside the data, else the user's cache folder. Raises DataError where
    a file cannot be looked at or nothing can be written.
    """
    try:
        name = f"{decoding.slot}-{decoding.key()}"
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror}).") from error
    places = _places(decoding.folder, place)
    for where in places:
        found = read_entry(where / name)
        if found is not None:
            return replace(found, told=(*found.told, f"decoded before, taken from {where}"))
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
            return replace(found, told=(*found.told, f"decoded in {seconds:.1f} s, kept in {where}"))
        reasons.append(f"{where} (removed by someone else meanwhile)")
    raise DataError(
        f"The decoded images of {decoding.folder} could not be kept in {' nor in '.join(reasons)}; make room, or name "
        "another folder with --cache."
    )


def _write(where: Path, name: str, decoding: Decoding, decode: Callable[[EntryWriter], Decoded]) -> None:
    """Beside its place, then renamed into it: a reader sees a whole entry or none, whoever else writes the same."""
    new = where / f".new-{uuid.uuid4().hex}"
    new.mkdir(parents=True)
    try:
        writer = EntryWriter(new)
        said = decode(writer)
        entry = EntryFile(parts=writer.parts, classes=said.classes, told=said.told, unreadable=said.unreadable)
        write_entry(new, entry)
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
    """Removes what nobody will ask for again: entries of files as they were before, and what a crash left."""
    for entry in where.iterdir():
        replaced = entry.name.startswith(f"{slot}-") and entry.name != name
        if replaced or (entry.name.startswith(".new-") and _age(entry) > _FORGOTTEN):
            shutil.rmtree(entry, ignore_errors=True)


def _age(folder: Path) -> float:
    """Seconds since anything in it was written."""
    try:
        return time.time() - max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:
        return 0.0  # another run is at it


def _places(folder: Path, place: Path | None) -> list[Path]:
    """One for each folder of data, in the order in which they are tried."""
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
    """ctime is there because mtime can be set back: after `cp -p` of another file of the same size, say."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _wait_for_the_clock(files: Sequence[Path]) -> None:
    """So that a file which changes while it is decoded gets another time than the one in the key."""
    newest = max((file.stat().st_ctime for file in files), default=0.0)
    if abs(time.time() - newest) < _TICK:
        time.sleep(_TICK)


def _hash_of_module(name: str) -> str:
    source = sys.modules[name].__file__
    return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""


def _short_hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]
