from typing import Any

import numpy as np
import pytest

from schemas.errors import ImageError, ImageTooLargeError
from service.inference.inputs import EncodedImage, JsonInstance, PixelArray
from service.validation import shortened
from tests.support.bundles import COLOURS, SPEC, solid
from tests.support.http_requests import b64

MAX_PIXELS = 10_000


@pytest.mark.parametrize(
    "image",
    [
        EncodedImage(solid("red")),
        JsonInstance(b64(solid("red"))),
        JsonInstance([[list(COLOURS["red"])] * 3] * 2),
        PixelArray(np.full((5, 4, 3), COLOURS["red"], np.uint8)),
    ],
)
def test_decodes_every_kind_to_the_models_input(image: EncodedImage | JsonInstance | PixelArray) -> None:
    decoded = image.decode(SPEC, MAX_PIXELS)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, np.full(SPEC.shape, COLOURS["red"]))


def nested(depth: int) -> list[Any]:
    return [nested(depth - 1)] if depth else [1]


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        ("iVBORw0", "The instance is a string"),
        (7, "The instance is a number"),
        (None, "The instance is null"),
        ({"b64": "not base64!"}, "not base64"),
        ({"b64": 5}, "b64 must be a string"),
        (True, "The instance is a boolean"),
        (0.5, "The instance is a number"),
        ({"url": "http://example.org/a.png"}, r"The instance has the fields \['url'\]"),
        ({"b64": "AAAA", "more": 1}, "The instance has the fields"),
        ([[1, 2], [3]], "must all have the same length"),
        ([[0.5, 1.0]], "integers"),
        ([[True, False]], "integers"),
        ([["1", "2"]], "integers"),
        ([[0, 256]], "from 0 to 255, not 0 to 256"),
        ([[-1, 0]], "from 0 to 255, not -1 to 0"),
        ([[10**30]], "from 0 to 255"),
        ([["x" * 1000, 1]], "integers"),
        ([[None]], "integers"),
        ([[{}]], "integers"),
        (nested(100), "cannot be read|same length|integers"),
        ([1, 2, 3], "height, width"),
        ([], "integers"),
        ([[[1, 2]]], "height, width"),
    ],
)
def test_refuses_an_instance_that_is_not_an_image_with_the_reason(instance: Any, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        JsonInstance(instance).decode(SPEC, MAX_PIXELS)


def test_limits_the_pixels_of_arrays() -> None:
    for image in (PixelArray(np.zeros((101, 100, 3), np.uint8)), JsonInstance([[0] * 101] * 100)):
        with pytest.raises(ImageTooLargeError, match="the limit is 10,000"):
            image.decode(SPEC, MAX_PIXELS)


def test_messages_quote_input_shortened_and_encodable() -> None:
    assert shortened("a" * 100) == "a" * 60 + "..."
    shortened("half a \ud800 character").encode()
