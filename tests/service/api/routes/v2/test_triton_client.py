"""Triton's own client against a real server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import http
from tritonclient.utils import InferenceServerException

from schemas.image import Pixels
from service.api.app import create_app
from service.settings import Device, Settings
from service.telemetry.counters import Report
from service.telemetry.metrics import Telemetry
from service.telemetry.timings import Timings
from tests.support.asgi_server import listening
from tests.support.bundles import COLOURS, solid, write_bundle
from tests.support.inference_protocol import pixels
from tests.support.model_controls import RecordingControl

ALL = list(COLOURS)


@pytest.fixture(scope="module")
def control() -> RecordingControl:
    return RecordingControl()


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, control: RecordingControl
) -> Iterator["http.InferenceServerClient"]:
    artifacts = tmp_path_factory.mktemp("artifacts")
    write_bundle(artifacts)
    app = create_app(Settings(artifacts=artifacts, device=Device.CPU))
    app.state.control = control
    with listening(app) as address, http.InferenceServerClient(address.netloc, concurrency=4) as triton:
        yield triton


def tensor(images: Pixels, *, binary: bool = True) -> "http.InferInput":
    made = http.InferInput("images", list(images.shape), "UINT8")
    return made.set_data_from_numpy(images, binary_data=binary)


def encoded(*images: bytes) -> "http.InferInput":
    made = http.InferInput("images", [len(images)], "BYTES")
    return made.set_data_from_numpy(np.array(images, dtype=object))


def colours_of(answer: Any) -> list[str]:
    probabilities = answer.as_numpy("probabilities")
    assert probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(axis=1), 1)
    return [ALL[index] for index in probabilities.argmax(axis=1)]


def test_the_server_is_live_and_ready_and_has_metadata(client: "http.InferenceServerClient") -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata["name"] == "convoy"
    assert {"binary_tensor_data", "classification", "statistics"} <= set(metadata["extensions"])


def test_a_model_is_ready_by_name_and_by_version(client: "http.InferenceServerClient") -> None:
    assert client.is_model_ready("colours")
    assert client.is_model_ready("colours", "1")
    assert not client.is_model_ready("colours", "2")
    assert not client.is_model_ready("dogs")


def test_metadata_names_inputs_and_outputs(client: "http.InferenceServerClient") -> None:
    metadata = client.get_model_metadata("colours")
    assert (metadata["name"], metadata["versions"]) == ("colours", ["1"])
    (images,) = metadata["inputs"]
    assert (images["name"], images["datatype"], images["shape"]) == ("images", "UINT8", [-1, 8, 8, 3])
    assert images["parameters"]["alternative_datatype"] == "BYTES"
    (probabilities,) = metadata["outputs"]
    assert (probabilities["name"], probabilities["datatype"]) == ("probabilities", "FP32")
    assert probabilities["shape"] == [-1, 3]
    assert client.get_model_metadata("colours", "1") == metadata


def test_the_configuration_has_tritons_fields(client: "http.InferenceServerClient") -> None:
    config = client.get_model_config("colours")
    assert (config["name"], config["platform"], config["max_batch_size"]) == ("colours", "onnxruntime_onnx", 10_000)
    assert (config["input"][0]["data_type"], config["input"][0]["dims"]) == ("TYPE_UINT8", [8, 8, 3])
    assert (config["output"][0]["data_type"], config["output"][0]["dims"]) == ("TYPE_FP32", [3])
    assert client.get_model_config("colours", "1") == config


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_uint8_tensors_are_answered(client: "http.InferenceServerClient", binary_in: bool, binary_out: bool) -> None:
    outputs = [http.InferRequestedOutput("probabilities", binary_data=binary_out)]
    answer = client.infer("colours", [tensor(pixels(*ALL), binary=binary_in)], outputs=outputs, request_id="42")
    assert colours_of(answer) == ALL
    response = answer.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == ("colours", "1", "42")
    assert ("data" in response["outputs"][0]) is not binary_out


def test_without_requested_outputs_all_are_returned_and_a_version_may_be_named(
    client: "http.InferenceServerClient",
) -> None:
    assert colours_of(client.infer("colours", [tensor(pixels("green"))], model_version="1")) == ["green"]


def test_encoded_images_are_resized(client: "http.InferenceServerClient") -> None:
    images = [solid("red"), solid("green", (40, 30), "JPEG"), solid("blue", (3, 99), "WEBP")]
    assert colours_of(client.infer("colours", [encoded(*images)])) == ALL


def test_encoded_images_of_any_number_are_answered(client: "http.InferenceServerClient") -> None:
    assert colours_of(client.infer("colours", [encoded(*[solid("blue")] * 50)])) == ["blue"] * 50


def test_concurrent_requests_get_their_own_answers(client: "http.InferenceServerClient") -> None:
    asked = [ALL[i % 3] for i in range(24)]
    requests = [client.async_infer("colours", [tensor(pixels(colour))], request_id=colour) for colour in asked]
    answers = [request.get_result() for request in requests]
    assert [colours_of(answer) for answer in answers] == [[colour] for colour in asked]
    assert [answer.get_response()["id"] for answer in answers] == asked


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_compressed_requests_and_responses_are_read(
    client: "http.InferenceServerClient", algorithm: str, binary: bool
) -> None:
    answer = client.infer(
        "colours",
        [tensor(pixels(*ALL * 100), binary=binary)],
        outputs=[http.InferRequestedOutput("probabilities", binary_data=binary)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert colours_of(answer) == ALL * 100


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_classification_names_the_highest(client: "http.InferenceServerClient", binary: bool, count: int) -> None:
    outputs = [http.InferRequestedOutput("probabilities", binary_data=binary, class_count=count)]
    answer = client.infer("colours", [tensor(pixels("blue", "red"))], outputs=outputs)
    classes = answer.as_numpy("probabilities")
    assert classes.shape == (2, min(count, 3))
    texts = [element.decode() if binary else element for element in classes[:, 0]]
    assert [text.split(":")[1:] for text in texts] == [["2", "blue"], ["0", "red"]]
    values = client.infer("colours", [tensor(pixels("blue", "red"))]).as_numpy("probabilities")
    assert [np.float32(text.split(":")[0]) for text in texts] == list(values.max(axis=1))


@pytest.mark.parametrize(
    ("model", "version", "status", "sentence"),
    [
        ("dogs", "", "404", "Unknown model 'dogs'"),
        ("colours", "2", "404", "version 2"),
        ("colours", "x", "400", "version"),
    ],
)
def test_an_unknown_model_or_version_raises_the_clients_error(
    client: "http.InferenceServerClient", model: str, version: str, status: str, sentence: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor(pixels("red"))], model_version=version)
    assert caught.value.status() == status
    assert sentence in caught.value.message()


def test_a_tensor_of_another_shape_is_refused_not_resized(client: "http.InferenceServerClient") -> None:
    with pytest.raises(InferenceServerException, match=r"\[images, 8, 8, 3\]"):
        client.infer("colours", [tensor(np.zeros((1, 9, 9, 3), np.uint8))])


def test_an_image_that_cannot_be_decoded_is_named(client: "http.InferenceServerClient") -> None:
    with pytest.raises(InferenceServerException, match=r"Image 1 of 2 \(counted from 0\) cannot be used") as caught:
        client.infer("colours", [encoded(solid("red"), b"this is no image")])
    assert caught.value.status() == "400"


def test_a_timeout_is_in_microseconds(client: "http.InferenceServerClient") -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("colours", [tensor(pixels("red"))], timeout=1)
    assert caught.value.status() == "504"
    assert colours_of(client.infer("colours", [tensor(pixels("red"))], timeout=20_000_000)) == ["red"]


def test_an_unsupported_extension_is_501(client: "http.InferenceServerClient") -> None:
    shared = http.InferInput("images", [1, 8, 8, 3], "UINT8")
    shared.set_shared_memory("region", 192)
    with pytest.raises(InferenceServerException, match="belongs to an extension that is not implemented") as caught:
        client.infer("colours", [shared])
    assert caught.value.status() == "501"
    with pytest.raises(InferenceServerException) as caught:
        client.infer("colours", [tensor(pixels("red"))], sequence_id=3)
    assert caught.value.status() == "501"


def test_the_repository_is_listed_loaded_and_unloaded(
    client: "http.InferenceServerClient", control: RecordingControl
) -> None:
    assert client.get_model_repository_index() == [{"name": "colours", "version": "1", "state": "READY", "reason": ""}]
    control.calls.clear()
    client.load_model("colours")
    client.unload_model("colours", unload_dependents=True)
    assert control.calls == [("load", "colours", None), ("unload", "colours")]
    with pytest.raises(InferenceServerException) as caught:
        client.load_model("dogs")
    assert caught.value.status() == "404"


def test_a_load_with_configuration_or_files_is_refused(
    client: "http.InferenceServerClient", control: RecordingControl
) -> None:
    control.calls.clear()
    for brought in ({"config": "{}"}, {"config": "{}", "files": {"file:1/model.onnx": b"x"}}):
        with pytest.raises(InferenceServerException) as caught:
            client.load_model("colours", **brought)
        assert caught.value.status() == "400"
    assert control.calls == []


def test_statistics_are_the_totals_of_the_versions_that_serve(artifacts: Path) -> None:
    telemetry = Telemetry("CPU")
    for name in ("colours", "gone"):
        model = telemetry.model(name, 1)
        model.batch(3, Timings(decode=5e-9, inference=10e-9, output=2e-9))
        with model.request(Timings()):
            pass
    counted = telemetry.take()

    async def totals() -> Report:
        return counted

    app = create_app(Settings(artifacts=artifacts, device=Device.CPU), telemetry=Telemetry("CPU", gather=totals))
    with listening(app) as address, http.InferenceServerClient(address.netloc) as client:
        check_statistics(client)


def check_statistics(client: "http.InferenceServerClient") -> None:
    everything = client.get_inference_statistics()["model_stats"]
    assert [one["name"] for one in everything] == ["colours"]
    (one,) = client.get_inference_statistics("colours")["model_stats"]
    assert (one["version"], one["inference_count"], one["execution_count"]) == ("1", 3, 1)
    assert one["inference_stats"]["success"]["count"] == 1
    assert one["batch_stats"] == [
        {
            "batch_size": 3,
            "compute_input": {"count": 1, "ns": 5},
            "compute_infer": {"count": 1, "ns": 10},
            "compute_output": {"count": 1, "ns": 2},
        }
    ]
    assert set(one["inference_stats"]) == {
        *("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    }
    assert client.get_inference_statistics("colours", "1")["model_stats"] == [one]
    with pytest.raises(InferenceServerException) as caught:
        client.get_inference_statistics("dogs")
    assert caught.value.status() == "404"
