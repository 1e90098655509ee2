"""A JPEG is decoded if all its pixels are present, and refused if libjpeg would have to invent some."""

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from schemas.errors import UnreadableImageError
from schemas.image import decode_image, fit_pixels
from schemas.jpeg import check_jpeg
from schemas.manifest import Resize
from tests.support.encoded_images import encode, noise, spec, spec_of

PIXELS = np.asarray(Image.fromarray(noise(20, 24)).resize((200, 168), Image.Resampling.BICUBIC))
END = b"\xff\xd9"
KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 4},
    "optimised": {"optimize": True},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "RGB": {"keep_rgb": True},
}
JPEGS = {kind: encode(PIXELS, "JPEG", quality=90, **options) for kind, options in KINDS.items()} | {
    "grey": encode(PIXELS[:, :, 0], "JPEG"),
    "CMYK": encode(Image.fromarray(PIXELS).convert("CMYK"), "JPEG"),
    "MPO": encode(PIXELS, "MPO", save_all=True, append_images=[Image.fromarray(PIXELS[::-1])]),
}
FORMS = sorted(JPEGS)


def first_scan(data: bytes | bytearray) -> int:
    return data.index(b"\xff\xda") + 14


def decoded(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return decode_image(data, spec_of(PIXELS))


def first_image(data: bytes) -> bytes:
    """Returns an MPO without the images that follow the main one."""
    return data[: data.index(END, first_scan(data)) + 2]


@pytest.mark.parametrize("form", FORMS)
def test_decodes_to_the_pixels_that_pillow_decodes(form: str) -> None:
    with Image.open(io.BytesIO(JPEGS[form])) as image:
        rgb = image.convert("RGB")
        np.testing.assert_array_equal(decoded(JPEGS[form]), np.asarray(rgb))
        for resize in Resize:
            small = spec(100, 80, resize=resize)
            np.testing.assert_array_equal(decode_image(JPEGS[form], small), fit_pixels(np.asarray(rgb), small))
            grey = spec(100, 80, 1, resize=resize)
            np.testing.assert_array_equal(decode_image(JPEGS[form], grey), fit_pixels(np.asarray(rgb), grey))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98])
@pytest.mark.parametrize("end", [b"", END], ids=["no end marker", "end marker"])
@pytest.mark.parametrize("form", FORMS)
def test_refuses_a_jpeg_with_a_part_of_its_data(form: str, end: bytes, share: float) -> None:
    data = first_image(JPEGS[form])
    start = first_scan(data)
    with pytest.raises(UnreadableImageError, match="damaged or cut short"):
        decoded(data[: start + int((len(data) - start) * share)] + end)


@pytest.mark.parametrize("form", FORMS)
def test_answers_a_jpeg_that_lacks_only_its_end_marker(form: str) -> None:
    data = first_image(JPEGS[form])
    for lacking in (1, 2):
        np.testing.assert_array_equal(decoded(data[:-lacking]), decoded(data))


@pytest.mark.parametrize("form", FORMS)
def test_ignores_what_follows_the_end_marker(form: str) -> None:
    for trailing in (bytes(4096), b"\xff" * 9, b"garbage", JPEGS["baseline"], END, b"\xff\xda" * 200):
        np.testing.assert_array_equal(decoded(JPEGS[form] + trailing), decoded(JPEGS[form]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("damage", ["zeros", "zeros and an end marker", "a lost block", "the next frame"])
def test_refuses_a_jpeg_whose_later_data_is_missing(form: str, damage: str) -> None:
    data = first_image(JPEGS[form])
    cut = first_scan(data) + (len(data) - first_scan(data)) * 2 // 5
    damaged = {
        "zeros": data[:cut] + bytes(len(data) - cut),
        "zeros and an end marker": data[:cut] + bytes(len(data) - cut - 2) + END,
        "a lost block": data[:cut] + data[cut + len(data) // 4 :],
        "the next frame": data[:cut] + data,
    }[damage]
    with pytest.raises(UnreadableImageError, match="damaged or cut short"):
        decoded(damaged)


@pytest.mark.parametrize("scans", range(1, 10))
def test_refuses_a_progressive_jpeg_cut_between_two_scans(scans: int) -> None:
    data = JPEGS["progressive"]
    starts = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    assert len(starts) == 10
    with pytest.raises(UnreadableImageError, match="scans or rows are missing"):
        decoded(data[: starts[scans]] + END)


@pytest.mark.parametrize("form", ["baseline", "progressive"])
def test_refuses_a_jpeg_with_so_many_scans_that_decoding_would_take_minutes(form: str) -> None:
    data = JPEGS[form]
    scan = data[data.rindex(b"\xff\xda") : -2]
    many = data[:-2] + scan * 100 + END
    for decode in (decoded, lambda jpeg: check_jpeg(jpeg, 10**6)):
        with pytest.raises(UnreadableImageError, match="more than the 100 scans that are allowed"):
            decode(many)


@pytest.mark.parametrize("padding", [b"\0", b"\0\0", bytes(10), bytes(16), b"\xff" * 30])
def test_answers_a_jpeg_with_a_little_padding_before_its_end_marker(padding: bytes) -> None:
    data = JPEGS["baseline"]
    np.testing.assert_array_equal(decoded(data[:-2] + padding + END), decoded(data))


def test_answers_a_jpeg_with_stray_bytes_between_the_segments_of_its_header() -> None:
    data = JPEGS["baseline"]
    tables = data.index(b"\xff\xdb")
    np.testing.assert_array_equal(decoded(data[:tables] + bytes(40) + data[tables:]), decoded(data))


def test_answers_a_jpeg_with_a_ratio_of_chroma_that_turbojpeg_lacks() -> None:
    """Pillow decodes it, unchecked: the second chroma component now claims twice the blocks that it has."""
    data = bytearray(JPEGS["baseline"])
    frame = data.index(b"\xff\xc0")
    assert data[frame + 11 : frame + 19 : 3] == bytes([0x22, 0x11, 0x11])
    data[frame + 17] = 0x21
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decoded(bytes(data)), np.asarray(image))


def test_answers_a_jpeg_of_an_unknown_jfif_version() -> None:
    data = JPEGS["baseline"].replace(b"JFIF\0\1", b"JFIF\0\2")
    assert data != JPEGS["baseline"]
    np.testing.assert_array_equal(decoded(data), decoded(JPEGS["baseline"]))


WARNINGS: dict[str, Callable[[bytes], bytes]] = {
    "unknown JFIF version": lambda data: data.replace(b"JFIF\0\1", b"JFIF\0\2"),
    "unknown Adobe transform": lambda data: data[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x07" + data[2:],
    "stray bytes": lambda data: data[:20] + bytes(40) + data[20:],
    "damaged ICC profile": lambda data: data[:20] + b"\xff\xe2\0\x12ICC_PROFILE\0\2\3zz" + data[20:],
}


@pytest.mark.parametrize("form", ["baseline", "progressive"])
@pytest.mark.parametrize("warning", WARNINGS)
def test_a_warning_about_the_header_does_not_hide_missing_data(warning: str, form: str) -> None:
    data = WARNINGS[warning](JPEGS[form])
    assert data != JPEGS[form]
    np.testing.assert_array_equal(decoded(data), decoded(JPEGS[form]))
    start = first_scan(data)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(UnreadableImageError):
            decoded(data[: start + int((len(data) - start) * share)] + END)


def test_refuses_a_part_of_a_jpeg_that_only_pillow_decodes() -> None:
    data = bytearray(JPEGS["baseline"])
    data[data.index(b"\xff\xc0") + 17] = 0x21  # a ratio of chroma that TurboJPEG lacks
    start = first_scan(data)
    with pytest.raises(UnreadableImageError):
        decoded(bytes(data[: start + (len(data) - start) // 3]) + END)


def test_a_large_jpeg_is_checked_at_its_reduced_size_too() -> None:
    large = encode(Image.new("L", (7200, 7200), 90), "JPEG")
    wanted = spec_of(noise(8, 8))
    assert np.abs(decode_image(large, wanted, 60_000_000).astype(int) - 90).max() <= 1
    with pytest.raises(UnreadableImageError):
        decode_image(large[: len(large) // 2] + END, wanted, 60_000_000)
