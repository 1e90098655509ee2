import numpy as np
import pytest
from PIL import Image

from schemas.errors import ImageError
from schemas.image import DEFAULT_MAX_PIXELS
from schemas.manifest import InputSpec
from tests.support.encoded_images import encode
from trainer.data.photo import decode_photo

SPEC = InputSpec(height=8, width=8, channels=3)
RED, BLUE = (255, 0, 0), (0, 0, 255)


def encoded(kind: str, size: tuple[int, int] = (16, 16), **options: object) -> bytes:
    return encode(Image.new("RGB", size, RED), kind, **options)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    second = Image.new("RGB", (16, 16), BLUE)
    content = encoded(kind, save_all=True, append_images=[second], lossless=True)
    assert np.abs(decode_photo(content, SPEC).astype(int) - RED).max() < 3


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_avif_and_heic_are_read(kind: str) -> None:
    assert np.abs(decode_photo(encoded(kind), SPEC).astype(int) - RED).max() < 9


def test_a_jpeg_with_a_part_of_its_data_is_refused() -> None:
    content = encoded("JPEG", (64, 64))
    with pytest.raises(ImageError, match="cut short"):
        decode_photo(content[:-20] + content[-2:], SPEC)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_very_large_image_is_read(kind: str) -> None:
    size = (8000, DEFAULT_MAX_PIXELS // 8000 + 1)
    assert np.abs(decode_photo(encoded(kind, size), SPEC).astype(int) - RED).max() < 3


@pytest.mark.parametrize("mode", ["F", "I"])
def test_an_image_of_unknown_range_is_refused_with_advice(mode: str) -> None:
    with pytest.raises(ImageError, match="Save the image as 8-bit RGB or grey"):
        decode_photo(encode(Image.new(mode, (4, 4)), "TIFF"), SPEC)
