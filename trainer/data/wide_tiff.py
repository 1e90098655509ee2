"""TIFF photos of 32-bit integers or floating point: only the whole data set shows the range of their values."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from schemas.value_range import Numbers, ValueRange
from trainer.data.pixel_range import decide_range

_SUFFIXES = {".tif", ".tiff"}
_MODES = {"F", "I"}


def wide_tiffs(files: Sequence[Path]) -> list[Path]:
    """Returns those of the files that are such photos."""
    return [path for path in files if path.suffix.lower() in _SUFFIXES and _mode(path) in _MODES]


def range_of(paths: Sequence[Path]) -> ValueRange:
    """Raises DataError if the values of the photos fit several ranges."""
    return decide_range({"the 32-bit TIFF files": _all_values(paths)})


def _all_values(paths: Sequence[Path]) -> Iterator[Numbers]:
    for path in paths:
        try:
            with Image.open(path, formats=("TIFF",)) as image:
                yield np.asarray(image)
        except Exception:  # noqa: S112 - decoders raise many types; the file is reported when it is decoded
            continue


def _mode(path: Path) -> str | None:
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            return image.mode
    except Exception:  # decoders raise many types; the file is reported when it is decoded
        return None
