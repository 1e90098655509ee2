import io
from typing import Any

import numpy as np
import pytest

from service.codecs.npy import NPY
from service.errors import InvalidRequestError, MalformedBodyError, TooManyImagesError
from service.inference.inputs import PixelArray
from tests.support.http_requests import npy
from tests.support.request_bodies import request_body


def parse(body: bytes) -> list[np.ndarray[Any, Any]]:
    images = NPY.parse(request_body(body, max_images=100, max_pixels=10_000)).images
    assert all(isinstance(image, PixelArray) for image in images)
    return [image.pixels for image in images if isinstance(image, PixelArray)]


PIXELS = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)


@pytest.mark.parametrize(
    "array",
    [PIXELS, PIXELS[..., 0], np.asfortranarray(PIXELS), PIXELS[:, ::-1]],
    ids=["colour", "grey without channels", "Fortran order", "strided"],
)
def test_each_row_is_an_image(array: np.ndarray[Any, Any]) -> None:
    images = parse(npy(array))
    assert len(images) == 2
    assert np.array_equal(np.stack(images), array)


def test_format_2_is_read() -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, PIXELS, version=(2, 0))
    assert np.array_equal(np.stack(parse(buffer.getvalue())), PIXELS)


@pytest.mark.parametrize(
    "array",
    [PIXELS.astype(np.float32), PIXELS[0, 0], PIXELS[:0], np.zeros((1, 0, 4, 3), np.uint8), PIXELS.astype(bool)],
    ids=["float", "two dimensions", "no images", "no height", "bool"],
)
def test_another_array_is_refused_with_the_expected_shape(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=r"send an array of uint8 \[images, height, width"):
        parse(npy(array))


def test_objects_are_never_unpickled() -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("it was unpickled",))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidRequestError, match="object"):
        parse(buffer.getvalue())


def test_limits_are_checked_from_the_header_alone() -> None:
    with pytest.raises(TooManyImagesError):
        parse(header_of((101, 1, 1)))
    with pytest.raises(InvalidRequestError, match="200 x 100 pixels; at most 10,000"):
        parse(header_of((1, 100, 200)))
    with pytest.raises(MalformedBodyError, match="announces 100,000,000 bytes of pixels, but 0 follow"):
        parse(header_of((1, 100, 100, 10_000)))


@pytest.mark.parametrize("change", [-1, 1])
def test_a_body_of_another_length_than_announced_is_refused(change: int) -> None:
    body = npy(PIXELS)
    with pytest.raises(MalformedBodyError, match="announces"):
        parse(body[:change] if change < 0 else body + b"x")


@pytest.mark.parametrize(
    "body",
    [b"", b"\x93NUMPY", b"PK\x03\x04", b"\x93NUMPY\x01\x00\x05\x00[[[[[", b"\x93NUMPY\x01\x00\x00\x08" + b"(" * 2048],
)
def test_data_that_is_not_an_npy_file_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBodyError, match=r"not an \.npy file"):
        parse(body)


def header_of(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(1, -8, -8, 1), (-1, 8, 8), (1, 0, 8)])
def test_a_dimension_below_one_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequestError, match="not empty"):
        parse(header_of(shape) + bytes(64))
