import json
from typing import Any

import numpy as np
import pytest

from schemas.bundle import FloatArray
from schemas.inference_protocol import InferRequest
from schemas.manifest import ModelManifest
from service.codecs.inference_protocol import write_infer
from tests.support.inference_protocol import pixels, uint8

PROBABILITIES = np.array([[0.1, 0.2, 0.7], [0.4, 0.4, 0.2]], np.float32)


def write(
    manifest: ModelManifest,
    output: dict[str, Any] | None = None,
    probabilities: FloatArray = PROBABILITIES,
    **more: Any,
) -> tuple[bytes, dict[str, str]]:
    outputs = [] if output is None else [{"name": "probabilities", "parameters": output}]
    request = {"inputs": [uint8(pixels("red"), [])], "outputs": outputs, **more}
    message = InferRequest.model_validate_json(json.dumps(request))
    return write_infer(message, {"probabilities": probabilities}, manifest)


def split(encoded: tuple[bytes, dict[str, str]]) -> tuple[dict[str, Any], bytes]:
    """(the only output, the binary data)."""
    body, headers = encoded
    length = int(headers["Inference-Header-Content-Length"])
    (output,) = json.loads(body[:length])["outputs"]
    return output, body[length:]


def test_json_has_every_value_row_by_row(manifest: ModelManifest) -> None:
    body, headers = write(manifest)
    assert headers == {"Content-Type": "application/json"}
    assert json.loads(body) == {
        "model_name": "colours",
        "model_version": "1",
        "outputs": [
            {
                "name": "probabilities",
                "shape": [2, 3],
                "datatype": "FP32",
                "data": PROBABILITIES.ravel().astype(float).tolist(),
            }
        ],
    }


def test_binary_data_follows_the_json_in_little_endian(manifest: ModelManifest) -> None:
    output, raw = split(write(manifest, {"binary_data": True}, PROBABILITIES.astype(">f4")))
    assert output["parameters"] == {"binary_data_size": 24}
    assert "data" not in output
    assert np.array_equal(np.frombuffer(raw, "<f4").reshape(2, 3), PROBABILITIES)


@pytest.mark.parametrize(
    ("output", "request_", "binary"),
    [
        (None, None, False),
        (None, True, True),
        ({}, True, True),
        ({"binary_data": False}, True, False),
        ({"binary_data": True}, False, True),
    ],
)
def test_the_outputs_parameters_override_the_requests(
    manifest: ModelManifest, output: dict[str, Any] | None, request_: bool | None, binary: bool
) -> None:
    more: dict[str, Any] = {} if request_ is None else {"parameters": {"binary_data_output": request_}}
    _, headers = write(manifest, output, **more)
    assert ("Inference-Header-Content-Length" in headers) is binary


def test_classes_are_the_highest_values_with_their_labels_the_lowest_index_first_among_equals(
    manifest: ModelManifest,
) -> None:
    (output,) = json.loads(write(manifest, {"classification": 2})[0])["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    assert output["data"] == ["0.7:2:blue", "0.2:1:green", "0.4:0:red", "0.4:1:green"]


def test_among_many_equals_the_lowest_index_comes_first(manifest: ModelManifest) -> None:
    many = manifest.model_copy(update={"labels": tuple(map(str, range(99)))})
    values = np.tile(np.array([0.01, 0.005, 0.02], np.float32), 33)[np.newaxis]
    (output,) = json.loads(write(many, {"classification": 33}, values)[0])["outputs"]
    assert output["data"] == [f"0.02:{index}:{index}" for index in range(2, 99, 3)]


def test_binary_classes_have_a_length_prefix(manifest: ModelManifest) -> None:
    output, raw = split(write(manifest, {"classification": 1, "binary_data": True}))
    assert raw == b"\x0a\x00\x00\x000.7:2:blue\x09\x00\x00\x000.4:0:red"
    assert output["parameters"] == {"binary_data_size": len(raw)}


def test_a_classification_count_above_the_classes_returns_all(manifest: ModelManifest) -> None:
    (output,) = json.loads(write(manifest, {"classification": 10**30})[0])["outputs"]
    assert output["shape"] == [2, 3]


@pytest.mark.parametrize("identity", ["42", "", 'ü\n"\\\u2028', "x" * 10_000])
def test_the_id_is_returned_and_never_invented(manifest: ModelManifest, identity: str) -> None:
    assert json.loads(write(manifest, id=identity)[0])["id"] == identity
    assert "id" not in json.loads(write(manifest)[0])


def test_the_json_length_counts_bytes_not_characters(manifest: ModelManifest) -> None:
    body, headers = write(manifest, {"binary_data": True}, id="üüü")
    assert json.loads(body[: int(headers["Inference-Header-Content-Length"])])["id"] == "üüü"
