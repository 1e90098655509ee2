"""TIFF photos of 32-bit integers or floating point: only the whole data set shows the range of their values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image, ImageOps

from schemas.errors import UnreadableImageError, UnsupportedImageError
from schemas.image import Pixels, fit_pixels
from schemas.manifest import InputSpec
from trainer.data.pixel_range import UNIT, Numbers, ValueRange, decide_range, outside, shown_range, to_bytes

_SUFFIXES = {".tif", ".tiff"}
_MODES = {"F", "I"}


@dataclass(frozen=True)
class WideTiffs:
    paths: frozenset[Path]
    value_range: ValueRange

    @classmethod
    def among(cls, files: Sequence[Path], value_range: ValueRange | None) -> Self:
        """Returns those of the files that are such photos. Raises DataError if their values fit several ranges."""
        paths = [path for path in files if path.suffix.lower() in _SUFFIXES and _mode(path) in _MODES]
        if paths and value_range is None:
            value_range = decide_range({"the 32-bit TIFF files": _all_values(paths)})
        return cls(frozenset(paths), value_range or UNIT)

    @property
    def notes(self) -> tuple[str, ...]:
        count = len(self.paths)
        return (f"{count:,} 32-bit TIFF files, values {shown_range(self.value_range)}",) if count else ()

    def decode(self, path: Path, spec: InputSpec) -> Pixels:
        """Returns uint8 [height, width, channels] of the spec. Raises ImageError."""
        try:
            values = _values(path)
        except Exception as error:  # decoders raise many types on bad bytes
            raise UnreadableImageError(f"The image is damaged or cut short ({error}).") from error
        if outside(values, self.value_range).any():
            raise UnsupportedImageError(
                f"Its values, {values.min():g} to {values.max():g}, are outside {shown_range(self.value_range)}. Set "
                "the values of black and white, as in --set data.value_range=0,65535, or save it as 8-bit grey."
            )
        return fit_pixels(to_bytes(values, self.value_range), spec)


def _all_values(paths: Sequence[Path]) -> Iterator[Numbers]:
    for path in paths:
        try:
            yield _values(path)
        except Exception:  # noqa: S112 - decoders raise many types; the file is reported when it is decoded
            continue


def _values(path: Path) -> Numbers:
    with Image.open(path, formats=("TIFF",)) as image:
        return np.asarray(ImageOps.exif_transpose(image))


def _mode(path: Path) -> str | None:
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            return image.mode
    except Exception:  # decoders raise many types; the file is reported when it is decoded
        return None
