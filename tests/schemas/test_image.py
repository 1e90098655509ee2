import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from schemas.errors import ImageError, UnsupportedImageError
from schemas.image import Pixels, decode_image, encode_png, fit_pixels
from schemas.manifest import Interpolation, Resize
from tests.support.encoded_images import BOUNDED, chunk, encode, exif_cut_short, grey_tiff, noise, png, spec, spec_of

RGB = noise(4, 6)
WHITE, BLACK, RED, GREEN = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0)

# EXIF orientation -> the transformation that turns the stored image upright.
UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}


def row(*colours: tuple[int, int, int]) -> Pixels:
    return np.array([colours], dtype=np.uint8)


def palette_image(transparency: bytes | int | None = None) -> bytes:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLACK])
    image.putdata([0, 1, 2])
    return encode(image, "PNG", **({} if transparency is None else {"transparency": transparency}))


def grey_row(*values: int) -> Pixels:
    return np.array([[[value] for value in values]], dtype=np.uint8)


def transparent_grey(depth: int, content: bytes, transparent: int, width: int = 2) -> bytes:
    return png(width, 1, depth, 0, [content], chunk(b"tRNS", struct.pack(">H", transparent)))


def sixteen(order: str = "<") -> bytes:
    return struct.pack(order + "3H", 0, 4826, 0xFFFF)


SIXTEEN = np.array([[0, 4826, 0xFFFF]], dtype=np.uint16)
SIXTEEN_AS_EIGHT = grey_row(0, 19, 255)  # 4826 / 257 = 18.8
HALF_RED = np.array([[[255, 0, 0, 128], [0, 0, 0, 0], [1, 2, 3, 255]]], dtype=np.uint8)

EXACT = {
    "palette": (palette_image(), row(RED, GREEN, BLACK)),
    "palette with one transparent colour": (palette_image(1), row(RED, WHITE, BLACK)),
    "palette with an alpha a colour": (palette_image(bytes([255, 0, 128])), row(RED, WHITE, (127, 127, 127))),
    "palette GIF": (encode(Image.fromarray(row(RED, GREEN, BLACK)).quantize(3), "GIF"), row(RED, GREEN, BLACK)),
    "1 bit": (encode(Image.fromarray(grey_row(0, 255)[:, :, 0]).convert("1"), "PNG"), row(BLACK, WHITE)),
    "grey": (encode(grey_row(0, 77)[:, :, 0], "PNG"), row(BLACK, (77, 77, 77))),
    "grey and alpha": (png(3, 1, 8, 4, [bytes([9, 255, 9, 0, 0, 128])]), row((9, 9, 9), WHITE, (127, 127, 127))),
    "RGBA over white": (encode(HALF_RED, "PNG"), row((255, 127, 127), WHITE, (1, 2, 3))),
    "RGBA WebP": (encode(HALF_RED, "WEBP", lossless=True, exact=True), row((255, 127, 127), WHITE, (1, 2, 3))),
    "16-bit RGB PNG": (
        png(2, 1, 16, 2, [struct.pack(">6H", 0, 65535, 257 * 128, 257, 514, 0)]),
        row((0, 255, 128), (1, 2, 0)),
    ),
    "16-bit grey and alpha PNG": (png(2, 1, 16, 4, [struct.pack(">4H", 257 * 9, 65535, 0, 0)]), row((9, 9, 9), WHITE)),
    "RGB with a transparent colour": (
        png(2, 1, 8, 2, [bytes([*RED, *GREEN])], chunk(b"tRNS", struct.pack(">3H", *RED))),
        row(WHITE, GREEN),
    ),
    "CMYK TIFF": (encode(Image.new("CMYK", (2, 1), (0, 255, 0, 0)), "TIFF"), row((255, 0, 255), (255, 0, 255))),
    "RGB BMP": (encode(RGB, "BMP"), RGB),
    "RGB PPM": (encode(RGB, "PPM"), RGB),
    "RGB TIFF": (encode(RGB, "TIFF"), RGB),
    "RGB TIFF, LZW": (encode(RGB, "TIFF", compression="tiff_lzw"), RGB),
    "RGB WebP, lossless": (encode(RGB, "WEBP", lossless=True), RGB),
    "16-bit grey PNG": (encode(SIXTEEN, "PNG"), SIXTEEN_AS_EIGHT),
    "16-bit grey PNM": (encode(SIXTEEN, "PPM"), SIXTEEN_AS_EIGHT),
    "10-bit grey PNM": (b"P5 3 1 1023\n" + struct.pack(">3H", 0, 76, 1023), SIXTEEN_AS_EIGHT),
    "16-bit grey TIFF": (encode(SIXTEEN, "TIFF"), SIXTEEN_AS_EIGHT),
    "16-bit grey TIFF, LZW": (encode(SIXTEEN, "TIFF", compression="tiff_lzw"), SIXTEEN_AS_EIGHT),
    "16-bit grey TIFF, big-endian": (grey_tiff(3, 1, 16, sixteen(">"), order=">"), SIXTEEN_AS_EIGHT),
    "16-bit grey TIFF, big-endian, deflate": (
        grey_tiff(3, 1, 16, zlib.compress(sixteen(">")), order=">", compression=8),
        SIXTEEN_AS_EIGHT,
    ),
    "8-bit grey TIFF, white is 0": (grey_tiff(3, 1, 8, bytes([255, 236, 0]), photometric=0), SIXTEEN_AS_EIGHT),
    "transparent 1-bit grey": (transparent_grey(1, b"\x40", 0), grey_row(255, 255)),
    "transparent 2-bit grey": (transparent_grey(2, b"\x70", 1), grey_row(255, 255)),
    "transparent 4-bit grey": (transparent_grey(4, b"\x73", 7), grey_row(255, 51)),
    "transparent 8-bit grey": (transparent_grey(8, b"\x10\xaa", 0x10), grey_row(255, 0xAA)),
    "transparent 16-bit grey": (transparent_grey(16, b"\x12\x34\x12\x35", 0x1234), grey_row(255, 18)),
}


@pytest.mark.parametrize("kind", EXACT)
def test_decodes_each_kind_of_image_exactly(kind: str) -> None:
    data, expected = EXACT[kind]
    np.testing.assert_array_equal(decode_image(data, spec_of(expected)), expected)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP"])
def test_applies_exif_orientation(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if image_format == "WEBP" else {}
    upright = UPRIGHT[orientation](RGB)
    decoded = decode_image(encode(RGB, image_format, exif=exif, **lossless), spec_of(upright))
    np.testing.assert_array_equal(decoded, upright)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_applies_exif_orientation_of_a_jpeg(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((16, 32, 3), dtype=np.uint8)
    stored[:8, :16] = 255  # a corner, so that no two orientations look alike; turned left to right they differ by shape
    stored[:8, 16:] = 90
    upright = UPRIGHT[orientation](stored)
    decoded = decode_image(encode(stored, "JPEG", exif=exif, quality=95), spec_of(upright))
    np.testing.assert_allclose(decoded.astype(int), upright, atol=4)


@pytest.mark.parametrize("orientation", [0, 9, 60_000])
def test_ignores_an_invalid_exif_orientation(orientation: int) -> None:
    data = encode(RGB, "PNG", exif=exif_cut_short(orientation) + bytes(16))
    np.testing.assert_array_equal(decode_image(data, spec_of(RGB)), RGB)


LOSSY = {
    "CMYK JPEG": (encode(Image.new("CMYK", (8, 8), (0, 255, 0, 0)), "JPEG"), (255, 0, 255)),
    "grey JPEG": (encode(Image.new("L", (8, 8), 77), "JPEG"), (77, 77, 77)),
    "progressive JPEG": (encode(Image.new("RGB", (8, 8), (200, 30, 90)), "JPEG", progressive=True), (200, 30, 90)),
    "YCbCr TIFF": (encode(Image.new("RGB", (8, 8), (200, 30, 90)).convert("YCbCr"), "TIFF"), (200, 30, 90)),
    "JPEG in TIFF": (encode(Image.new("RGB", (8, 8), (200, 30, 90)), "TIFF", compression="jpeg"), (200, 30, 90)),
    "lossy WebP": (encode(Image.new("RGB", (8, 8), (200, 30, 90)), "WEBP"), (200, 30, 90)),
    "MPO: its main picture": (
        encode(Image.new("RGB", (8, 8), (200, 30, 90)), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))]),
        (200, 30, 90),
    ),
}


@pytest.mark.parametrize("kind", LOSSY)
def test_lossy_formats_keep_their_colour(kind: str) -> None:
    data, colour = LOSSY[kind]
    decoded = decode_image(data, spec(8, 8)).astype(int)
    np.testing.assert_allclose(decoded, np.broadcast_to(colour, (8, 8, 3)), atol=4)


FRAMES = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
REFUSED = {
    "animated GIF": (encode(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "several frames"),
    "animated PNG": (encode(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "several frames"),
    "animated WebP": (encode(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), "several frames"),
    "multi-page TIFF": (encode(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]), "pages"),
    "32-bit integer TIFF": (encode(Image.new("I", (2, 2)), "TIFF"), "range of values"),
    "float TIFF": (encode(Image.new("F", (2, 2)), "TIFF"), "range of values"),
    "float PNM": (encode(Image.new("F", (2, 2)), "PPM"), "range of values"),
    "LAB TIFF": (encode(Image.new("LAB", (2, 2)), "TIFF"), "range of values"),
    "12-bit grey TIFF": (grey_tiff(2, 1, 12, b"\xff\xf0\x00"), "16 bits and black as 0"),
    "16-bit grey TIFF, white is 0": (grey_tiff(3, 1, 16, sixteen(), photometric=0), "16 bits and black as 0"),
    "16-bit RGB PNG with a transparent colour": (
        png(1, 1, 16, 2, [bytes(6)], chunk(b"tRNS", bytes(6))),
        "transparent colour",
    ),
    "plain-text PNM": (b"P2 2 1 255\n0 255\n", "Plain-text PNM"),
    "run-length BMP": (
        b"BM"
        + struct.pack("<IHHI", 70, 0, 0, 62)
        + struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 8, 1, 6, 0, 0, 2, 0)
        + bytes(8)
        + bytes([2, 0, 0, 1]),
        "run-length BMP",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refuses_ambiguous_images_with_the_reason(kind: str) -> None:
    data, reason = REFUSED[kind]
    with pytest.raises(UnsupportedImageError, match=reason):
        decode_image(data, spec(4, 4))


def test_accepts_a_gif_or_tiff_with_a_single_frame() -> None:
    for image_format in ("GIF", "PNG", "WEBP", "TIFF"):
        decoded = decode_image(encode(FRAMES[0], image_format, save_all=True), spec(4, 4))
        assert decoded[0, 0, 0] > 250


def test_damaged_exif_prints_no_warning_and_its_orientation_is_applied() -> None:
    """Runs in its own process: pytest turns warnings into errors, and a program prints them to stderr."""
    stored = np.zeros((8, 16, 3), dtype=np.uint8)
    stored[:, :8] = 255  # on the left; upright, on top
    data = encode(stored, "JPEG", exif=exif_cut_short(6))
    program = (
        "import sys; from schemas.image import decode_image; from schemas.manifest import InputSpec\n"
        "pixels = decode_image(sys.stdin.buffer.read(), InputSpec(height=16, width=8, channels=3))\n"
        "print(pixels[0].min() > 200, pixels[-1].max() < 50)"
    )
    for strictness in ([], ["-W", "error"]):
        done = subprocess.run(
            [sys.executable, *strictness, "-c", program], input=data, capture_output=True, check=False
        )
        assert (done.stdout, done.stderr) == (b"True True\n", b"")


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))))
@BOUNDED
def test_png_round_trip_keeps_every_pixel(pixels: Pixels) -> None:
    np.testing.assert_array_equal(decode_image(encode_png(pixels), spec_of(pixels)), pixels)


@pytest.mark.parametrize("resize", Resize)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_the_models_size_is_unchanged_bit_for_bit(resize: Resize, channels: int) -> None:
    pixels = noise(7, 5, channels)
    np.testing.assert_array_equal(decode_image(encode_png(pixels), spec_of(pixels, resize)), pixels)


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3, 4]))),
    st.sampled_from(Resize),
    st.sampled_from(Interpolation),
    st.sampled_from([1, 3]),
)
@BOUNDED
def test_pixels_and_their_png_give_the_same_input(
    pixels: Pixels, resize: Resize, interpolation: Interpolation, channels: int
) -> None:
    wanted = spec(5, 7, channels, resize=resize, interpolation=interpolation)
    np.testing.assert_array_equal(fit_pixels(pixels, wanted), decode_image(encode_png(pixels), wanted))


def test_accepts_grey_pixels_without_a_channel_axis() -> None:
    grey = noise(4, 4, 1)
    for wanted in (spec(4, 4, 1), spec(3, 3, 3)):
        np.testing.assert_array_equal(fit_pixels(grey[:, :, 0], wanted), fit_pixels(grey, wanted))


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        pytest.param(np.zeros((4, 4, 3), dtype=np.float32), "uint8", id="float"),
        pytest.param(np.zeros((4, 4, 3), dtype=np.int64), "uint8", id="int64"),
        pytest.param(np.zeros((4, 4, 3), dtype=np.bool_), "uint8", id="bool"),
        pytest.param(np.zeros((4, 4, 2), dtype=np.uint8), "height, width", id="two channels"),
        pytest.param(np.zeros((1, 4, 4, 3), dtype=np.uint8), "height, width", id="a batch"),
        pytest.param(np.zeros(4, dtype=np.uint8), "height, width", id="a vector"),
        pytest.param(np.zeros((), dtype=np.uint8), "height, width", id="a number"),
        pytest.param(np.zeros((0, 4), dtype=np.uint8), "not empty", id="no rows"),
        pytest.param(np.zeros((4, 0, 3), dtype=np.uint8), "not empty", id="no columns"),
        pytest.param(np.zeros((4, 4, 0), dtype=np.uint8), "height, width", id="no channels"),
    ],
)
def test_refuses_pixels_of_another_type_or_shape(pixels: Pixels, reason: str) -> None:
    with pytest.raises(UnsupportedImageError, match=reason):
        fit_pixels(pixels, spec(4, 4))


def test_rgb_becomes_grey_by_its_luminance_and_grey_becomes_rgb_by_repetition() -> None:
    red = encode_png(np.full((2, 2, 3), RED, dtype=np.uint8))
    grey = encode_png(np.full((2, 2, 1), 77, dtype=np.uint8))
    assert (decode_image(red, spec(2, 2, 1)) == 76).all()  # ITU-R 601: 0.299 * 255
    assert (decode_image(grey, spec(2, 2, 3)) == 77).all()


def test_every_image_error_is_one_sentence() -> None:
    for data in (b"", b"nonsense", encode(RGB, "PNG")[:40], REFUSED["LAB TIFF"][0]):
        with pytest.raises(ImageError) as caught:
            decode_image(data, spec(4, 4))
        assert str(caught.value).endswith(".")
        assert "0x" not in str(caught.value)  # no object address, so that the same bytes give the same message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "The file is empty."),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "The HEIC image is damaged or cut short."),
        (b"\0\0\0\x1cftypmif1\0\0\0\0", "The HEIC image is damaged or cut short."),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "The AVIF image is damaged or cut short."),
        (b"\xff\x0a\xfa\x3f", "JPEG XL"),
        (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "PDF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>', "SVG"),
        (b"<svg/>", "SVG"),
        (b"<html></html>", "not an image of a supported format"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "not an image of a supported format"),
    ],
)
def test_names_an_empty_file_and_common_unsupported_formats(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode_image(data, spec(8, 8, 3))


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("image_format", ["AVIF", "HEIF"])
def test_decodes_avif_and_heic_and_turns_them_upright(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((32, 64, 3), dtype=np.uint8)
    stored[:16, :32] = 255
    stored[:16, 32:] = 90
    image = Image.fromarray(stored)
    image.info["exif"] = exif.tobytes()  # the encoders write it as a rotation of the container
    upright = UPRIGHT[orientation](stored)
    options = {} if image_format == "HEIF" else {"exif": exif}
    decoded = decode_image(encode(image, image_format, quality=95, **options), spec_of(upright))
    assert np.abs(decoded.astype(int) - upright).mean() < 3


def test_heic_of_several_images_gives_the_main_one() -> None:
    data = encode(Image.new("RGB", (32, 32), RED), "HEIF", save_all=True, append_images=[Image.new("RGB", (32, 32))])
    assert np.abs(decode_image(data, spec(4, 4)).astype(int) - RED).max() < 5


def test_heic_without_its_decoder_is_named_with_what_to_install() -> None:
    data = encode(Image.new("RGB", (32, 32), RED), "HEIF")
    program = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from schemas.image import decode_image; from schemas.manifest import InputSpec\n"
        "try: decode_image(sys.stdin.buffer.read(), InputSpec(height=8, width=8, channels=3))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=False)
    assert done.stdout.startswith(b"UnsupportedImageError HEIC (the format of iPhone photos) is read only with"), done
    assert b"pip install pillow-heif" in done.stdout
