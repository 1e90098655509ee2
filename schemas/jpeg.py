"""Decodes JPEGs and refuses those with missing or damaged pixel data.

Pillow hides libjpeg's warnings, and libjpeg invents pixels for missing data. simplejpeg decodes with the same library,
to the same pixels, and reports the first warning as an error. A JPEG has no checksum: damage that leaves valid codes
cannot be found.
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
# By mode: Pillow's raw mode, simplejpeg's colour space, bytes per pixel. Pillow stores RGB pixels in four bytes.
_FORMATS = {"L": ("L", "GRAY", 1), "RGB": ("RGBX", "RGBX", 4), "CMYK": ("CMYK", "CMYK", 4)}
# Pillow decodes JPEGs with these warnings: faults of the header or the ICC profile, chroma subsampling that TurboJPEG
# does not know, and up to 16 bytes before the end marker, which webcams write. A lost block leaves more bytes.
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
# libjpeg decodes the whole image once per scan, however few bytes a scan has. Encoders write about ten.
MOST_SCANS = 100


def decode_jpeg(header: ImageFile.ImageFile, data: bytes, min_size: tuple[int, int] | None = None) -> Image.Image:
    """Returns the pixels of a JPEG that Pillow opened as L, RGB or CMYK, without applying the EXIF orientation.

    With min_size (width, height), decodes at the smallest of 1/8, 2/8, ... of the size that is not below it.
    Raises UnreadableImageError if libjpeg runs out of data or finds an invalid code, if whole scans are missing, or if
    there are more than MOST_SCANS.
    """
    _check_scans(data)
    if not data.endswith(_END):
        data += _END  # a missing end marker is harmless; if pixel data is missing, libjpeg reports an early end
    mode, colours, channels = _FORMATS[header.mode]
    min_width, min_height = min_size or (0, 0)
    height, width = header.height, header.width
    if min_size:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data, min_height, min_width, strict=False)
    pixels = np.empty((height, width, channels), np.uint8)  # limits the memory, whatever size libjpeg reads
    filled = _fill(pixels, data, colours, min_height, min_width)
    if filled is None:
        filled = _fill(pixels, _without_warnings(data, mode), colours, min_height, min_width)
    if (filled is not None and filled.shape != pixels.shape) or _lacks_scans(data):
        raise UnreadableImageError("The image is cut short (scans or rows are missing).")
    if filled is None:
        return _decode_by_pillow(header, data, min_size)
    if mode == "CMYK":
        pixels = 255 - pixels  # as Pillow does: Adobe's programs write inverted CMYK
    return Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)


def _fill(pixels: Pixels, data: bytes, colours: str, min_height: int, min_width: int) -> Pixels | None:
    """Returns the decoded pixels, or None after a harmless warning of libjpeg. Raises UnreadableImageError."""
    try:
        filled: Pixels = simplejpeg.decode_jpeg(
            data, colours, min_height=min_height, min_width=min_width, buffer=pixels
        )
    except ValueError as error:
        _raise_if_damage(error)
        return None
    return filled


def _without_warnings(data: bytes, mode: str) -> bytes:
    """Returns the JPEG with a repaired header: simplejpeg stops at the first warning, which may hide real damage."""
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


def _decode_by_pillow(header: ImageFile.ImageFile, data: bytes, min_size: tuple[int, int] | None) -> Image.Image:
    """Decodes with Pillow.

    The end marker of a JPEG that is not progressive is removed, because Pillow then notices missing rows.
    """
    segments = list(_segments(data))
    if not any(marker in _PROGRESSIVE for marker, _, _ in segments):
        header = Image.open(io.BytesIO(data[: data.index(_END, segments[-1][2])]), formats=["JPEG"])
    if min_size:
        header.draft(header.mode, min_size)
    header.load()
    return header


def check_jpeg(data: bytes, max_pixels: int) -> None:
    """Raises UnreadableImageError as decode_jpeg, or for more than max_pixels. Decodes the JPEG at 1/8 of its size."""
    _check_scans(data)
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


def _check_scans(data: bytes) -> None:
    start = b"\xff%c" % _START_OF_SCAN  # these bytes also occur in metadata, and after the image
    if (
        data.count(start) > MOST_SCANS
        and sum(marker == _START_OF_SCAN for marker, _, _ in _segments(data)) > MOST_SCANS
    ):
        raise UnreadableImageError(f"The image has more than the {MOST_SCANS} scans that are allowed; save it again.")


def _lacks_scans(data: bytes) -> bool:
    """Returns whether coefficients are missing, as in a progressive JPEG that was cut between two scans."""
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
