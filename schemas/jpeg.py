"""Decodes JPEGs and refuses those with missing or damaged pixel data.

Pillow hides libjpeg's warnings, and libjpeg makes up the pixels that it has no data for. simplejpeg decodes with the
same library, to the same pixels, and reports the first warning as an error. A JPEG has no checksum: damage that leaves
valid codes cannot be found.
"""

import io
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageFile

from schemas.errors import UnreadableImageError

Pixels = npt.NDArray[np.uint8]

_END = b"\xff\xd9"
# Pillow keeps RGB in four bytes: RGBX is read without copying it.
_FORMATS = {"L": ("L", "GRAY", 1), "RGB": ("RGBX", "RGBX", 4), "CMYK": ("CMYK", "CMYK", 4)}
# Warnings about the header and the ICC profile, ratios of chroma that TurboJPEG lacks, and the padding of a few bytes
# that webcams write before the end marker: Pillow decodes these. A lost block leaves more bytes than that.
_HARMLESS = re.compile(
    r"unknown JFIF revision|Unknown Adobe color transform|bad ICC marker|Could not determine subsampling"
    r"|extraneous bytes before marker 0x(c[0-2]|db|e.|fe)|\b([1-9]|1[0-6]) extraneous bytes before marker 0xd9"
)
_SEGMENT = re.compile(rb"\xff([^\x00\xff\xd0-\xd8])(..)", re.DOTALL)
_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_START_OF_SCAN = 0xDA
_COMMENT = 0xFE
_APP0, _APP14, _APP15 = 0xE0, 0xEE, 0xEF
_ALL_COEFFICIENTS = (1 << 64) - 1


def decode_jpeg(header: ImageFile.ImageFile, data: bytes, smallest: tuple[int, int] | None = None) -> Image.Image:
    """Returns the pixels of a JPEG that Pillow opened as L, RGB, RGBX or CMYK, not turned upright.

    smallest (width, height) allows a reduced size: the smallest of 1/8, 2/8, ... that is not below it.
    Raises UnreadableImageError if libjpeg runs out of data, finds an invalid code, or if whole scans are missing.
    """
    if not data.endswith(_END):
        data += _END  # a missing end marker is harmless; if image data is missing, libjpeg meets this marker too early
    mode, colours, channels = _FORMATS[header.mode]
    min_width, min_height = smallest or (0, 0)
    height, width = header.height, header.width
    if smallest:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data, min_height, min_width, strict=False)
    pixels = np.empty((height, width, channels), np.uint8)  # limits the memory, whatever size libjpeg reads
    filled = _fill(pixels, data, colours, min_height, min_width)
    if filled is None:
        filled = _fill(pixels, _without_warnings(data, mode), colours, min_height, min_width)
    if (filled is not None and filled.shape != pixels.shape) or _lacks_scans(data):
        raise UnreadableImageError("The image is cut short (scans or rows are missing).")
    if filled is None:
        return _decode_by_pillow(header, data, smallest)
    if mode == "CMYK":
        pixels = 255 - pixels  # as Pillow does: Adobe's programs write it inverted
    return Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)


def _fill(pixels: Pixels, data: bytes, colours: str, min_height: int, min_width: int) -> Pixels | None:
    """Returns the decoded pixels; None if libjpeg warns of something harmless. Raises UnreadableImageError."""
    try:
        filled: Pixels = simplejpeg.decode_jpeg(
            data, colours, min_height=min_height, min_width=min_width, buffer=pixels
        )
    except ValueError as error:
        _raise_if_damage(error)
        return None
    return filled


def _without_warnings(data: bytes, mode: str) -> bytes:
    """Returns the JPEG with a header without faults: simplejpeg stops at the first warning, which hides the others."""
    header = [data[:2]]
    for marker, content, end in _segments(data):
        kept = content
        if marker == _APP0 and content.startswith(b"JFIF\0"):
            kept = content[:5] + b"\1\1" + content[7:]
        elif marker == _APP14 and content.startswith(b"Adobe") and len(content) >= 12:
            if content[11]:  # libjpeg reads every other transform as this one
                kept = content[:11] + (b"\2" if mode == "CMYK" else b"\1")
        elif _APP0 <= marker <= _APP15 or marker == _COMMENT:
            continue
        header.append(b"\xff%c%b%b" % (marker, (len(kept) + 2).to_bytes(2), kept))
        if marker == _START_OF_SCAN:
            return b"".join(header) + data[end:]
    return data


def _decode_by_pillow(header: ImageFile.ImageFile, data: bytes, smallest: tuple[int, int] | None) -> Image.Image:
    """Decodes without its end marker a JPEG that is not progressive: Pillow then notices if rows are missing."""
    segments = list(_segments(data))
    if not any(marker in _PROGRESSIVE for marker, _, _ in segments):
        header = Image.open(io.BytesIO(data[: data.index(_END, segments[-1][2])]), formats=["JPEG"])
    if smallest:
        header.draft(header.mode, smallest)
    header.load()
    return header


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
    for marker, content, _ in _segments(data):
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


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yields the marker, the content and the end of each segment of the first image."""
    position = 2
    while (match := _SEGMENT.search(data, position)) and (marker := match[1][0]) != _END[1]:
        length = int.from_bytes(match[2])
        position = match.start(2) + length
        yield marker, data[match.start(2) + 2 : position], position
