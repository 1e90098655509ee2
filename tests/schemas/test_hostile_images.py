"""Malicious and damaged images raise an ImageError and nothing else."""

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ImageError, ImageTooLargeError, UnreadableImageError
from schemas.image import MAX_SIDE, decode_image
from tests.support.encoded_images import (
    BOUNDED,
    chunk,
    encode,
    gif_claiming,
    grey_tiff,
    noise,
    png,
    png_of,
    spec,
    spec_of,
    webp_claiming,
)

PIXELS = noise(12, 10)
VALID = {
    "PNG": encode(PIXELS, "PNG"),
    "JPEG": encode(PIXELS, "JPEG"),
    "progressive JPEG": encode(PIXELS, "JPEG", progressive=True),
    "WebP": encode(PIXELS, "WEBP"),
    "lossless WebP": encode(PIXELS, "WEBP", lossless=True),
    "GIF": encode(PIXELS, "GIF"),
    "BMP": encode(PIXELS, "BMP"),
    "TIFF": encode(PIXELS, "TIFF"),
    "deflate TIFF": encode(PIXELS, "TIFF", compression="tiff_adobe_deflate"),
    "LZW TIFF": encode(PIXELS, "TIFF", compression="tiff_lzw"),
    "PNM": encode(PIXELS, "PPM"),
    "AVIF": encode(PIXELS, "AVIF"),
    "HEIC": encode(PIXELS, "HEIF"),
}


@pytest.mark.parametrize("kind", VALID)
def test_refuses_a_truncated_image_unless_all_pixels_are_present(kind: str) -> None:
    data = VALID[kind]
    whole = decode_image(data, spec_of(PIXELS))
    refused = 0
    for length in range(len(data)):
        try:
            decoded = decode_image(data[:length], spec_of(PIXELS))
        except UnreadableImageError:
            refused += 1
        else:
            np.testing.assert_array_equal(decoded, whole)
    assert refused >= len(data) - 20  # a PNG's last checksum and IEND, 16 bytes; a GIF's last 2


def test_a_png_with_a_flipped_bit_in_its_pixel_data_is_refused_or_decoded_correctly() -> None:
    data = VALID["PNG"]
    start = data.index(b"IDAT") + 4
    for position in range(start, len(data) - 16):
        damaged = bytearray(data)
        damaged[position] ^= 1
        try:
            decoded = decode_image(bytes(damaged), spec_of(PIXELS))
        except UnreadableImageError:
            continue
        np.testing.assert_array_equal(decoded, PIXELS)


def with_bad_header_crc() -> bytes:
    data = bytearray(VALID["PNG"])
    data[29] ^= 1
    return bytes(data)


UNREADABLE = {
    "nothing": b"",
    "one byte": b"\x89",
    "text": b"hello, here is my picture",
    "HTML": b"<!doctype html><html><body>404</body></html>",
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
    "zip": b"PK\x03\x04" + bytes(60),
    "JPEG 2000, an unsupported format": encode(PIXELS, "JPEG2000"),
    "ICO, an unsupported format": encode(noise(16, 16), "ICO"),
    "PNG of no width": png(0, 1, 8, 2, [b""]),
    "PNG of no height": png(1, 0, 8, 2, []),
    "PNG without pixel data": png_of(4, 4, 8, 2, b""),
    "PNG with a wrong checksum": with_bad_header_crc(),
    "GIF of no size": gif_claiming(0, 0),
    "PNM of no size": b"P6 0 0 255\n",
    "PNM of negative size": b"P6 -4 4 255\n" + bytes(48),
    "BMP of no size": b"BM"
    + struct.pack("<IHHI", 54, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, 0, 0, 1, 24, *[0] * 6),
    "TIFF of no size": grey_tiff(0, 0, 8, b""),
    "TIFF without data for its lower half": grey_tiff(4, 4, 8, bytes(16), rows=2),
    "TIFF that points to itself": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_refuses_data_that_is_not_a_complete_image(kind: str) -> None:
    with pytest.raises(UnreadableImageError):
        decode_image(UNREADABLE[kind], spec(4, 4))


# Each header is followed by garbage: decoding it would raise UnreadableImageError instead of ImageTooLargeError.
TOO_LARGE = {
    "PNG of 50,000 x 50,000": png_of(50_000, 50_000, 8, 2, chunk(b"IDAT", bytes(20_000))),
    "PNG just above the limit": png_of(7072, 7072, 8, 2, chunk(b"IDAT", bytes(9))),
    "PNG with an endless side": png_of(1, MAX_SIDE + 1, 8, 2, chunk(b"IDAT", bytes(9))),
    "BMP of 50,000 x 50,000": VALID["BMP"][:18] + struct.pack("<ii", 50_000, 50_000) + VALID["BMP"][26:60],
    "PNM of 50,000 x 50,000": b"P6 50000 50000 255\n",
    "TIFF of 50,000 x 50,000": grey_tiff(50_000, 50_000, 8, b""),
    "TIFF with tiles of 50,000 x 50,000": grey_tiff(4, 4, 8, b"", tile=50_000, compression=8),
    "GIF of 65,535 x 65,535": gif_claiming(65_535, 65_535),
    "WebP of 16,383 x 16,383": webp_claiming(16_383, 16_383, lossless=False),
    "lossless WebP of 16,383 x 16,383": webp_claiming(16_383, 16_383, lossless=True),
}


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_refuses_a_header_above_the_pixel_limit_without_decoding(kind: str) -> None:
    with pytest.raises(ImageTooLargeError):
        decode_image(TOO_LARGE[kind], spec(4, 4))


def test_max_pixels_is_inclusive() -> None:
    assert decode_image(VALID["PNG"], spec(4, 4), max_pixels=120).shape == (4, 4, 3)
    with pytest.raises(ImageTooLargeError, match="10 x 12 pixels; the limit is 119"):
        decode_image(VALID["PNG"], spec(4, 4), max_pixels=119)


def test_max_pixels_can_exceed_the_default() -> None:
    data = png_of(16_000, 16_000, 8, 2, chunk(b"IDAT", bytes(9)))
    with pytest.raises(UnreadableImageError):  # the header passes, the garbage does not
        decode_image(data, spec(4, 4), max_pixels=256_000_000)


MEMORY_PROOF = """
import resource, sys
from PIL import Image
from schemas.errors import ImageTooLargeError
from schemas.image import decode_image
from schemas.manifest import InputSpec
Image.init()
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + 400_000_000,) * 2)
try:
    decode_image(sys.stdin.buffer.read(), InputSpec(height=64, width=64, channels=3))
except ImageTooLargeError:
    print("too large")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to limit the memory of a process")
@pytest.mark.parametrize("kind", ["GIF of 65,535 x 65,535", "WebP of 16,383 x 16,383", "a pixel by 40 million"])
def test_refusing_a_large_header_allocates_no_memory(kind: str) -> None:
    """Opening a GIF allocates its frame, and resizing a line of n pixels needs 64 * n bytes: both gigabytes."""
    line = grey_tiff(1, 40_000_000, 8, zlib.compress(bytes(40_000_000)), compression=8)
    data = TOO_LARGE.get(kind, line)
    done = subprocess.run([sys.executable, "-c", MEMORY_PROOF], input=data, capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (b"too large\n", b"")


MUTATIONS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6)


@given(st.sampled_from(sorted(VALID)), MUTATIONS)
@settings(BOUNDED, max_examples=1500)
def test_a_mutated_image_is_decoded_to_the_right_shape_or_raises_an_image_error(
    kind: str, mutations: list[tuple[float, int]]
) -> None:
    data = bytearray(VALID[kind])
    for place, value in mutations:
        data[int(place * len(data))] = value
    try:
        decoded = decode_image(bytes(data), spec(4, 5), max_pixels=1_000_000)
    except ImageError:
        return
    assert decoded.shape == (4, 5, 3)
    assert decoded.dtype == np.uint8


@given(
    st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x40\0\0\0WEBPVP8 ", b"GIF89a", b"BM", b"II*\0", b"P6 "]
    ),
    st.binary(max_size=200),
)
@BOUNDED
def test_random_bytes_raise_an_image_error(start: bytes, rest: bytes) -> None:
    try:
        decoded = decode_image(start + rest, spec(4, 5), max_pixels=1_000_000)
    except ImageError:
        return
    assert decoded.shape == (4, 5, 3)
