"""Draws a class activation map over its image."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from schemas.bundle import FloatArray
from schemas.image import Pixels

_SIDE = 224  # smaller images are enlarged, or the map would be a few blocks
_OPACITY = 0.75
_OPAQUE = 1 / 3  # share from which the opacity is full; on light photos, a slow rise would hide the map's edge
# Matplotlib's plasma, from little evidence to much. The lightness rises, so the map reads without colour vision, too.
_COLOURS = np.array([[13, 8, 135], [126, 3, 168], [204, 71, 120], [248, 149, 64], [240, 249, 33]], np.float32)


def overlay(image: Pixels, map_: FloatArray) -> Pixels:
    """Returns RGB uint8 [height, width, 3]: the image, uint8 [height, width, 1 | 3], below the map [h, w].

    The colours show the share of the map's largest value. Values below zero, which speak against the class, stay clear.
    """
    factor = -(-_SIDE // max(image.shape[:2]))
    image = np.broadcast_to(image, (*image.shape[:2], 3)).repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = image.shape[:2]
    evidence = np.asarray(Image.fromarray(map_.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC))
    share = np.clip(evidence / max(float(map_.max()), np.finfo(np.float32).tiny), 0, 1)[:, :, None]
    opacity = _OPACITY * np.minimum(share / _OPAQUE, 1)
    blended: Pixels = (image + opacity * (_colours(share) - image)).round().astype(np.uint8)
    return blended


def _colours(share: FloatArray) -> npt.NDArray[np.float64]:
    steps = np.linspace(0, 1, len(_COLOURS))
    return np.concatenate([np.interp(share, steps, channel) for channel in _COLOURS.T], axis=2)
