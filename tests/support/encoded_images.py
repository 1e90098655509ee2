"""Encoded images for tests, by Pillow and, where Pillow cannot write them, by hand."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import settings
from PIL import Image

from schemas.image import Pixels
from schemas.manifest import InputSpec, Interpolation, Resize

BOUNDED = settings(derandomize=True, database=None, deadline=None, max_examples=150)


def spec(height: int, width: int, channels: int = 3, **more: Any) -> InputSpec:
    return InputSpec(height=height, width=width, channels=channels, **more)


def spec_of(pixels: Pixels, resize: Resize = Resize.STRETCH) -> InputSpec:
    """The spec that the pixels [height, width, channels] already have."""
    height, width, channels = pixels.shape
    return InputSpec(height=height, width=width, channels=channels, resize=resize, interpolation=Interpolation.BILINEAR)


def noise(height: int, width: int, channels: int = 3) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encode(image: Image.Image | npt.NDArray[Any], image_format: str, **options: Any) -> bytes:
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, rows: list[bytes], extra: bytes = b"") -> bytes:
    """colour: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA; extra are chunks ahead of the pixels."""
    scanlines = zlib.compress(b"".join(b"\0" + row for row in rows))
    return png_of(width, height, depth, colour, extra + chunk(b"IDAT", scanlines))


def png_of(width: int, height: int, depth: int, colour: int, chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + chunk(b"IEND", b"")


def grey_tiff(width: int, height: int, bits: int, content: bytes, *, order: str = "<", **tags: int) -> bytes:
    """One strip, or one tile; order is < or >.

    tags: photometric (1: black is 0), compression (1: none, 8: deflate), rows (a strip), tile (its side).
    """
    entries = [
        (256, width),
        (257, height),
        (258, bits),
        (259, tags.get("compression", 1)),
        (262, tags.get("photometric", 1)),
        (273, 8),
        (277, 1),
        (278, tags.get("rows", height)),
        (279, len(content)),
    ]
    if "tile" in tags:
        entries = [entry for entry in entries if entry[0] not in {273, 278, 279}]
        entries += [(322, tags["tile"]), (323, tags["tile"]), (324, 8), (325, len(content))]
    short = {258, 259, 262, 277}
    content += b"\0" * (len(content) % 2)
    directory = struct.pack(order + "H", len(entries))
    for tag, value in entries:
        directory += struct.pack(order + "HHI", tag, 3 if tag in short else 4, 1)
        directory += struct.pack(order + "HH", value, 0) if tag in short else struct.pack(order + "I", value)
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HI", 42, 8 + len(content)) + content + directory + bytes(4)


def gif_claiming(width: int, height: int) -> bytes:
    """50 bytes whose only frame is to be wiped after showing, which makes a decoder reserve the frame at once."""
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + b"\0\0\0\xff\xff\xff"
        + b"!\xf9\x04\x08\0\0\0\0,"
        + struct.pack("<HHHHB", 0, 0, width, height, 0)
        + b"\x02\x02\x4c\x01\0;"
    )


def webp_claiming(width: int, height: int, *, lossless: bool) -> bytes:
    data = bytearray(encode(noise(4, 4), "WEBP", lossless=lossless))
    if lossless:
        at = data.index(b"VP8L") + 9
        flags = struct.unpack_from("<I", data, at)[0] & ~0xFFFFFFF
        struct.pack_into("<I", data, at, flags | (height - 1) << 14 | (width - 1))
    else:
        struct.pack_into("<HH", data, data.index(b"VP8 ") + 14, width, height)
    return bytes(data)


def exif_cut_short(orientation: int) -> bytes:
    """An EXIF block that announces two tags and ends after the first, the orientation."""
    return b"Exif\0\0II*\0" + struct.pack("<IHHHIHH", 8, 2, 0x0112, 3, 1, orientation, 0)
