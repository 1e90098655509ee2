"""A zip archive in a body: checked by its directory, and unpacked one file at a time, in memory.

Nothing is written to disk, so no path can do harm. Paths out of the archive, links and encrypted files are still
refused, since the service cannot interpret them.

Limits: the unpacked size in the directory, and the number of files. A file never yields more bytes than the directory
announces. Hidden files and files that desktops create are ignored.
"""

import io
import stat
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from schemas.errors import UnreadableImageError
from schemas.ignored_files import is_hidden
from service.errors import InvalidRequestError, MalformedBodyError, TooManyImagesError
from service.settings import Settings
from service.validation import shortened

# Directory entries are counted before parsing: a small body can list a million files.
_DIRECTORY_ENTRY = b"PK\x01\x02"
_END_OF_DIRECTORY = b"PK\x05\x06"
_MORE_ENTRIES = 1024  # folders
_PIECE = 2**18
_LOCAL_HEADER = 30  # bytes, without the name
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1 | 0x40  # bits of the flags: encrypted, strongly encrypted
_UTF8 = 0x800
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError)


@dataclass(frozen=True)
class File:
    """One file of the archive; path has the parts of its name."""

    path: tuple[str, ...]
    info: zipfile.ZipInfo

    @property
    def name(self) -> str:
        return "/".join(self.path)

    @property
    def size(self) -> int:
        """Bytes, unpacked."""
        return self.info.file_size


class Archive:
    """The files of a zip, in the order of its directory. Several threads may read them."""

    def __init__(self, data: bytes, settings: Settings) -> None:
        """Raises MalformedBodyError if the data is not a zip, InvalidRequestError or TooManyImagesError."""
        self._zip = _open(data, settings.max_images)
        self._lock = threading.Lock()  # zipfile counts its open files without a lock
        entries = self._zip.infolist()
        _check_extents(entries, self._zip.start_dir)
        self.files: Sequence[File] = _files(entries)
        if len(self.files) > settings.max_images:
            raise TooManyImagesError(settings.max_images, len(self.files))
        size = sum(file.size for file in self.files)
        if size > settings.max_archive_bytes:
            raise InvalidRequestError(
                f"The archive unpacks to {size:,} bytes, more than the {settings.max_archive_bytes:,} allowed; "
                "send the images in several requests."
            )

    def read(self, file: File) -> bytes:
        """Returns the whole file. Raises UnreadableImageError if it is damaged or differs from the directory."""
        with self.damage_as_error(), self.opened(file) as stream:
            data = stream.read(file.size)
            if len(data) != file.size:
                raise EOFError(f"it has {len(data):,} bytes, but its directory entry announces {file.size:,}")
            return data

    def check(self, file: File) -> None:
        """Unpacks the file in pieces and discards them. Raises UnreadableImageError as read does."""
        with self.damage_as_error(), self.opened(file) as stream:
            size = sum(map(len, iter(lambda: stream.read(_PIECE), b"")))
            if size != file.size:
                raise EOFError(f"it has {size:,} bytes, but its directory entry announces {file.size:,}")

    @contextmanager
    def opened(self, file: File) -> Iterator[IO[bytes]]:
        stream = self.open(file)
        try:
            yield stream
        finally:
            with self._lock:
                stream.close()

    def open(self, file: File) -> IO[bytes]:
        """Returns a stream. Read it by size: the data may unpack to more than announced. Raises as zipfile does."""
        with self._lock:
            return self._zip.open(file.info)

    @staticmethod
    @contextmanager
    def damage_as_error() -> Iterator[None]:
        """Turns any error of unpacking into UnreadableImageError."""
        try:
            yield
        except _DAMAGE as error:
            raise UnreadableImageError(f"It cannot be unpacked ({shortened(error, 120)}).") from error


def _open(data: bytes, max_images: int) -> zipfile.ZipFile:
    if _END_OF_DIRECTORY not in data:
        raise MalformedBodyError("The archive is not a zip or .npz file, or it is truncated; send a whole one.")
    if data.count(_DIRECTORY_ENTRY) > 2 * max_images + _MORE_ENTRIES:  # macOS adds a file for each
        raise TooManyImagesError(max_images)
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:  # a hostile directory can raise any exception
        raise InvalidRequestError(
            f"The archive's directory cannot be read ({shortened(error)}); recreate the archive."
        ) from error


def _check_extents(entries: Sequence[zipfile.ZipInfo], end: int) -> None:
    """Refuses files that share bytes: a few bytes could be unpacked a thousand times (Fifield, 2019)."""
    free = 0
    for info in sorted(entries, key=lambda info: info.header_offset):
        name = len(info.orig_filename)  # in characters; UTF-8 needs at least as many bytes
        if info.header_offset < free or info.header_offset + _LOCAL_HEADER + name + info.compress_size > end:
            raise InvalidRequestError(
                f"'{shortened(info.filename)}' shares bytes with another part of the archive; recreate the archive."
            )
        free = info.header_offset + _LOCAL_HEADER + name + info.compress_size


def _files(entries: Sequence[zipfile.ZipInfo]) -> list[File]:
    files: dict[tuple[str, ...], File] = {}
    for info in entries:
        path = _path(info)
        if not path or any(map(is_hidden, path)):
            continue
        _check_kind(info)
        if info.is_dir():
            continue
        if path in files:
            raise InvalidRequestError(f"'{shortened(info.filename)}' is in the archive more than once; rename one.")
        files[path] = File(path, info)
    return list(files.values())


def _path(info: zipfile.ZipInfo) -> tuple[str, ...]:
    """Returns the parts of the name. Raises InvalidRequestError if it leads out of the archive."""
    name = _text(info).replace("\\", "/")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or name[1:2] == ":":
        raise InvalidRequestError(f"'{shortened(name)}' leads out of the archive; use relative names without '..'.")
    return parts


def _text(info: zipfile.ZipInfo) -> str:
    """Returns the name. Many programs write UTF-8 without its flag, which zipfile decodes as code page 437."""
    if not info.flag_bits & _UTF8:
        try:
            return info.filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return info.filename


def _check_kind(info: zipfile.ZipInfo) -> None:
    """Refuses everything but stored or deflated files and folders. Raises InvalidRequestError."""
    name = shortened(info.filename)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in ({0, stat.S_IFDIR} if info.is_dir() else {0, stat.S_IFREG}):
        raise InvalidRequestError(
            f"'{name}' is a link or another special file; the archive may hold only regular files."
        )
    if info.is_dir() and info.file_size:
        raise InvalidRequestError(
            f"'{name}' is named as a folder and has {info.file_size:,} bytes; recreate the archive."
        )
    if info.flag_bits & _ENCRYPTED:
        raise InvalidRequestError(f"'{name}' is encrypted; create the archive without a password.")
    if info.compress_type not in _METHODS:
        raise InvalidRequestError(
            f"'{name}' uses compression method {info.compress_type}; only 0 (stored) and 8 (deflated) are supported."
        )
