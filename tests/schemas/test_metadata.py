"""Damaged metadata does not make an image invalid; damaged pixels and critical chunks do."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from schemas.errors import UnreadableImageError, UnsupportedImageError
from schemas.image import decode_image
from schemas.metadata import without_metadata
from tests.support.encoded_images import chunk, encode, exif_cut_short, noise, png, spec_of

PIXELS = noise(12, 10)
PNG = encode(PIXELS, "PNG")
HEADER = 33  # bytes of the signature and IHDR
LONG = zlib.compress(b"workflow node " * 90_000)  # 1.2 MB


def damaged(kind: bytes, content: bytes) -> bytes:
    whole = chunk(kind, content)
    return whole[:-1] + bytes([whole[-1] ^ 1])


def raw_profile(orientation: int) -> bytes:
    exif = exif_cut_short(orientation) + bytes(16)
    return b"Raw profile type exif\0\nexif\n%8d\n%s\n" % (len(exif), exif.hex().encode())


def xmp(orientation: int) -> bytes:
    return b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x tiff:Orientation="%d"/>' % orientation


METADATA = {
    "a long tEXt": chunk(b"tEXt", b"prompt\0" + zlib.decompress(LONG)),
    "a zTXt that unpacks to 1.2 MB": chunk(b"zTXt", b"prompt\0\0" + LONG),
    "a zTXt that unpacks to 20 MB": chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(20_000_000))),
    "many zTXt of 1 MB": chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(1_000_000))) * 80,
    "many raw profiles of 1 MB": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(1_000_000))) * 80,
    "an iTXt that unpacks to 1.2 MB": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG),
    "a raw profile that unpacks to 1.2 MB": chunk(b"zTXt", b"Raw profile type exif\0\0" + LONG),
    "an iCCP that unpacks to 1.2 MB": chunk(b"iCCP", b"icc\0\0" + LONG),
    "an unknown way of packing": chunk(b"zTXt", b"prompt\0\x07abc") + chunk(b"iCCP", b"icc\0\x07abc"),
    "eXIf without TIFF header": chunk(b"eXIf", b"\0\x08\0\2\1\x12\0\3\0\0\0\1\0\1\0\0"),
    "eXIf of zeros": chunk(b"eXIf", bytes(40)),
    "an empty eXIf": chunk(b"eXIf", b""),
    "a raw profile that is not hexadecimal": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  20\nzz11"),
    "chunks that are too short": b"".join(chunk(kind, b"") for kind in (b"gAMA", b"pHYs", b"cHRM", b"tIME", b"sRGB")),
    "an acTL that is too short": chunk(b"acTL", bytes(2)),
    "a tRNS that is too short": chunk(b"tRNS", b"\0"),
    **{
        f"a {kind.decode()} with a wrong checksum": damaged(kind, content)
        for kind, content in {
            b"tEXt": b"a\0b",
            b"tIME": b"\x07\xea\1\1\1\1\1",
            b"pHYs": struct.pack(">IIB", 2835, 2835, 1),
            b"eXIf": exif_cut_short(6)[6:],
            b"tRNS": bytes(6),
            b"acTL": struct.pack(">II", 2, 0),
            b"prVt": b"private",
        }.items()
    },
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", METADATA)
def test_answers_a_png_whatever_its_metadata(kind: str, place: str) -> None:
    at = HEADER if place == "before" else len(PNG) - 12
    np.testing.assert_array_equal(decode_image(PNG[:at] + METADATA[kind] + PNG[at:], spec_of(PIXELS)), PIXELS)


@pytest.mark.parametrize("other", ["an iCCP that unpacks to 1.2 MB", "a tIME with a wrong checksum"])
@pytest.mark.parametrize(
    "orientation",
    [
        chunk(b"eXIf", (exif_cut_short(3) + bytes(16))[6:]),
        chunk(b"tEXt", raw_profile(3)),
        chunk(b"zTXt", raw_profile(3).replace(b"exif\0", b"exif\0\0", 1)[:23] + zlib.compress(raw_profile(3)[22:])),
        chunk(b"iTXt", xmp(3)),
    ],
    ids=["eXIf", "tEXt", "zTXt", "XMP"],
)
def test_keeps_the_orientation_beside_damaged_metadata(orientation: bytes, other: str) -> None:
    data = PNG[:HEADER] + METADATA[other] + orientation + PNG[HEADER:]
    np.testing.assert_array_equal(decode_image(data, spec_of(PIXELS)), PIXELS[::-1, ::-1])


def test_keeps_the_transparency() -> None:
    data = png(2, 1, 8, 2, [bytes([255, 0, 0, 0, 255, 0])], chunk(b"tRNS", struct.pack(">3H", 255, 0, 0)))
    np.testing.assert_array_equal(decode_image(data, spec_of(noise(1, 2))), [[[255, 255, 255], [0, 255, 0]]])


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE"])
def test_refuses_a_critical_chunk_with_a_wrong_checksum(kind: bytes) -> None:
    data = encode(Image.fromarray(PIXELS).quantize(16), "PNG")
    at = data.index(kind) - 4
    end = at + 12 + int.from_bytes(data[at : at + 4])
    with pytest.raises(UnreadableImageError):
        decode_image(data[: end - 1] + bytes([data[end - 1] ^ 1]) + data[end:], spec_of(PIXELS))


def test_data_without_metadata_is_returned_as_it_is() -> None:
    for data in (
        PNG,
        PNG[:50],
        encode(PIXELS, "JPEG"),
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n\xff\xff\xff\xff",
    ):
        assert without_metadata(data) is data


def frame(number: int, width: int = 10, height: int = 12, left: int = 0) -> bytes:
    return chunk(b"fcTL", struct.pack(">5I2H2B", number, width, height, left, 0, 1, 10, 0, 0))


def frame_data(number: int) -> bytes:
    return chunk(b"fdAT", struct.pack(">I", number) + zlib.compress(bytes(12 * (1 + 3 * 10))))


ANIMATION = chunk(b"acTL", struct.pack(">II", 2, 0))
LAST = frame(1) + frame_data(2)
# The chunks before the pixels, and those after them.
DAMAGED_ANIMATIONS = {
    "a checksum of the first header": (ANIMATION + damaged(b"fcTL", bytes(26)), LAST),
    "a first header cut short": (ANIMATION + chunk(b"fcTL", bytes(4)), LAST),
    "a first frame smaller than the image": (ANIMATION + frame(0, width=6), LAST),
    "a first frame outside the image": (ANIMATION + frame(0, left=9), LAST),
    "frame numbers with gaps": (ANIMATION + frame(5), frame(7) + frame_data(9)),
    "a checksum of the second header": (ANIMATION + frame(0), damaged(b"fcTL", bytes(26)) + frame_data(2)),
    "a second frame of nothing": (ANIMATION + frame(0), frame(1) + chunk(b"fdAT", b"\0")),
    "a second frame before the pixels": (ANIMATION + frame(0) + frame_data(1), b""),
    "frames without their number": (frame(0, width=6), LAST),
}


@pytest.mark.parametrize("damage", DAMAGED_ANIMATIONS)
def test_the_first_frame_of_a_png_is_read_whatever_the_others_are(damage: str) -> None:
    before, after = DAMAGED_ANIMATIONS[damage]
    data = PNG[:HEADER] + before + PNG[HEADER:-12] + after + PNG[-12:]
    np.testing.assert_array_equal(decode_image(data, spec_of(PIXELS), first_frame=True), PIXELS)
    if ANIMATION in before:
        with pytest.raises(UnsupportedImageError, match="several frames"):
            decode_image(data, spec_of(PIXELS))


@pytest.mark.parametrize("before", [ANIMATION, ANIMATION + frame(0), frame(0, width=6)])
def test_a_png_without_a_second_frame_is_a_still_image(before: bytes) -> None:
    data = PNG[:HEADER] + before + PNG[HEADER:]
    np.testing.assert_array_equal(decode_image(data, spec_of(PIXELS)), PIXELS)


def test_a_default_image_outside_the_animation_is_not_its_first_frame() -> None:
    frames = frame(0) + frame_data(1) + frame(2) + frame_data(3)
    data = PNG[:HEADER] + ANIMATION + PNG[HEADER:-12] + frames + PNG[-12:]
    assert not decode_image(data, spec_of(PIXELS), first_frame=True).any()
    with pytest.raises(UnsupportedImageError, match="several frames"):
        decode_image(data, spec_of(PIXELS))


@pytest.mark.parametrize("exif", [b"Exif\0\0no TIFF head here", b"Exif\0\0", b"\0", bytes(300)])
@pytest.mark.parametrize("image_format", ["WEBP", "JPEG", "PNG"])
def test_ignores_exif_that_cannot_be_read(image_format: str, exif: bytes) -> None:
    lossless = {"lossless": True} if image_format == "WEBP" else {}
    data = encode(PIXELS, image_format, exif=exif, **lossless)
    plain = encode(PIXELS, image_format, **lossless)
    np.testing.assert_array_equal(decode_image(data, spec_of(PIXELS)), decode_image(plain, spec_of(PIXELS)))


def webp(*, lossless: bool) -> bytes:
    exif = exif_cut_short(3) + bytes(16)
    return encode(PIXELS, "WEBP", lossless=lossless, exif=exif, icc_profile=bytes(401), xmp=b"<x/>" * 50)


@pytest.mark.parametrize("lossless", [True, False])
def test_answers_a_webp_that_is_cut_short_behind_its_pixels(lossless: bool) -> None:
    whole = webp(lossless=lossless)
    plain = decode_image(encode(PIXELS, "WEBP", lossless=lossless), spec_of(PIXELS))
    exif, xmp = whole.index(b"EXIF"), whole.index(b"XMP ")
    for length in range(exif, len(whole), 7):
        upright = plain[::-1, ::-1] if length >= xmp else plain  # without a whole EXIF, there is no orientation
        np.testing.assert_array_equal(decode_image(whole[:length], spec_of(PIXELS)), upright)


@pytest.mark.parametrize("lossless", [True, False])
def test_answers_a_webp_whose_metadata_claims_to_be_longer_than_the_file(lossless: bool) -> None:
    data = bytearray(webp(lossless=lossless))
    xmp = data.index(b"XMP ")
    data[xmp + 4 : xmp + 8] = struct.pack("<I", 99_999)
    plain = decode_image(encode(PIXELS, "WEBP", lossless=lossless), spec_of(PIXELS))
    np.testing.assert_array_equal(decode_image(bytes(data), spec_of(PIXELS)), plain[::-1, ::-1])


@pytest.mark.parametrize("lossless", [True, False])
def test_refuses_a_webp_that_is_cut_short_within_its_pixels(lossless: bool) -> None:
    data = webp(lossless=lossless)
    for length in range(12, data.index(b"EXIF") - 2, 7):
        with pytest.raises(UnreadableImageError):
            decode_image(data[:length], spec_of(PIXELS))


@pytest.mark.parametrize("kind", [b"tEXt", b"eXIf", b"prVt"])
def test_answers_a_png_whose_last_chunk_is_metadata_cut_short(kind: bytes) -> None:
    cut = chunk(kind, bytes(500))[:100]
    np.testing.assert_array_equal(decode_image(PNG[:-12] + cut, spec_of(PIXELS)), PIXELS)
    with pytest.raises(UnreadableImageError):
        decode_image(PNG[:HEADER] + cut, spec_of(PIXELS))
