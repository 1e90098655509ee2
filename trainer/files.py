"""Folders: flushing, listing, and the newest version of a bundle."""

import os
import stat
from pathlib import Path

from schemas.bundle import MANIFEST_FILE, Bundle, open_bundle
from schemas.files import sync_entry
from schemas.ignored_files import is_hidden
from trainer.errors import DataError


def sync_tree(folder: Path) -> None:
    """Flushes a folder and everything below it to the disk."""
    for entry in sorted(folder.rglob("*"), reverse=True):
        sync_entry(entry)
    sync_entry(folder)


def find_files(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """Returns the files at any depth, sorted, and the reason for each entry that cannot be read as a file.

    Hidden files and folders are in neither.
    """
    files: list[Path] = []
    refused: dict[Path, str] = {}

    def refuse_folder(error: OSError) -> None:
        refused[Path(error.filename)] = f"The folder cannot be read ({error.strerror})."

    for root, folders, names in os.walk(folder, onerror=refuse_folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        links = [name for name in folders if Path(root, name).is_symlink()]  # os.walk does not follow these
        for path in (Path(root, name) for name in (*names, *links) if not is_hidden(name)):
            reason = why_not_a_file(path)
            if reason is None:
                files.append(path)
            else:
                refused[path] = reason
    return sorted(files), refused


def why_not_a_file(path: Path) -> str | None:
    """Returns why a path cannot be read as a file, without opening it: reading a pipe could block forever."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "Broken link."
    except OSError as error:
        return f"The file cannot be read ({error.strerror})."
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "Links to folders are not followed."
    return "Not a regular file (pipe)." if stat.S_ISFIFO(mode) else "Not a regular file (device or socket)."


def version_folders(model: Path) -> dict[int, Path]:
    """Returns the folders of a model's versions by number; empty if there is no such model."""
    entries = model.iterdir() if model.is_dir() else ()
    return {int(entry.name): entry for entry in entries if entry.name.isascii() and entry.name.isdigit()}


def open_newest_bundle(path: Path) -> Bundle:
    """Opens artifacts/<model>/<version>, or the newest version of artifacts/<model>.

    Raises DataError if there is no bundle, and what open_bundle raises.
    """
    if not (path / MANIFEST_FILE).exists():
        versions = version_folders(path)
        if not versions:
            raise DataError(f"{path} is not a bundle. Give artifacts/<model>/<version> or artifacts/<model>.")
        path = versions[max(versions)]
    return open_bundle(path)
