"""A JPEG of more than twice the model's size is decoded at a reduced size."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from schemas.image import Pixels, decode_image, fit_pixels
from schemas.manifest import Interpolation, Resize
from service.inference.inputs import EncodedImage
from tests.support.encoded_images import encode, noise, spec
from trainer.data.photo import decode_photo

CLOSE = 1.0  # mean difference, of 255
AVERAGING = [Interpolation.BOX, Interpolation.BILINEAR, Interpolation.BICUBIC, Interpolation.LANCZOS]


def photo(height: int, width: int, **options: object) -> tuple[bytes, Pixels]:
    """Returns a JPEG with about the detail of a photo, and its pixels at full size."""
    jpeg = encode(Image.fromarray(noise(height, width)).filter(ImageFilter.GaussianBlur(4)), "JPEG", **options)
    return jpeg, decode_image(jpeg, spec(height, width))


def difference(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("interpolation", AVERAGING)
@pytest.mark.parametrize("resize", [Resize.STRETCH, Resize.CROP])
@pytest.mark.parametrize("size", [(45, 50), (16, 16), (8, 10), (4, 4)])
def test_a_large_jpeg_is_decoded_smaller_and_nearly_the_same(
    size: tuple[int, int], resize: Resize, interpolation: Interpolation
) -> None:
    jpeg, pixels = photo(120, 160)
    smaller = spec(*size, resize=resize, interpolation=interpolation)
    assert 0 < difference(decode_image(jpeg, smaller), fit_pixels(pixels, smaller)) < CLOSE


@pytest.mark.parametrize(
    "options", [(60, 60, "bilinear"), (10, 60, "bilinear"), (100, 130, "bilinear"), (8, 10, "nearest")]
)
def test_a_jpeg_up_to_twice_the_size_and_nearest_are_decoded_in_full(options: tuple[int, int, str]) -> None:
    jpeg, pixels = photo(120, 160)
    height, width, interpolation = options
    smaller = spec(height, width, interpolation=interpolation)
    np.testing.assert_array_equal(decode_image(jpeg, smaller), fit_pixels(pixels, smaller))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_jpeg_is_reduced_in_both_orientations(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    jpeg, _ = photo(80, 160, exif=exif)
    upright = (160, 80) if orientation in {6, 8} else (80, 160)
    pixels = decode_image(jpeg, spec(*upright))
    small = spec(upright[0] // 5, upright[1] // 5)
    assert 0 < difference(decode_image(jpeg, small), fit_pixels(pixels, small)) < CLOSE


def test_the_trainer_and_the_service_decode_the_same_pixels() -> None:
    jpeg, pixels = photo(120, 160)
    smaller = spec(20, 20, resize="crop")
    trained, served = decode_photo(jpeg, smaller), EncodedImage(jpeg).decode(smaller, max_pixels=120 * 160)
    np.testing.assert_array_equal(trained, served)
    assert (served != fit_pixels(pixels, smaller)).any()
