"""The short way to decode a PNG gives Pillow's pixels, or none at all."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from schemas.errors import ImageError
from schemas.image import decode_image
from schemas.png import MOST_PIXELS, decode_plain_png
from tests.support.encoded_images import BOUNDED, chunk, encode, noise, png_of, spec_of

PIXELS = noise(12, 10)
IMAGE = Image.fromarray(PIXELS)
PLAIN = encode(IMAGE, "PNG")
STORED = encode(IMAGE, "PNG", compress_level=0)
HEADER = 33  # bytes of the signature and IHDR
PACKED = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PIXELS))
END = chunk(b"IEND", b"")
ANY_SIZE = 2**31


@BOUNDED
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    mode=st.sampled_from(["L", "RGB"]),
    level=st.integers(0, 9),
    smooth=st.booleans(),
)
def test_gives_the_pixels_that_were_encoded(width: int, height: int, mode: str, level: int, smooth: bool) -> None:
    values = noise(height, width)
    image = Image.fromarray(np.sort(values, axis=1) if smooth else values).convert(mode)
    found = decode_plain_png(encode(image, "PNG", compress_level=level), ANY_SIZE)
    assert found is not None
    assert found.mode == mode
    np.testing.assert_array_equal(np.asarray(found), np.asarray(image))


def is_pillows_or_nothing(data: bytes) -> bool:
    found = decode_plain_png(data, ANY_SIZE)
    try:
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(image)
    except Exception:
        return found is None
    return found is None or np.array_equal(np.asarray(found), expected)


@BOUNDED
@given(st.integers(0, len(PLAIN) - 1), st.binary(max_size=4), st.integers(0, 4))
def test_gives_nothing_for_a_damaged_file_that_pillow_refuses(position: int, inserted: bytes, removed: int) -> None:
    assert is_pillows_or_nothing(PLAIN[:position] + inserted + PLAIN[position + removed :])


@BOUNDED
@given(st.integers(0, len(PACKED) - 1), st.binary(max_size=4), st.integers(0, 4), st.integers(1, len(PACKED)))
def test_gives_nothing_for_damaged_pixels_that_pillow_refuses(
    position: int, inserted: bytes, removed: int, part: int
) -> None:
    packed = PACKED[:position] + inserted + PACKED[position + removed :]
    parts = chunk(b"IDAT", packed[:part]) + chunk(b"IDAT", packed[part:])  # with correct checksums
    assert is_pillows_or_nothing(png_of(PIXELS.shape[1], PIXELS.shape[0], 8, 2, parts))


@pytest.mark.parametrize(
    "data",
    [
        encode(IMAGE.convert("P"), "PNG"),
        encode(IMAGE.convert("RGBA"), "PNG"),
        encode(IMAGE.convert("1"), "PNG"),
        PLAIN.replace(END, chunk(b"tRNS", bytes(6)) + END),
        PLAIN[:HEADER] + PLAIN[8:HEADER] + PLAIN[HEADER:],
        PLAIN.replace(END, b""),
        PLAIN.replace(END, END[:-1] + b"!"),
        encode(PIXELS, "JPEG"),
        b"",
    ],
    ids=["palette", "alpha", "1 bit", "transparent colour", "two headers", "no end", "damaged end", "JPEG", "nothing"],
)
def test_leaves_any_other_file_to_pillow(data: bytes) -> None:
    assert decode_plain_png(data, ANY_SIZE) is None


def test_leaves_an_image_above_the_limit_to_pillow() -> None:
    side = int(MOST_PIXELS**0.5)
    assert decode_plain_png(encode(np.zeros((side, side), np.uint8), "PNG"), ANY_SIZE) is not None
    assert decode_plain_png(encode(np.zeros((side, side + 1), np.uint8), "PNG"), ANY_SIZE) is None
    assert decode_plain_png(PLAIN, PIXELS.shape[0] * PIXELS.shape[1] - 1) is None


@BOUNDED
@given(st.integers(HEADER, len(STORED) - 1), st.integers(1, 255))
def test_a_changed_byte_never_changes_the_pixels(position: int, change: int) -> None:
    data = STORED[:position] + bytes([STORED[position] ^ change]) + STORED[position + 1 :]
    try:
        pixels = decode_image(data, spec_of(PIXELS))
    except ImageError:
        return
    np.testing.assert_array_equal(pixels, PIXELS)
