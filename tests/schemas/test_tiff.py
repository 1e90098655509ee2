"""A TIFF whose strips or tiles are damaged is refused, although libtiff decodes it without an error."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from schemas.errors import UnreadableImageError
from schemas.image import decode_image
from schemas.tiff import _parts
from tests.support.encoded_images import encode, noise, spec_of

PIXELS = np.asarray(Image.fromarray(noise(20, 24)).resize((200, 168), Image.Resampling.BICUBIC))
COMPRESSIONS = ["tiff_adobe_deflate", "tiff_deflate", "jpeg", "tiff_lzw", "packbits"]
MODES = {"jpeg": ["RGB", "L"]}
CASES = [(name, mode) for name in COMPRESSIONS for mode in MODES.get(name, ["RGB", "L", "1", "RGBA", "CMYK", "I;16"])]


def tiff(compression: str, mode: str, size: int = 65_536) -> bytes:
    grey = mode in {"1", "I;16"}
    image = Image.fromarray(PIXELS).convert("L" if grey else mode)
    return encode(image.convert(mode) if grey else image, "TIFF", compression=compression, strip_size=size)


def last_part(data: bytes) -> tuple[int, int]:
    """Where the last strip begins and ends."""
    with Image.open(io.BytesIO(data)) as image:
        assert isinstance(image, TiffImagePlugin.TiffImageFile)
        part = list(_parts(image, data))[-1]
    start = data.index(part)
    return start, start + len(part)


@pytest.mark.parametrize(("compression", "mode"), CASES)
@pytest.mark.parametrize("strip_size", [2_000, 10_000_000], ids=["many strips", "one strip"])
def test_decodes_an_intact_tiff(compression: str, mode: str, strip_size: int) -> None:
    decode_image(tiff(compression, mode, strip_size), spec_of(PIXELS))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("compression", "mode"), [case for case in CASES if case[1] in {"RGB", "L"}])
def test_refuses_a_tiff_with_zeros_in_place_of_the_end_of_a_strip(compression: str, mode: str, share: float) -> None:
    data = tiff(compression, mode)
    start, end = last_part(data)
    cut = start + int((end - start) * share)
    with pytest.raises(UnreadableImageError):
        decode_image(data[:cut] + bytes(end - cut) + data[end:], spec_of(PIXELS))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_refuses_a_jpeg_in_a_tiff_that_ends_early(mode: str) -> None:
    data = tiff("jpeg", mode)
    start, end = last_part(data)
    cut = (start + end) // 2
    with pytest.raises(UnreadableImageError, match="premature end"):
        decode_image(data[:cut] + b"\xff\xd9" + data[cut + 2 :], spec_of(PIXELS))


def test_refuses_strips_that_overlap() -> None:
    data = bytearray(tiff("tiff_adobe_deflate", "L", 2_000))
    with Image.open(io.BytesIO(data)) as image:
        assert isinstance(image, TiffImagePlugin.TiffImageFile)
        sizes = image.tag_v2[TiffImagePlugin.STRIPBYTECOUNTS]
        code = {3: "H", 4: "I"}[image.tag_v2.tagtype[TiffImagePlugin.STRIPBYTECOUNTS]]
    at = data.index(struct.pack(f"<{len(sizes)}{code}", *sizes))
    larger = struct.pack(f"<{len(sizes)}{code}", *[min(len(data), 65_535)] * len(sizes))
    data[at : at + len(larger)] = larger
    with pytest.raises(UnreadableImageError, match="larger than the file"):
        decode_image(bytes(data), spec_of(PIXELS))


def test_refuses_a_strip_that_unpacks_to_far_more_than_its_pixels() -> None:
    data, bomb = tiff("tiff_adobe_deflate", "L", 10_000_000), zlib.compress(bytes(10_000_000))
    start, end = last_part(data)
    for tag, before, now in (
        (TiffImagePlugin.STRIPOFFSETS, start, len(data)),
        (TiffImagePlugin.STRIPBYTECOUNTS, end - start, len(bomb)),
    ):
        assert data.count(struct.pack("<HHII", tag, 4, 1, before)) == 1
        data = data.replace(struct.pack("<HHII", tag, 4, 1, before), struct.pack("<HHII", tag, 4, 1, now))
    with pytest.raises(UnreadableImageError, match="its compressed data has no end"):
        decode_image(data + bomb, spec_of(PIXELS))


def test_refuses_a_jpeg_in_a_tiff_that_claims_to_be_huge() -> None:
    data = bytearray(tiff("jpeg", "L"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    with pytest.raises(UnreadableImageError, match="65500 x 65500"):
        decode_image(bytes(data), spec_of(PIXELS))
