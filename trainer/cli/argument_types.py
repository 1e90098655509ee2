"""Types of options for argparse: each checks its text before any work is done."""

import argparse
import re
import tempfile
from pathlib import Path

from schemas.manifest import NAME_PATTERN


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


def model_name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise argparse.ArgumentTypeError(
            f"'{text}' must be up to 64 lower-case letters, digits, dots, hyphens and underscores, first a letter or a "
            "digit"
        )
    return text


def numbers(text: str) -> tuple[float, ...]:
    """One number, or three between commas."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in {1, 3} or not all(abs(value) < float("inf") for value in values):
        raise argparse.ArgumentTypeError(f"'{text}' must be one number, or one per channel as in 0.485,0.456,0.406")
    return values


def deviations(text: str) -> tuple[float, ...]:
    """Like numbers, above 0."""
    values = numbers(text)
    if min(values) <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' must be above 0")
    return values


def image_shape(text: str) -> tuple[int, int, int]:
    """height,width,channels"""
    sides = [int(part) for part in text.split(",") if part.isdecimal()]
    if len(sides) != text.count(",") + 1 or len(sides) != 3 or min(sides) < 1 or sides[2] not in {1, 3}:
        raise argparse.ArgumentTypeError(f"'{text}' must be height,width,channels, as in 224,224,3")
    height, width, channels = sides
    return height, width, channels


def new_file(text: str) -> Path:
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"'{text}' is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"the folder '{path.parent}' of '{path.name}' does not exist")
    _check_writable(path.parent)
    return path


def folder(text: str) -> Path:
    """The folder may be new, or read-only."""
    existing = _existing(Path(text))
    if not existing.is_dir():
        raise argparse.ArgumentTypeError(f"'{existing}' is not a folder")
    return Path(text)


def output_folder(text: str) -> Path:
    """The folder may be new; the nearest folder above that exists must take files."""
    _check_writable(_existing(Path(text)))
    return Path(text)


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def _check_writable(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(f"'{folder}' cannot be written ({error.strerror})") from error
