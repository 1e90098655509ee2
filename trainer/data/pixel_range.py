"""Decides the range of a data set's pixel values: 0 to 255, 0 to 1 or -1 to 1."""

from collections.abc import Iterable, Mapping

import numpy as np

from schemas.value_range import BYTES, TOLERANCE, Numbers, ValueRange, shown_range
from trainer.errors import DataError

UNIT: ValueRange = (0, 1)
SIGNED: ValueRange = (-1, 1)
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
