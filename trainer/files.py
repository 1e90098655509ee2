"""Writing so that a loss of power finds the old or the new, never a half."""

import os
import stat
from pathlib import Path

from schemas.bundle import MANIFEST_FILE
from schemas.ignored_files import is_hidden
from trainer.errors import DataError


def sync_tree(folder: Path) -> None:
    """Everything below the folder, and itself, is on the disk when this returns."""
    for entry in sorted(folder.rglob("*"), reverse=True):
        sync_entry(entry)
    sync_entry(folder)


def sync_entry(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder, and needs no sync of one
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find_files(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """The files at any depth, sorted, and why what else is there is none; what is hidden is in neither."""
    files: list[Path] = []
    refused: dict[Path, str] = {}

    def closed(error: OSError) -> None:
        refused[Path(error.filename)] = f"The folder cannot be read ({error.strerror})."

    for root, folders, names in os.walk(folder, onerror=closed):
        folders[:] = [name for name in folders if not is_hidden(name)]
        links = [name for name in folders if Path(root, name).is_symlink()]  # which walk does not follow
        for path in (Path(root, name) for name in (*names, *links) if not is_hidden(name)):
            reason = why_no_file(path)
            if reason is None:
                files.append(path)
            else:
                refused[path] = reason
    return sorted(files), refused


def why_no_file(path: Path) -> str | None:
    """None for a file, or a link to one."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "The link leads to nothing."
    except OSError as error:
        return f"The file cannot be read ({error.strerror})."
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "It is a link to a folder, which is not followed."
    return "It is a pipe, which is no file." if stat.S_ISFIFO(mode) else "It is a device or a socket, which is no file."


def newest_version(path: Path) -> Path:
    """The path itself where it is a bundle, else its newest version. Raises DataError where there is neither."""
    if (path / MANIFEST_FILE).exists():
        return path
    entries = path.iterdir() if path.is_dir() else ()
    versions = [entry for entry in entries if entry.name.isascii() and entry.name.isdigit()]
    if not versions:
        raise DataError(f"{path} is no bundle; name artifacts/<model>/<version>, or artifacts/<model>.")
    return max(versions, key=lambda entry: int(entry.name))
