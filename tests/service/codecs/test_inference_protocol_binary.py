import json
from typing import Any

import numpy as np
import pytest

from service.errors import (
    InvalidRequestError,
    MalformedBodyError,
)
from tests.support.inference_protocol import Reader, arrays, asking, elements, encoded, pixels, uint8

RED = pixels("red")


def test_a_length_of_zero_is_one_bare_tensor_whose_outputs_are_binary(read: Reader) -> None:
    request, images = read.raw(RED.tobytes(), "0")
    assert np.array_equal(arrays(images), RED)
    assert request.parameters.binary_data_output


@pytest.mark.parametrize("size", [0, 1, 191, 193, 384])
def test_a_bare_tensor_has_exactly_one_image(read: Reader, size: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"192 bytes, but the binary data has {size}"):
        read.raw(bytes(size), "0")


@pytest.mark.parametrize(
    "header", ["", "-1", "+1", " 1", "1 ", "1_0", "0x10", "1.0", "1e3", "²", "\u0661", "NaN", "9" * 30, "9" * 100_000]
)
def test_a_json_length_that_is_not_a_number_is_refused(read: Reader, header: str) -> None:
    with pytest.raises(MalformedBodyError, match="it must be the length of the JSON in bytes") as caught:
        read.raw(json.dumps(asking(uint8(RED))).encode() + RED.tobytes(), header)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("beyond", [1, 1000, 2**31, 2**63, 2**64, 10**25])
def test_a_length_beyond_the_body_is_refused(read: Reader, beyond: int) -> None:
    text = json.dumps(asking(uint8(RED))).encode()
    with pytest.raises(MalformedBodyError, match=f"at most the {len(text)} of the whole body"):
        read.raw(text, str(len(text) + beyond))


@pytest.mark.parametrize("header", ["1", "10", "01"])
def test_a_json_length_inside_the_json_truncates_it(read: Reader, header: str) -> None:
    with pytest.raises(MalformedBodyError, match="The body is not JSON"):
        read.raw(json.dumps(asking(uint8(RED))).encode(), header)


@pytest.mark.parametrize("sent", [0, 1, 191, 193, 10_000])
def test_a_tensor_is_as_long_as_announced(read: Reader, sent: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"announces 192 bytes of binary data, but {sent:,} follow"):
        read(asking(uint8(RED)), bytes(sent))
    with pytest.raises(InvalidRequestError, match=f"192 bytes, but the binary data has {sent:,}"):
        read(asking(uint8(RED) | {"parameters": {"binary_data_size": sent}}), bytes(sent))


@pytest.mark.parametrize("size", [-1, 192.0, "192", True, 2**64, 10**30])
def test_an_announced_size_that_cannot_be_is_refused(read: Reader, size: Any) -> None:
    with pytest.raises(InvalidRequestError):
        read(asking(uint8(RED) | {"parameters": {"binary_data_size": size}}), RED.tobytes())


def test_a_tensor_is_json_or_binary_not_both(read: Reader) -> None:
    both = uint8(RED) | {"data": RED.tolist()}
    with pytest.raises(InvalidRequestError, match=r"must have either data, or parameters\.binary_data_size"):
        read(asking(both), RED.tobytes())
    with pytest.raises(InvalidRequestError, match=r"must have either data, or parameters\.binary_data_size"):
        read(asking({"name": "images", "shape": [1, 8, 8, 3], "datatype": "UINT8"}))
    with pytest.raises(InvalidRequestError, match="announces 0 bytes of binary data, but 4 follow"):
        read(asking(uint8(RED, RED.tolist())), b"more")


@pytest.mark.parametrize(
    ("binary", "message"),
    [
        (b"", "Element 0 .* beyond"),
        (b"\x01\x00\x00", "Element 0 .* beyond"),
        (b"\x02\x00\x00\x00x", "Element 0 .* beyond"),
        (b"\xff\xff\xff\xffx", "Element 0 .* beyond"),
        (elements(b"x"), "Element 1 .* beyond"),
        (elements(b"x", b"y")[:-1], "Element 1 .* beyond"),
        (elements(b"x", b"y") + b"z", "1 bytes follow the 2 elements"),
        (elements(b"x", b"y", b"z"), "5 bytes follow the 2 elements"),
    ],
)
def test_bytes_data_must_match_its_announced_elements(read: Reader, binary: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        read(encoded(2, parameters={"binary_data_size": len(binary)}), binary)


def test_binary_data_is_not_counted_as_json(read: Reader) -> None:
    commas = np.full((20, 8, 8, 3), ord(","), np.uint8)
    assert len(read(asking(uint8(commas)), commas.tobytes(), max_json_values=100)) == 20
