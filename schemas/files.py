"""Reads files that other programs wrote, and writes files that other programs may read at any time."""

import errno
import os
import stat
import uuid
from pathlib import Path


def read_regular_file(path: Path) -> bytes:
    """Returns the file's bytes. Raises OSError if it is not a regular file: opening a pipe can block forever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return path.read_bytes()


def atomic_write(path: Path, content: bytes | str) -> None:
    """Replaces the file: a reader sees the old content or the new, even after a power failure.

    Text is written as UTF-8. Raises OSError.
    """
    new = path.with_name(f".new-{uuid.uuid4().hex}")
    try:
        new.write_bytes(content.encode() if isinstance(content, str) else content)
        sync_entry(new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    sync_entry(path.parent)


def sync_entry(path: Path) -> None:
    """Flushes a file or a folder's list of entries to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder, and does not need to.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
