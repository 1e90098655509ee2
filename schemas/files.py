"""Reads files that other programs wrote, and writes files that other programs may read at any time."""

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path


def read_regular_file(path: Path) -> bytes:
    """Returns the file's bytes. Raises OSError if it is not a regular file: opening a pipe can block forever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return path.read_bytes()


def atomic_write(path: Path, data: bytes) -> None:
    """Replaces the file: a reader sees the old data or the new, even after a power failure. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)  # mkstemp creates files that only the owner can read
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        new.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows cannot open a folder, and need not sync it
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
