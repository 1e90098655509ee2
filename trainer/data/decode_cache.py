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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import PIL
from PIL import features
from pydantic import JsonValue

from trainer.data.entry import Entry, EntryFile, PartWriter, Stamp, Unreadable, read_entry, write_entry
from trainer.errors import DataError

FOLDER_NAME = ".convoy-cache"
_CODE = ("trainer.data.decode_cache", "trainer.data.entry", "trainer.data.images")
_TICK = 0.05  # seconds; file systems' clocks tick every 10 ms or faster
_FORGOTTEN = 24 * 3600  # seconds after which an entry that nobody finished is taken for a crash's


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
    return [folder / FOLDER_NAME, _user_cache() / "convoy" / own]


def _user_cache() -> Path:
    default = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or default)


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
