"""Valid archives, and archives with a wrong directory."""

import io
import struct
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

_DIRECTORY_ENTRY = b"PK\x01\x02"
# Where a field lies in a directory entry, and how it is packed.
_FIELDS = {
    "flags": (8, "<H"),
    "method": (10, "<H"),
    "crc": (16, "<I"),
    "packed": (20, "<I"),
    "size": (24, "<I"),
    "offset": (42, "<I"),
}

Files = Mapping[str, bytes] | Iterable[tuple[str | zipfile.ZipInfo, bytes]]


def zipped(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items() if isinstance(files, Mapping) else files:
            archive.writestr(name, data)
    return buffer.getvalue()


def entry(name: str, mode: int = 0, extra: bytes = b"") -> zipfile.ZipInfo:
    """mode is the file's Unix mode."""
    info = zipfile.ZipInfo(name)
    info.external_attr, info.extra = mode << 16, extra
    return info


def lying(archive: bytes, place: int = 0, **fields: int) -> bytes:
    """Returns the archive with other values in one entry of its directory; the files stay unchanged."""
    changed, at = bytearray(archive), -1
    for _ in range(place + 1):
        at = changed.index(_DIRECTORY_ENTRY, at + 1)
    for name, value in fields.items():
        offset, packing = _FIELDS[name]
        struct.pack_into(packing, changed, at + offset, value)
    return bytes(changed)


def zip64_saying(size: int) -> bytes:
    """An archive with one red/1.png whose directory entry has a 64-bit size."""
    extra = struct.pack("<HHQ", 1, 8, size)
    return lying(zipped([(entry("red/1.png", extra=extra), b"x")]), size=0xFFFFFFFF)


def npz(*, compressed: bool = True, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()
