"""What a body holds before anything is decoded. Decoding happens in the batcher's thread, after admission.

Each kind becomes the model's input through schemas.image; what cannot is an ImageError, an error of that one image.
"""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType
from typing import Any, Protocol

import numpy as np

from schemas.errors import ImageError, ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from schemas.image import Pixels, decode_image, fit_pixels
from schemas.manifest import InputSpec
from service.validation import shortened

_INSTANCE_KINDS = 'an instance is {"b64": "..."} or rows of pixels'
_JSON_KINDS = {str: "A string", int: "A number", float: "A number", bool: "A boolean", NoneType: "null"}


class Image(Protocol):
    def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
        """-> uint8 [height, width, channels] of the spec. Raises ImageError."""


@dataclass(frozen=True)
class EncodedImage:
    """An image file: PNG, JPEG, ..."""

    data: bytes

    def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
        return decode_image(self.data, spec, max_pixels)


@dataclass(frozen=True)
class PixelArray:
    """uint8 [height, width] or [height, width, channels]."""

    pixels: Pixels

    def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
        _check_size(self.pixels, max_pixels)
        return fit_pixels(self.pixels, spec)


@dataclass(frozen=True)
class ArchivedImage:
    """An image file inside an archive, unpacked when its turn comes. unpack raises ImageError."""

    name: str
    unpack: Callable[[], bytes]

    def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
        try:
            return decode_image(self.unpack(), spec, max_pixels)
        except ImageError as error:
            raise type(error)(f"{shortened(self.name)}: {error}") from error


@dataclass(frozen=True)
class ArchivedPixels:
    """As PixelArray, unpacked when its turn comes. unpack raises ImageError."""

    unpack: Callable[[], Pixels]

    def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
        return PixelArray(self.unpack()).decode(spec, max_pixels)


def name_of(image: Image) -> str | None:
    """The image's file, where it came with one."""
    return image.name if isinstance(image, ArchivedImage) else None


@dataclass(frozen=True)
class JsonInstance:
    """An instance of a JSON body as it came: a base64 object or nested lists of pixels, or something else."""

    value: Any

    def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
        if isinstance(self.value, dict):
            return decode_image(_base64(self.value), spec, max_pixels)
        if isinstance(self.value, list):
            pixels = _pixels(self.value)
            _check_size(pixels, max_pixels)
            return fit_pixels(pixels, spec)
        raise UnsupportedImageError(f"{_JSON_KINDS[type(self.value)]} is no image; {_INSTANCE_KINDS}.")


def _base64(instance: dict[str, Any]) -> bytes:
    text = instance.get("b64")
    if set(instance) == {"b64"} and not isinstance(text, str):
        raise UnsupportedImageError("b64 must be a string, an image file in base64.")
    if set(instance) != {"b64"} or not isinstance(text, str):
        raise UnsupportedImageError(f"The object has the fields {shortened(sorted(instance))}; {_INSTANCE_KINDS}.")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableImageError(f"b64 is not base64 ({error}); line breaks and data: URLs are not.") from error


def _pixels(rows: list[Any]) -> Pixels:
    # As objects first: left to choose, numpy would take true for 1, and make every value as long as the longest string.
    try:
        values = np.array(rows, dtype=object)
    except ValueError as error:  # nested too deeply
        raise UnsupportedImageError(f"The rows of pixels cannot be read; {_INSTANCE_KINDS}.") from error
    kinds = set(map(type, values.ravel().tolist()))
    if list in kinds:
        raise UnsupportedImageError("The rows of pixels are not all of one length.")
    if kinds != {int}:
        raise UnsupportedImageError("Pixels must be integers from 0 to 255, and at least one.")
    if values.min() < 0 or values.max() > np.iinfo(np.uint8).max:
        raise UnsupportedImageError(
            f"Pixels must lie from 0 to 255, not {shortened(values.min())} to {shortened(values.max())}."
        )
    return values.astype(np.uint8)


def _check_size(pixels: Pixels, max_pixels: int) -> None:
    if pixels.ndim >= 2 and pixels.shape[0] * pixels.shape[1] > max_pixels:
        height, width = pixels.shape[:2]
        raise ImageTooLargeError(f"The image has {width} x {height} pixels; at most {max_pixels:,} are allowed.")
