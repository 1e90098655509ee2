import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from service.errors import (
    InvalidRequestError,
    MalformedBodyError,
    RequestError,
    TooManyImagesError,
    TooManyValuesError,
    UnsupportedFeatureError,
)
from service.inference.inputs import EncodedImage, JsonInstance
from tests.support.inference_protocol import Reader, arrays, asking, elements, encoded, pixels, uint8

RED = pixels("red")
BOTH = pixels("red", "blue")
HUGE = 2**62


def test_pixels_may_be_nested_flat_or_binary(read: Reader) -> None:
    for images in (
        read(asking(uint8(BOTH, BOTH.tolist()))),
        read(asking(uint8(BOTH, BOTH.ravel().tolist()))),
        read(asking(uint8(BOTH)), BOTH.tobytes()),
    ):
        assert np.array_equal(arrays(images), BOTH)


def test_encoded_images_may_be_base64_or_binary(read: Reader) -> None:
    images = read(encoded(2, parameters={"binary_data_size": 13}), elements(b"", b"12345"))
    assert images == [EncodedImage(b""), EncodedImage(b"12345")]
    assert read(encoded(1, data=["MTIz"])) == [JsonInstance({"b64": "MTIz"})]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 100_000, b"\xff", b'{"id": "\xed\xa0\x80"}', b'{"id": "\\ud800"}', b"NaN"]
)
def test_a_body_that_is_not_json_is_malformed(read: Reader, body: bytes) -> None:
    with pytest.raises((MalformedBodyError, InvalidRequestError), match=r"not JSON|must be a JSON object"):
        read.raw(body)


@pytest.mark.parametrize("body", ["null", "3", "[]", '"x"', "true"])
def test_refuses_a_request_that_is_not_an_object(read: Reader, body: str) -> None:
    with pytest.raises(InvalidRequestError, match="The body must be a JSON object"):
        read.raw(body.encode())


@pytest.mark.parametrize(
    "shape",
    [
        *([], [0], [1], [0, 8, 8, 3], [-1, 8, 8, 3], [1, 8, 8], [1, 8, 8, 3, 1], [8, 8, 3], [1, 9, 8, 3], [1, 8, 8, 1]),
        *([1, -8, -8, 3], [HUGE, HUGE, HUGE, HUGE], [1, 0, 0, 0], [-HUGE, 8, 8, 3], [1] * 10_000),
    ],
)
@pytest.mark.parametrize("binary", [True, False])
def test_another_shape_than_the_models_is_refused_whatever_the_data(
    read: Reader, shape: list[int], binary: bool
) -> None:
    tensor = uint8(RED, None if binary else RED.tolist()) | {"shape": shape}
    with pytest.raises(InvalidRequestError, match=r"it must be \[images, 8, 8, 3\], with at least one image") as caught:
        read(asking(tensor), RED.tobytes() if binary else None)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("count", [4, 10**9, HUGE, 10**40])
def test_a_shape_over_the_limit_allocates_nothing(read: Reader, count: int) -> None:
    with pytest.raises(TooManyImagesError):
        read(asking(uint8(RED) | {"shape": [count, 8, 8, 3]}), RED.tobytes(), max_images=3)
    with pytest.raises(TooManyImagesError):
        read(encoded(count, data=["MTIz"]), max_images=3)


@pytest.mark.parametrize("dimension", [1.0, 1.5, True, "1", None, [1]])
def test_a_dimension_is_an_integer(read: Reader, dimension: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"inputs\.0\.shape\.0"):
        read(asking(uint8(RED, RED.tolist()) | {"shape": [dimension, 8, 8, 3]}))


@pytest.mark.parametrize("value", [-1, 256, 1.0, 0.5, True, False, None, "1", [1], {}, HUGE, -HUGE, 10**400, 1e300])
@pytest.mark.parametrize("flat", [True, False])
def test_an_element_that_is_not_uint8_is_named(read: Reader, value: Any, flat: bool) -> None:
    data: Any = RED.ravel().tolist() if flat else RED.tolist()
    if flat:
        data[5] = value
    else:
        data[0][0][1][2] = value
    with pytest.raises(InvalidRequestError, match=r"Element 5 of images's data is .* not UINT8") as caught:
        read(asking(uint8(RED, data)))
    assert len(str(caught.value)) < 200


RAGGED: dict[str, Callable[[Any], Any]] = {
    "a row too long": lambda data: data[1][3].append([1, 2, 3]),
    "a row too short": lambda data: data[0][7].pop(),
    "a row that moved to another": lambda data: data[0][1].append(data[0][0].pop()),
    "a number in the place of a row": lambda data: data[1].__setitem__(2, 7),
    "a text in the place of a row": lambda data: data[1].__setitem__(2, "12345678"),
    "an object in the place of a row": lambda data: data[1].__setitem__(2, {"0": 1}),
    "one level more": lambda data: [data],
    "one level less": lambda data: [row for image in data for row in image],
    "one element too few": lambda _: BOTH.ravel().tolist()[:-1],
    "one element too many": lambda _: [*BOTH.ravel().tolist(), 1],
    "nothing": lambda _: [],
    "as long as all elements, but lists": lambda _: [[]] * BOTH.size,
}


def test_a_byte_order_mark_is_ignored_with_and_without_binary_data(read: Reader) -> None:
    text = b"\xef\xbb\xbf" + json.dumps(asking(uint8(RED, RED.tolist()))).encode()
    assert len(read.raw(text)[1]) == 1
    text = b"\xef\xbb\xbf" + json.dumps(asking(uint8(RED))).encode()
    assert len(read.raw(text + RED.tobytes(), str(len(text)))[1]) == 1


@pytest.mark.parametrize("change", RAGGED)
def test_data_that_is_neither_flat_nor_nested_as_its_shape_is_refused(read: Reader, change: str) -> None:
    nested = BOTH.tolist()
    changed = RAGGED[change](nested)
    data = changed if isinstance(changed, list) and not change.startswith("a row") else nested
    with pytest.raises(InvalidRequestError, match=r"neither flat \(384 elements\) nor nested as its shape"):
        read(asking(uint8(BOTH, data)))


@pytest.mark.parametrize("data", [3, "text", {}, True])
def test_refuses_data_that_is_not_a_list(read: Reader, data: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"inputs\.0\.data must be a list"):
        read(asking(uint8(RED, data)))


@pytest.mark.parametrize("data", [[1], [None], [True], [["MTIz"]], [{"b64": "MTIz"}]])
def test_an_encoded_image_in_json_is_a_string(read: Reader, data: Any) -> None:
    with pytest.raises(InvalidRequestError):
        read(encoded(1, data=data))
    with pytest.raises(InvalidRequestError, match="neither flat"):
        read(encoded(2, data=["MTIz"]))


@pytest.mark.parametrize("datatype", ["FP32", "INT8", "uint8", "", 3, None, "BOOL"])
def test_another_datatype_is_refused(read: Reader, datatype: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"inputs\.0\.datatype must be 'UINT8' or 'BYTES'"):
        read(asking(uint8(RED, RED.tolist()) | {"datatype": datatype}))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "inputs is missing"),
        ({"inputs": []}, "inputs must have 1 or more elements"),
        ({"inputs": {}}, "inputs must be a list"),
        (asking(uint8(RED, [])) | {"id": 3}, "id must be a string"),
        (asking(uint8(RED, [])) | {"ID": "3"}, "Unknown field ID; remove it"),
        (asking(uint8(RED, []) | {"colour": 3}), r"Unknown field inputs\.0\.colour"),
        (asking(uint8(RED, []) | {"name": "pictures"}), r"The inputs are \['pictures'\]; colours has one, 'images'"),
        ({"inputs": [uint8(RED, [])] * 2}, r"The inputs are \['images', 'images'\]; colours has one"),
        (asking(uint8(RED, []), outputs=[{"name": "logits"}]), r"The outputs are \['logits'\]; colours has one"),
        (asking(uint8(RED, []), outputs=[{"name": "probabilities"}] * 2), "colours has one, 'probabilities'"),
        (asking(uint8(RED, []), parameters={"speed": 3}), r"Unknown field parameters\.speed"),
        (asking(uint8(RED, []), parameters={"timeout": -1}), r"parameters\.timeout must be 0 or more"),
        (asking(uint8(RED, []), parameters={"timeout": 0.5}), r"parameters\.timeout must be an integer"),
        (asking(uint8(RED, []), parameters={"binary_data_output": 1}), r"binary_data_output must be true or false"),
        (
            asking(uint8(RED, []), outputs=[{"name": "probabilities", "parameters": {"classification": 0}}]),
            r"classification must be 1 or more",
        ),
        (
            asking(uint8(RED, []), outputs=[{"name": "probabilities", "parameters": {"binary_data": "yes"}}]),
            r"binary_data must be true or false",
        ),
        (asking(uint8(RED, []), model_name="dogs"), "model_name or model_version in the body differs from the path"),
        (asking(uint8(RED, []), model_version="2"), "model_name or model_version in the body differs from the path"),
    ],
)
def test_an_invalid_field_is_named(read: Reader, request_: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        read(request_)


def test_the_model_may_be_named_in_the_body_too(read: Reader) -> None:
    assert len(read(asking(uint8(RED, RED.tolist()), model_name="colours", model_version="1"))) == 1


@pytest.mark.parametrize(
    "request_",
    [
        asking(uint8(RED, []), parameters={"sequence_id": 1}),
        asking(uint8(RED, []) | {"parameters": {"shared_memory_region": "x"}}),
        asking(uint8(RED, []), outputs=[{"name": "probabilities", "parameters": {"shared_memory_byte_size": 3}}]),
    ],
)
def test_parameters_of_other_extensions_are_not_supported(read: Reader, request_: Any) -> None:
    with pytest.raises(UnsupportedFeatureError, match="belongs to an extension that is not implemented"):
        read(request_)


@pytest.mark.parametrize(
    "body",
    [b'{"inputs":[' + b"[]," * 400 + b"[]]}", b'{"inputs":[' + b"0," * 2000, b"[" * 400, b'{"":' * 1001],
    ids=["lists", "values", "nesting", "objects"],
)
def test_a_body_of_more_values_than_allowed_is_refused_before_it_is_parsed(read: Reader, body: bytes) -> None:
    with pytest.raises(TooManyValuesError, match="send the tensor as binary data"):
        read.raw(body, max_json_values=1000)


def test_a_number_of_thousands_of_digits_is_refused(read: Reader) -> None:
    digits = b"9" * 5000
    for body in (
        b'{"inputs":[{"name":"images","shape":[%b,8,8,3],"datatype":"UINT8","data":[1]}]}',
        b'{"inputs":[{"name":"images","shape":[1,8,8,3],"datatype":"UINT8","data":[' + b"1," * 191 + b"%b]}]}",
        b'{"parameters":{"timeout":%b},"inputs":[{"name":"images","shape":[1],"datatype":"BYTES","data":["MTIz"]}]}',
    ):
        with pytest.raises(RequestError) as caught:
            read.raw(body % digits)
        assert len(str(caught.value)) < 300


def test_an_error_quotes_hostile_text_shortened(read: Reader) -> None:
    for request in (
        asking(uint8(RED, []) | {"name": "x" * 10_000}),
        asking(uint8(RED, []) | {"y" * 10_000: 1}),
        asking(uint8(RED, []), outputs=[{"name": "z" * 10_000}]),
        asking(uint8(RED, ["w" * 10_000] * math.prod(RED.shape))),
    ):
        with pytest.raises(RequestError) as caught:
            read(request)
        assert len(str(caught.value)) < 300


def test_more_fields_than_a_request_has_are_refused_before_it_is_parsed(read: Reader) -> None:
    with pytest.raises(TooManyValuesError, match="send the tensor as binary data"):
        read.raw(b'{"parameters": {' + b'"a":0,' * 5000)
