"""Reading a file that somebody else put there, and writing one that others may read at any time."""

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path


def read_regular_file(path: Path) -> bytes:
    """Raises OSError, also for anything that is not a regular file: opening a pipe or a device can block forever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return path.read_bytes()


def atomic_write(path: Path, data: bytes) -> None:
    """A reader, or a restart after a power failure, finds the old file or the new one. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)  # mkstemp's files are for their owner alone
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
        return  # Windows cannot open a folder, and needs no sync of one
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
