"""Writing so that a loss of power finds the old or the new, never a half."""

import os
from pathlib import Path


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
