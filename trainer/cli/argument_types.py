"""Types of options for argparse: each checks its text before any work is done."""

import argparse
import tempfile
from pathlib import Path


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' must be a positive integer")
    return int(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' must be a number of seconds, 0 or more")
    return value


def new_file(text: str) -> Path:
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"'{text}' is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"the folder '{path.parent}' of '{path.name}' does not exist")
    _check_writable(path.parent)
    return path


def output_folder(text: str) -> Path:
    """The folder may be new; the nearest folder above that exists must take files."""
    path = Path(text)
    existing = next(each for each in (path, *path.absolute().parents) if each.exists())
    _check_writable(existing)
    return path


def _check_writable(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(f"'{folder}' cannot be written ({error.strerror})") from error
