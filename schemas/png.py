"""A short way to decode a small PNG, the most frequent image of a request, without Pillow's file reader."""

import re
import zlib
from collections.abc import Iterator

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_PIXELS = 256 * 256  # of a larger image, Pillow's reader takes only a small part of the time

_PLAIN = re.compile(re.escape(SIGNATURE) + rb"\0\0\0\rIHDR(.{4})(.{4})\x08([\0\2])\0\0\0", re.DOTALL)
_MODES = {b"\0": "L", b"\2": "RGB"}  # by colour type


def chunks(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields the start and the end of each complete chunk."""
    begin = len(SIGNATURE)
    while begin + 12 <= len(data):
        end = begin + 12 + int.from_bytes(data[begin : begin + 4])
        if end > len(data):
            return
        yield begin, end
        begin = end


def decode_plain_png(data: bytes, max_pixels: int) -> Image.Image | None:
    """Returns a small PNG of 8-bit grey or RGB that contains only a header and pixels.

    Returns None for every other file, which Pillow's reader decodes or refuses.
    """
    header = _PLAIN.match(data)
    if header is None:
        return None
    width, height, colour = int.from_bytes(header[1]), int.from_bytes(header[2]), header[3]
    if not 0 < width * height <= min(max_pixels, MOST_PIXELS):
        return None
    parts, kind = [], b""
    for begin, end in chunks(data):
        kind = data[begin + 4 : begin + 8]
        if zlib.crc32(data[begin + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            return None
        if kind == b"IDAT":
            parts.append(data[begin + 8 : end - 4])
        elif begin != len(SIGNATURE):  # not the header, which comes first
            break
    if kind != b"IEND":
        return None
    try:
        return Image.frombytes(_MODES[colour], (width, height), b"".join(parts), "zip", _MODES[colour])
    except Exception:  # the decoder raises many types on bad bytes
        return None
