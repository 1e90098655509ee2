"""The images of a request, before they are decoded. Decoding comes after admission.

Each kind becomes the model's input through schemas.image. An ImageError concerns one image, not its request.
"""

import base64
import binascii
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType
from typing import Any, Protocol

import numpy as np

from schemas.errors import ImageError, ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from schemas.image import Pixels, decode_image, fit_pixels
from schemas.manifest import InputSpec
from service.validation import shortened

_INSTANCE_KINDS = 'send {"b64": "..."} or rows of pixels'
_JSON_KINDS = {str: "a string", int: "a number", float: "a number", bool: "a boolean", NoneType: "null"}

# Measured: reading a byte of a PNG takes about as long as resizing 8 bytes of pixels, or a fourth of a number in JSON.
_RESIZED_BYTES = 8
_JSON_NUMBER = 4


class Image(Protocol):
    @property
    def decode_cost(self) -> int:
        """A rough estimate of the time to decode: the bytes of an image file that takes as long."""

    def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
        """Returns uint8 [height, width, channels] of the spec. Raises ImageError."""


@dataclass(frozen=True)
class EncodedImage:
    """An image file, for example a PNG or JPEG. name is the file's name, if the client sent one."""

    data: bytes
    name: str | None = None

    @property
    def decode_cost(self) -> int:
        return len(self.data)

    def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
        try:
            return decode_image(self.data, spec, max_pixels)
        except ImageError as error:
            raise _named(error, self.name) from None


@dataclass(frozen=True)
class PixelArray:
    """uint8 [height, width] or [height, width, channels]."""

    pixels: Pixels

    @property
    def decode_cost(self) -> int:
        return self.pixels.nbytes // _RESIZED_BYTES

    def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
        if self.pixels.ndim >= 2 and self.pixels.shape[0] * self.pixels.shape[1] > max_pixels:
            height, width = self.pixels.shape[:2]
            raise ImageTooLargeError(f"The image has {width} x {height} pixels; the limit is {max_pixels:,}.")
        return fit_pixels(self.pixels, spec)


@dataclass(frozen=True)
class ArchivedImage:
    """An image file in an archive, unpacked when it is decoded. unpack raises ImageError."""

    name: str
    unpack: Callable[[], bytes]
    decode_cost = sys.maxsize  # unknown until it is unpacked

    def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
        try:
            return decode_image(self.unpack(), spec, max_pixels)
        except ImageError as error:
            raise _named(error, self.name) from None


@dataclass(frozen=True)
class ArchivedPixels:
    """Pixels as in PixelArray, unpacked when they are decoded. unpack raises ImageError."""

    unpack: Callable[[], Pixels]
    decode_cost = sys.maxsize

    def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
        return PixelArray(self.unpack()).decode(spec, max_pixels)


def name_of(image: Image) -> str | None:
    """The name of the image's file, if it came with one."""
    return image.name if isinstance(image, ArchivedImage | EncodedImage) else None


def _named(error: ImageError, name: str | None) -> ImageError:
    """Adds the file's name to the error."""
    return type(error)(f"{shortened(name)}: {error}") if name else error


@dataclass(frozen=True)
class JsonInstance:
    """An instance of a JSON body: {"b64": ...}, nested lists of pixels, or a value that is not an image."""

    value: Any

    @property
    def decode_cost(self) -> int:
        if isinstance(self.value, dict):
            text = self.value.get("b64")
            return len(text) if isinstance(text, str) else 0
        cost, level = _JSON_NUMBER, self.value
        while isinstance(level, list) and level:  # the first list stands for all of its level
            cost, level = cost * len(level), level[0]
        return cost

    def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
        if isinstance(self.value, dict):
            return decode_image(_base64(self.value), spec, max_pixels)
        if isinstance(self.value, list):
            return PixelArray(_pixels(self.value)).decode(spec, max_pixels)
        raise UnsupportedImageError(f"The instance is {_JSON_KINDS[type(self.value)]}; {_INSTANCE_KINDS}.")


def _base64(instance: dict[str, Any]) -> bytes:
    text = instance.get("b64")
    if set(instance) == {"b64"} and not isinstance(text, str):
        raise UnsupportedImageError("b64 must be a string: an image file in base64.")
    if set(instance) != {"b64"} or not isinstance(text, str):
        raise UnsupportedImageError(f"The instance has the fields {shortened(sorted(instance))}; {_INSTANCE_KINDS}.")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableImageError(
            f"b64 is not base64 ({error}); remove line breaks and any data: URL prefix."
        ) from error


def _pixels(rows: list[Any]) -> Pixels:
    # As objects: with another type, numpy would take true for 1, and give every value the length of the longest string.
    try:
        values = np.array(rows, dtype=object)
    except ValueError as error:  # nested too deeply
        raise UnsupportedImageError(f"The rows of pixels cannot be read; {_INSTANCE_KINDS}.") from error
    types = set(map(type, values.ravel().tolist()))
    if list in types:
        raise UnsupportedImageError("The rows of pixels must all have the same length.")
    if types != {int}:
        raise UnsupportedImageError("Pixels must be integers from 0 to 255, and there must be at least one.")
    if values.min() < 0 or values.max() > np.iinfo(np.uint8).max:
        raise UnsupportedImageError(
            f"Pixels must be from 0 to 255, not {shortened(values.min())} to {shortened(values.max())}."
        )
    return values.astype(np.uint8)
