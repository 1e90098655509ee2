import numpy as np
import pytest
from PIL import Image

from schemas.errors import ImageTooLargeError
from schemas.image import MAX_SIDE, Pixels, fit_pixels
from schemas.manifest import Interpolation, Resize
from tests.support.encoded_images import noise, spec

METHODS = {
    Interpolation.NEAREST: Image.Resampling.NEAREST,
    Interpolation.BOX: Image.Resampling.BOX,
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
    Interpolation.LANCZOS: Image.Resampling.LANCZOS,
}


def halves(height: int, width: int) -> Pixels:
    """An image whose left half is red and right half is blue."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    return pixels


def test_stretch_fills_the_size_and_keeps_everything_in_view() -> None:
    fitted = fit_pixels(halves(4, 16), spec(8, 8, interpolation="nearest"))
    np.testing.assert_array_equal(fitted, halves(8, 8))


def test_crop_keeps_the_centre_of_the_longer_side() -> None:
    pixels = halves(4, 16)
    pixels[:, :6] = pixels[:, 10:] = 77
    fitted = fit_pixels(pixels, spec(8, 8, resize="crop", interpolation="nearest"))
    np.testing.assert_array_equal(fitted, halves(8, 8))


def test_pad_keeps_the_whole_image_and_fills_up_with_black() -> None:
    fitted = fit_pixels(halves(4, 16), spec(8, 8, resize="pad", interpolation="nearest"))
    np.testing.assert_array_equal(fitted[3:5], halves(2, 8))
    assert not fitted[:3].any()
    assert not fitted[5:].any()


@pytest.mark.parametrize("shape", [(1, 1000), (1000, 1)], ids=["wide", "tall"])
@pytest.mark.parametrize("resize", Resize)
def test_a_thin_line_keeps_at_least_one_pixel(resize: Resize, shape: tuple[int, int]) -> None:
    line = np.full((*shape, 3), 255, dtype=np.uint8)
    assert fit_pixels(line, spec(8, 8, resize=resize)).max() == 255


@pytest.mark.parametrize("interpolation", Interpolation)
def test_each_interpolation_uses_the_filter_of_its_name(interpolation: Interpolation) -> None:
    pixels = noise(11, 13)
    expected = np.asarray(Image.fromarray(pixels).resize((5, 4), METHODS[interpolation]))
    np.testing.assert_array_equal(fit_pixels(pixels, spec(4, 5, interpolation=interpolation)), expected)


def test_the_interpolations_differ_from_each_other() -> None:
    fitted = {fit_pixels(noise(11, 13), spec(4, 5, interpolation=name)).tobytes() for name in Interpolation}
    assert len(fitted) == len(Interpolation)


@pytest.mark.parametrize("shape", [(1, MAX_SIDE + 1), (MAX_SIDE + 1, 1)], ids=["wide", "tall"])
def test_refuses_pixels_with_a_side_above_the_limit(shape: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLargeError, match="per side"):
        fit_pixels(np.zeros(shape, dtype=np.uint8), spec(8, 8))


def test_accepts_the_longest_allowed_side() -> None:
    assert fit_pixels(np.full((1, MAX_SIDE), 9, dtype=np.uint8), spec(2, 2, 1)).tolist() == [[[9], [9]]] * 2
