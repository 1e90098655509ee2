"""The images of a call: paths, bytes, file objects, Pillow images or NumPy arrays -> what the service reads.

Pillow and NumPy are optional. An object can be theirs only if the caller has imported them.
"""

import io
import os
import struct
import sys
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard

from convoy_client.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image

Array: TypeAlias = "np.ndarray[Any, Any]"


class BinaryFile(Protocol):
    def read(self) -> bytes: ...


Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile"
Image: TypeAlias = "Source | PIL.Image.Image | Array"
Images: TypeAlias = "Image | Iterable[Image]"

_PNG_MODES = {"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"}
_PNG_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # by the number of channels
_CHANNELS = set(_PNG_COLOUR_TYPES)


@dataclass(frozen=True)
class File:
    name: str
    data: bytes


def batch(images: Images) -> "Array | list[File]":
    """Returns uint8 pixels [n, height, width] or [n, height, width, channels] if all images are arrays of one shape.

    Returns files otherwise. Raises InvalidInputError, and OSError for a file that cannot be read.
    """
    if is_array(images):
        pixels = _pixels(images)
        return pixels if _is_stack(pixels) else pixels[None]
    items: list[Any] = [images] if _is_single(images) else list(images)  # type: ignore[arg-type]
    if not items:
        raise InvalidInputError("images is empty; give at least one image.")
    if all(map(is_array, items)) and len({item.shape for item in items}) == 1:
        import numpy as np  # noqa: PLC0415 - the caller has imported it

        return np.stack([_single(item) for item in items])
    return [_file(item, str(index)) for index, item in enumerate(items)]


def is_array(value: object) -> TypeGuard[Array]:
    return "numpy" in sys.modules and isinstance(value, sys.modules["numpy"].ndarray)


def read(source: object, name: str = "") -> File:
    """Returns a path's, a file object's or bytes' content. name is for content without one."""
    if isinstance(source, str | os.PathLike):
        return File(Path(source).name, Path(source).read_bytes())
    if isinstance(source, bytes | bytearray | memoryview):
        return File(name, bytes(source))
    if not hasattr(source, "read"):
        raise InvalidInputError(
            f"An image is of type {type(source).__name__}; give a path, bytes, a file, a Pillow image or a NumPy array."
        )
    data = source.read()
    if not isinstance(data, bytes):
        raise InvalidInputError(f"A file object returns {type(data).__name__}; open it in binary mode ('rb').")
    path = getattr(source, "name", None)
    return File(Path(path).name if isinstance(path, str) else name, data)


def _file(image: Any, name: str) -> File:
    if is_array(image):
        return File(f"{name}.png", _encode_array(_single(image)))
    if _is_pillow(image):
        return File(f"{name}.png", _encode_pillow(image))
    return read(image, name)


def _is_single(images: object) -> bool:
    return (
        isinstance(images, str | os.PathLike | bytes | bytearray | memoryview)
        or hasattr(images, "read")
        or _is_pillow(images)
        or not isinstance(images, Iterable)
    )


def _is_pillow(value: object) -> bool:
    return "PIL.Image" in sys.modules and isinstance(value, sys.modules["PIL.Image"].Image)


def _encode_pillow(image: "PIL.Image.Image") -> bytes:
    """Keeps the EXIF data: the service turns an image upright, as it would turn the image's file."""
    buffer = io.BytesIO()
    shown = image if image.mode in _PNG_MODES else image.convert("RGB")
    shown.save(buffer, "PNG", exif=image.getexif())
    return buffer.getvalue()


def _pixels(array: Array) -> Array:
    if array.dtype != "uint8":
        raise InvalidInputError(
            f"An array has the type {array.dtype}; give pixels from 0 to 255 as uint8. For values from 0 to 1: "
            "(array * 255).round().astype('uint8')."
        )
    if array.ndim not in {2, 3, 4} or 0 in array.shape:
        raise InvalidInputError(
            f"An array has the shape {list(array.shape)}; give [height, width], [height, width, channels], or a stack "
            "of these, not empty."
        )
    return array


def _is_stack(pixels: Array) -> bool:
    """With three dimensions, the last one decides: 1, 3 or 4 are channels, so it is a single image."""
    return pixels.ndim == 4 or (pixels.ndim == 3 and pixels.shape[2] not in _CHANNELS)


def _single(array: Array) -> Array:
    pixels = _pixels(array)
    if _is_stack(pixels):
        raise InvalidInputError(
            f"An array in a list has the shape {list(pixels.shape)}; give [height, width], or "
            "[height, width, channels] with 1, 3 or 4 channels."
        )
    return pixels


def _encode_array(pixels: Array) -> bytes:
    """Returns a PNG, written without Pillow."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    header = struct.pack(">IIBBBBB", width, height, 8, _PNG_COLOUR_TYPES[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # 0: no filter
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
