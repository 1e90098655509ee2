"""Pixel values of a data set, 0 to 255 or 0 to 1 or another range, to bytes."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.image import Pixels
from trainer.errors import DataError

Numbers = npt.NDArray[Any]
ValueRange = tuple[float, float]
BYTES: ValueRange = (0, 255)
UNIT: ValueRange = (0, 1)
SIGNED: ValueRange = (-1, 1)
TOLERANCE = 0.002  # of the range: half a step of a byte, for values that rounding took beyond an end
_LEAST_REACH = 0.75  # of values from -1 to 1; below it, they may also go from -0.5 to 0.5
_DARKEST_WHITE = 64  # no data set of bytes is darker than this in all its images


def decide_range(files: Mapping[str, Iterable[Numbers]], *, bytes_by_type: bool = False) -> ValueRange:
    """Returns the range of values that all files have, by their extremes. bytes_by_type: their type is uint8.

    Reads a file up to the first value that decides. Raises DataError for files of different ranges, and for values
    that could be of several ranges.
    """
    limits = {name: _limits(blocks) for name, blocks in files.items()}
    ranges = {name: found for name, (low, high) in limits.items() if (found := _range_of(low, high))}
    if len(set(ranges.values())) > 1:
        different = " and ".join(f"{name} {shown_range(each)}" for name, each in ranges.items())
        raise DataError(f"The files have different ranges of values: {different}. Convert one of them.")
    if ranges:
        return next(iter(ranges.values()))
    if bytes_by_type:
        return BYTES
    low, high = min(low for low, _ in limits.values()), max(high for _, high in limits.values())
    raise DataError(
        f"The value range is ambiguous: the values go from {low:g} to {high:g}. Set the values of black and white, as "
        f"in --set data.value_range=0,255 or data.value_range={low:g},{high:g}."
    )


def _limits(blocks: Iterable[Numbers]) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for block in blocks:
        low = min(low, float(np.fmin(np.inf, np.fmin.reduce(block, axis=None))))
        high = max(high, float(np.fmax(-np.inf, np.fmax.reduce(block, axis=None))))
        if high >= _DARKEST_WHITE:
            break
    return low, high


def _range_of(low: float, high: float) -> ValueRange | None:
    if high >= _DARKEST_WHITE or low == np.inf:
        return BYTES
    if low < -TOLERANCE and max(-low, high) < _LEAST_REACH:
        return None
    for each in (UNIT, SIGNED):
        slack = TOLERANCE * (each[1] - each[0])
        if each[0] - slack <= low and high <= each[1] + slack:
            return each
    return None


def outside(values: Numbers | np.float64, value_range: ValueRange) -> npt.NDArray[np.bool_]:
    """Returns True where a value is not in the range, or is NaN."""
    low, high = value_range
    slack = TOLERANCE * (high - low)
    inside: npt.NDArray[np.bool_] = np.asarray((values >= low - slack) & (values <= high + slack))
    return ~inside


def to_bytes(values: Numbers, value_range: ValueRange) -> Pixels:
    """Returns uint8, with the ends of the range at 0 and 255."""
    if value_range == BYTES and values.dtype == np.uint8:
        return values
    low, high = value_range
    return np.round((values.astype(np.float64) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)


def shown_range(value_range: ValueRange) -> str:
    return f"{value_range[0]:g} to {value_range[1]:g}"
