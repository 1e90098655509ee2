"""Refuses TIFFs that Pillow reads incorrectly: ambiguous values, missing data, damage that libtiff does not report."""

import zlib
from collections.abc import Iterator

from PIL import TiffImagePlugin as Tiff

from schemas.errors import ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from schemas.jpeg import check_jpeg

_JPEG, _DEFLATE = 7, (8, 32946)
_JPEG_TABLES = 347
_REVERSED_BITS = 2
_STEP = 65_536  # compressed bytes to unpack at once, which limits the memory


def check_tiff(image: Tiff.TiffImageFile, data: bytes, max_pixels: int) -> None:
    """Checks a TIFF before its pixels are loaded.

    Raises ImageTooLargeError for tiles above max_pixels, UnsupportedImageError for an ambiguous kind of grey, and
    UnreadableImageError if data is missing or damaged.
    """
    tags = image.tag_v2
    if int(tags.get(Tiff.TILEWIDTH, 0)) * int(tags.get(Tiff.TILELENGTH, 0)) > max_pixels:
        raise ImageTooLargeError(f"The image has tiles above the limit of {max_pixels:,} pixels.")
    black_is_zero = tags.get(Tiff.PHOTOMETRIC_INTERPRETATION) == 1
    sixteen_bits = tags.get(Tiff.BITSPERSAMPLE) == (16,)
    if image.mode.startswith("I;16") and not (black_is_zero and sixteen_bits):
        # Pillow does not scale 12 bits to 16, and does not invert images whose white is 0.
        raise UnsupportedImageError(
            "A grey TIFF of more than 8 bits must have 16 bits and black as 0; save it as 8-bit grey."
        )
    planes = len(image.getbands()) if tags.get(Tiff.PLANAR_CONFIGURATION) == 2 else 1
    covered = sum(
        (right - left) * (lower - upper)
        for left, upper, right, lower in (tile.extents for tile in image.tile if tile.extents)
    )
    if not image.use_load_libtiff and covered < image.width * image.height * planes:
        raise UnreadableImageError("The image is damaged or cut short (part of it has no data).")
    _check_parts(image, data, max_pixels)


def _check_parts(image: Tiff.TiffImageFile, data: bytes, max_pixels: int) -> None:
    """Checks JPEG and deflate data: libtiff invents the pixels of a damaged part without an error."""
    compression = image.tag_v2.get(Tiff.COMPRESSION)
    if compression == _JPEG:
        tables = image.tag_v2.get(_JPEG_TABLES, b"\xff\xd8\xff\xd9")
        for part in _parts(image, data):
            check_jpeg(tables[:-2] + part[2:], max_pixels)
    elif compression in _DEFLATE and image.tag_v2.get(Tiff.FILLORDER) != _REVERSED_BITS:
        size = _part_size(image)
        for part in _parts(image, data):
            _check_deflate(part, size)


def _parts(image: Tiff.TiffImageFile, data: bytes) -> Iterator[bytes]:
    """Returns the bytes of each strip or tile.

    Raises UnreadableImageError if they overlap, because decoding them could take hours.
    """
    tags = image.tag_v2
    tiled = Tiff.TILEOFFSETS in tags
    offsets = tags.get(Tiff.TILEOFFSETS if tiled else Tiff.STRIPOFFSETS, ())
    sizes = tags.get(Tiff.TILEBYTECOUNTS if tiled else Tiff.STRIPBYTECOUNTS, ())
    if sum(sizes) > len(data):
        raise UnreadableImageError("The image is damaged (its parts are larger than the file).")
    return (data[offset : offset + size] for offset, size in zip(offsets, sizes, strict=False))


def _part_size(image: Tiff.TiffImageFile) -> int:
    """Returns the size in bytes of an unpacked strip or tile."""
    tags = image.tag_v2
    width, rows = image.width, min(image.height, int(tags.get(Tiff.ROWSPERSTRIP, image.height)))
    if Tiff.TILEOFFSETS in tags:
        width, rows = int(tags[Tiff.TILEWIDTH]), int(tags[Tiff.TILELENGTH])
    bits = tags.get(Tiff.BITSPERSAMPLE, (1,))
    return rows * -(-width * (bits[0] if tags.get(Tiff.PLANAR_CONFIGURATION) == 2 else sum(bits)) // 8)


def _check_deflate(part: bytes, size: int) -> None:
    inflater, inflated, most = zlib.decompressobj(), 0, 2 * size + _STEP
    try:
        for start in range(0, len(part), _STEP):
            inflated += len(inflater.decompress(part[start : start + _STEP], most + 1 - inflated))
            if inflater.eof:  # and the checksum is right
                return
            if inflated > most:
                break
    except zlib.error as error:
        raise UnreadableImageError(f"The image is damaged ({error}).") from error
    raise UnreadableImageError("The image is damaged or cut short (its compressed data has no end).")
