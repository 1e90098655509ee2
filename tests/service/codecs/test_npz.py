import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.codecs.archive import NPZ
from service.codecs.base import Purpose, Submission
from service.errors import InvalidRequestError, TooManyImagesError
from tests.support.encoded_images import BOUNDED, spec
from tests.support.http_requests import npy
from tests.support.request_bodies import request_body
from tests.support.zip_files import lying, npz, zipped

SPEC = spec(8, 8, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (100, 8, 8), dtype=np.uint8)
# More than is kept of what was unpacked, so that asking for an early row again starts over.
LARGE = np.random.default_rng(0).integers(0, 256, (60, 600, 600), dtype=np.uint8)


def parse(data: bytes, **limits: Any) -> Submission:
    return NPZ.parse(request_body(data, purpose=Purpose.EVALUATE, **limits))


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("images", [IMAGES, IMAGES[..., np.newaxis]], ids=["grey", "with channels"])
def test_each_row_is_an_image(images: np.ndarray[Any, Any], compressed: bool) -> None:
    submission = parse(npz(compressed=compressed, images=images, labels=np.arange(100)))
    assert submission.labels == list(range(100))
    for image, expected in zip(submission.images, IMAGES, strict=True):
        assert np.array_equal(image.decode(SPEC, 64)[:, :, 0], expected)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array([2, 0, 1], np.uint8), [2, 0, 1]),
        (np.array([[2], [0], [1]]), [2, 0, 1]),
        (np.array([-1, 0, 1], ">i8"), [-1, 0, 1]),
        (np.array(["rot", "grün", "猫"]), ["rot", "grün", "猫"]),
        (np.array([b"rot", "grün".encode(), b""]), ["rot", "grün", ""]),
    ],
)
def test_labels_are_integers_or_strings(labels: np.ndarray[Any, Any], expected: list[int | str]) -> None:
    found = list(parse(npz(images=IMAGES[:3], labels=labels)).labels)
    assert found == expected
    assert {type(label) for label in found} == {type(label) for label in expected}


@given(st.lists(st.integers(0, 59), min_size=1, max_size=8))
@settings(BOUNDED, max_examples=20)
def test_rows_may_be_read_in_any_order_and_repeatedly(order: list[int]) -> None:
    images = parse(LARGE_NPZ).images
    for i in order:
        assert np.array_equal(images[i].decode(spec(600, 600, 1), 360_000)[:, :, 0], LARGE[i])


def test_several_threads_may_read_rows() -> None:
    images = parse(LARGE_NPZ).images
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: image.decode(spec(600, 600, 1), 360_000)[:, :, 0], images))
    assert np.array_equal(np.stack(found), LARGE)


LARGE_NPZ = npz(images=LARGE, labels=np.zeros(60, int))


class Opens:
    """Unpickling this runs code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("unpickled",)


def with_header(shape: str, dtype: str = "|u1") -> bytes:
    """An .npz whose images are 64 zeros, with another header."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)
    return zipped({"images.npy": array, "labels.npy": npy(np.zeros(1, int))}, zipfile.ZIP_STORED)


HOSTILE = {
    "other arrays": (npz(x_test=IMAGES, labels=np.arange(100)), "holds x_test, labels; it must hold only the arrays"),
    "more arrays": (npz(images=IMAGES, labels=np.arange(100), images_test=IMAGES), "it must hold only the arrays"),
    "one array": (npz(images=IMAGES), "it must hold only the arrays"),
    "floats": (npz(images=IMAGES / 255, labels=np.arange(100)), r"images is float64 \[100, 8, 8\]; send uint8"),
    "one image": (npz(images=IMAGES[0], labels=np.arange(1)), r"images is uint8 \[8, 8\]; send uint8"),
    "two channels": (npz(images=np.zeros((1, 8, 8, 2), np.uint8), labels=[0]), r"images is uint8 \[1, 8, 8, 2\]; send"),
    "no images": (npz(images=IMAGES[:0], labels=np.arange(0)), "not empty"),
    "fewer labels": (npz(images=IMAGES, labels=np.arange(99)), "for 100 images it must be integers or strings"),
    "one-hot labels": (npz(images=IMAGES, labels=np.eye(100)), "for 100 images it must be"),
    "float labels": (npz(images=IMAGES, labels=np.arange(100.0)), "for 100 images it must be"),
    "boolean labels": (
        npz(images=IMAGES, labels=np.arange(100) > 50),
        r"bool \[100\]; for 100 images it must be integers",
    ),
    "very long labels": (npz(images=IMAGES[:1], labels=np.array(["x" * 2000])), "for 1 images it must be"),
    "labels that are no text": (npz(images=IMAGES[:1], labels=np.array([b"\xff"])), "labels cannot be read"),
    "objects": (npz(images=IMAGES[:1], labels=np.array([Opens()], object)), "Python objects, which are not supported"),
    "objects for images": (
        npz(images=np.array([Opens()], object), labels=[0]),
        "Python objects, which are not supported",
    ),
    "column by column": (npz(images=np.asfortranarray(IMAGES), labels=np.arange(100)), "numpy.ascontiguousarray"),
    "header that announces more": (with_header("(1000, 8, 8)"), r"announces uint8 \[1000, 8, 8\], but has 64 bytes"),
    "header that announces terabytes": (with_header("(1, 2000000, 2000000)"), "but has 64 bytes"),
    "header that announces less than nothing": (with_header("(-1, -8, 8)"), "not empty"),
    "header that is code": (with_header("__import__('os').getcwd()"), "not an .npy file"),
    "no array": (with_header("(1, 8, 8)").replace(b"NUMPY", b"NIMPY"), "not an .npy file"),
    "damaged labels": (
        lying(npz(images=IMAGES, labels=np.arange(100)), 1, crc=0),
        "labels.npy: The file is not",
    ),
}


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE)
def test_invalid_arrays_are_refused_in_one_sentence(data: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as refused:
        parse(data)
    assert str(refused.value).endswith(".")


def test_too_many_images_or_pixels_are_refused() -> None:
    data = npz(images=IMAGES, labels=np.arange(100))
    with pytest.raises(InvalidRequestError, match="8 x 8 pixels; at most 63"):
        parse(data, max_pixels=63)
    with pytest.raises(TooManyImagesError):
        parse(data, max_images=99)


def test_a_checksum_error_is_found_before_a_row_is_used() -> None:
    damaged = bytearray(LARGE_NPZ)
    damaged[len(damaged) // 2] ^= 1
    with pytest.raises(InvalidRequestError, match=r"images\.npy is damaged: It cannot be unpacked"):
        parse(bytes(damaged))
