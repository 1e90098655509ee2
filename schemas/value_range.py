"""Pixel values of any range, such as 0 to 1, to bytes."""

from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[Any]
ValueRange = tuple[float, float]
"""The values of black and white."""
BYTES: ValueRange = (0, 255)
TOLERANCE = 0.002  # of the range: half a step of a byte, for values that rounding took beyond an end


def outside(values: Numbers | np.float64, value_range: ValueRange) -> npt.NDArray[np.bool_]:
    """Returns True where a value is not in the range, or is NaN."""
    low, high = value_range
    slack = TOLERANCE * (high - low)
    inside: npt.NDArray[np.bool_] = np.asarray((values >= low - slack) & (values <= high + slack))
    return ~inside


def to_bytes(values: Numbers, value_range: ValueRange) -> npt.NDArray[np.uint8]:
    """Returns uint8, with the ends of the range at 0 and 255."""
    if value_range == BYTES and values.dtype == np.uint8:
        return values
    low, high = value_range
    return np.round((values.astype(np.float64) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)


def shown_range(value_range: ValueRange) -> str:
    return f"{value_range[0]:g} to {value_range[1]:g}"
