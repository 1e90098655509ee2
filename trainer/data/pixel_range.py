"""Numbers as people keep pixels in, 0 to 255 or 0 to 1 or another range, to bytes."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.image import Pixels

Numbers = npt.NDArray[Any]
ValueRange = tuple[float, float]
BYTES: ValueRange = (0, 255)
UNIT: ValueRange = (0, 1)


def detect_range(blocks: Iterable[Numbers]) -> ValueRange:
    """0 to 1 where there are fractions before any value above 1; reads no further than it needs to tell."""
    for block in blocks:
        if not (block.min() >= 0 and block.max() <= 1):  # written so that NaN is outside
            return BYTES
        if (block != np.round(block)).any():
            return UNIT
    return BYTES


def outside(values: Numbers, value_range: ValueRange) -> npt.NDArray[np.bool_]:
    low, high = value_range
    inside: npt.NDArray[np.bool_] = (values >= low) & (values <= high)
    return ~inside  # NaN is outside


def to_bytes(values: Numbers, value_range: ValueRange) -> Pixels:
    """Values inside the range -> uint8, its ends at 0 and 255."""
    if value_range == BYTES:
        return values if values.dtype == np.uint8 else np.round(values).astype(np.uint8)
    low, high = value_range
    return np.round((values.astype(np.float64) - low) * (255 / (high - low))).astype(np.uint8)


def shown_range(value_range: ValueRange) -> str:
    return f"{value_range[0]:g} to {value_range[1]:g}"
