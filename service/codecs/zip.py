"""A zip within a body: what it holds is checked by its directory alone, and unpacked one file at a time, in memory.

Nothing is written to disk, so a path can harm nobody; one that leads out of the archive, a link or an encrypted file
is refused all the same: whoever made it meant something that does not happen here.

Limits: the unpacked size that the directory announces, and the number of files. A file never gives more bytes than
announced, whatever its data would unpack to. Hidden files and what desktops leave in folders are passed over.
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
from service.codecs.base import Incoming
from service.errors import InvalidRequestError, MalformedBodyError, TooManyImagesError
from service.validation import shortened

# What a parser would have to make of a directory is counted before it is parsed: a small body can list a million files.
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
    """One file of the archive; path is its name's parts."""

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
    """The files of a zip, in the order of its directory. May be read from several threads."""

    def __init__(self, data: bytes, incoming: Incoming) -> None:
        """Raises MalformedBodyError for no zip at all, else InvalidRequestError, or TooManyImagesError."""
        self._zip = _open(data, incoming.max_images)
        self._lock = threading.Lock()  # zipfile counts its open files without one
        entries = self._zip.infolist()
        _check_extents(entries, self._zip.start_dir)
        self.files: Sequence[File] = _files(entries)
        if len(self.files) > incoming.max_images:
            raise TooManyImagesError(incoming.max_images, len(self.files))
        size = sum(file.size for file in self.files)
        if size > incoming.max_archive_bytes:
            raise InvalidRequestError(
                f"The archive unpacks to {size:,} bytes, more than the {incoming.max_archive_bytes:,} allowed; "
                "send the images in several requests."
            )

    def read(self, file: File) -> bytes:
        """The whole file. Raises UnreadableImageError where it is damaged, or not what the directory says."""
        with self.damage_told(), self.opened(file) as stream:
            data = stream.read(file.size)
            if len(data) != file.size:
                raise EOFError(f"it has {len(data):,} bytes and the directory says {file.size:,}")
            return data

    def check(self, file: File) -> None:
        """Unpacks the file and drops it, a piece at a time. Raises as read."""
        with self.damage_told(), self.opened(file) as stream:
            size = sum(map(len, iter(lambda: stream.read(_PIECE), b"")))
            if size != file.size:
                raise EOFError(f"it has {size:,} bytes and the directory says {file.size:,}")

    @contextmanager
    def opened(self, file: File) -> Iterator[IO[bytes]]:
        stream = self.open(file)
        try:
            yield stream
        finally:
            with self._lock:
                stream.close()

    def open(self, file: File) -> IO[bytes]:
        """A stream to be asked for so many bytes at a time, never for all. Raises whatever zipfile does."""
        with self._lock:
            return self._zip.open(file.info)

    @staticmethod
    @contextmanager
    def damage_told() -> Iterator[None]:
        """Whatever goes wrong while unpacking, as UnreadableImageError."""
        try:
            yield
        except _DAMAGE as error:
            raise UnreadableImageError(f"It cannot be unpacked ({shortened(error, 120)}).") from error


def _open(data: bytes, max_images: int) -> zipfile.ZipFile:
    if _END_OF_DIRECTORY not in data:
        raise MalformedBodyError("The archive is no zip or .npz file, or it is cut short.")
    if data.count(_DIRECTORY_ENTRY) > 2 * max_images + _MORE_ENTRIES:  # macOS adds a file for each
        raise TooManyImagesError(max_images)
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:  # hostile directories raise whatever a parser can
        raise InvalidRequestError(
            f"The archive's directory cannot be read ({shortened(error)}); pack it anew."
        ) from error


def _check_extents(entries: Sequence[zipfile.ZipInfo], end: int) -> None:
    """No two files may share bytes, or a few bytes could be unpacked a thousand times (Fifield, 2019)."""
    free = 0
    for info in sorted(entries, key=lambda info: info.header_offset):
        name = len(info.orig_filename)  # its bytes are at least as many
        if info.header_offset < free or info.header_offset + _LOCAL_HEADER + name + info.compress_size > end:
            raise InvalidRequestError(
                f"'{shortened(info.filename)}' shares its bytes with another part of the archive; pack it anew."
            )
        free = info.header_offset + _LOCAL_HEADER + name + info.compress_size


def _files(entries: Sequence[zipfile.ZipInfo]) -> list[File]:
    files: dict[tuple[str, ...], File] = {}
    for info in entries:
        path = _path(info)
        if _passed_over(path):
            continue
        _check_kind(info)
        if info.is_dir():
            continue
        if path in files:
            raise InvalidRequestError(f"'{shortened(info.filename)}' is in the archive more than once; pack it anew.")
        files[path] = File(path, info)
    return list(files.values())


def _path(info: zipfile.ZipInfo) -> tuple[str, ...]:
    """The parts of the name. Raises InvalidRequestError where it leads out of the archive."""
    name = _text(info).replace("\\", "/")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or name[1:2] == ":":
        raise InvalidRequestError(
            f"'{shortened(name)}' leads out of the archive; names must be relative and without '..'."
        )
    return parts


def _text(info: zipfile.ZipInfo) -> str:
    """Many packers write UTF-8 and do not say so, where zip says it is the code page of the first PCs."""
    if not info.flag_bits & _UTF8:
        try:
            return info.filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return info.filename


def _passed_over(path: tuple[str, ...]) -> bool:
    return not path or any(is_hidden(part) for part in path)


def _check_kind(info: zipfile.ZipInfo) -> None:
    """A plain file or folder, packed in a way that every tool can."""
    name = shortened(info.filename)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in ({0, stat.S_IFDIR} if info.is_dir() else {0, stat.S_IFREG}):
        raise InvalidRequestError(
            f"'{name}' is a link or another special file; the archive may hold plain files alone."
        )
    if info.is_dir() and info.file_size:
        raise InvalidRequestError(f"'{name}' is named as a folder and has {info.file_size:,} bytes; pack it anew.")
    if info.flag_bits & _ENCRYPTED:
        raise InvalidRequestError(f"'{name}' is encrypted; pack it without a password.")
    if info.compress_type not in _METHODS:
        raise InvalidRequestError(
            f"'{name}' is packed by method {info.compress_type}; only stored (0) and deflated (8) files are read."
        )
