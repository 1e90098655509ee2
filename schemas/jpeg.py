"""Decodes JPEGs and refuses those with missing or damaged pixel data.

Pillow hides libjpeg's warnings, and libjpeg makes up the pixels that it has no data for. simplejpeg decodes with the
same library, to the same pixels, and reports the first warning as an error. A JPEG has no checksum: damage that leaves
valid codes cannot be found.
"""

import re
from collections.abc import Iterator

import numpy as np
import simplejpeg
from PIL import Image, ImageFile

from schemas.errors import UnreadableImageError

_END = b"\xff\xd9"
# Pillow keeps RGB in four bytes: RGBX is read without copying it.
_FORMATS = {"L": ("L", "GRAY", 1), "RGB": ("RGBX", "RGBX", 4), "CMYK": ("CMYK", "CMYK", 4)}
# Warnings about the header, ratios of chroma that TurboJPEG lacks, and the padding of a few bytes that webcams write
# before the end marker: Pillow decodes these. A lost block leaves more bytes than that.
_HARMLESS = re.compile(
    r"unknown JFIF revision|Unknown Adobe color transform|Could not determine subsampling"
    r"|extraneous bytes before marker 0x(c[0-2]|db|e.|fe)|\b([1-9]|1[0-6]) extraneous bytes before marker 0xd9"
)
_SEGMENT = re.compile(rb"\xff([^\x00\xff\xd0-\xd8])(..)", re.DOTALL)
_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_START_OF_SCAN = 0xDA
_ALL_COEFFICIENTS = (1 << 64) - 1


def decode_jpeg(header: ImageFile.ImageFile, data: bytes, smallest: tuple[int, int] | None = None) -> Image.Image:
    """Returns the pixels of a JPEG that Pillow opened as L, RGB, RGBX or CMYK, not turned upright.

    smallest (width, height) allows a reduced size: the smallest of 1/8, 2/8, ... that is not below it.
    Raises UnreadableImageError if libjpeg runs out of data, finds an invalid code, or if whole scans are missing.
    """
    if not data.endswith(_END):
        data += _END  # its absence is no damage; where data is missing, libjpeg finds the marker too early
    mode, colours, channels = _FORMATS[header.mode]
    min_width, min_height = smallest or (0, 0)
    height, width = header.height, header.width
    if smallest:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data, min_height, min_width, strict=False)
    pixels = np.empty((height, width, channels), np.uint8)  # limits the memory, whatever size libjpeg reads
    try:
        filled = simplejpeg.decode_jpeg(data, colours, min_height=min_height, min_width=min_width, buffer=pixels)
    except ValueError as error:
        _raise_if_damage(error)
        if smallest:
            header.draft(header.mode, smallest)
        header.load()
        return header
    if filled.shape != pixels.shape or _lacks_scans(data):
        raise UnreadableImageError("The image is cut short (scans or rows are missing).")
    if mode == "CMYK":
        pixels = 255 - pixels  # as Pillow does: Adobe's programs write it inverted
    return Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)


def check_jpeg(data: bytes, max_pixels: int) -> None:
    """Raises UnreadableImageError as decode_jpeg does, and for a larger size. Decodes at 1/8, which is faster."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if height * width > max_pixels:
            raise UnreadableImageError(f"The image is damaged (a part claims {width} x {height} pixels).")
        simplejpeg.decode_jpeg(data + _END, "GRAY", min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        _raise_if_damage(error)


def _raise_if_damage(error: ValueError) -> None:
    if not _HARMLESS.search(str(error)):
        raise UnreadableImageError(f"The image is damaged or cut short ({error}).") from error


def _lacks_scans(data: bytes) -> bool:
    """Whether the scans leave out coefficients of a component, as in a progressive JPEG cut between two scans."""
    found: dict[int, int] = {}
    complete = True  # each scan holds all coefficients of its components
    for marker, content in _segments(data):
        if marker in _START_OF_FRAME:
            found = dict.fromkeys(content[6::3], 0)
            complete = marker not in _PROGRESSIVE
        elif marker == _START_OF_SCAN:
            components = content[1 : 1 + 2 * content[0] : 2]
            first, last, precision = content[-3:]
            if complete and len(components) == len(found):
                return False  # the usual case: a single scan
            if complete or precision & 15 == 0:
                for component in components:
                    found[component] |= _ALL_COEFFICIENTS if complete else (2 << last) - (1 << first)
    return any(coefficients != _ALL_COEFFICIENTS for coefficients in found.values())


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the marker and the content of each segment of the first image."""
    position = 2
    while (match := _SEGMENT.search(data, position)) and (marker := match[1][0]) != _END[1]:
        length = int.from_bytes(match[2])
        yield marker, data[match.start(2) + 2 : match.start(2) + length]
        position = match.start(2) + length
