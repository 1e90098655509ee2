import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from schemas.bundle import hash_file
from schemas.image import Pixels, encode_png
from service.backends.onnx import OnnxRuntime, OnnxSession
from service.settings import Device
from tests.service.conftest import Serve
from tests.support.altered_bundles import change_manifest, flip_byte
from tests.support.bundles import COLOURS, maps, solid, write_bundle
from tests.support.http_requests import b64, form, problem_of

NO_IMAGE = {"b64": base64.b64encode(b"no image").decode()}


def noisy(colour: str) -> Pixels:
    """An image that is mostly of one colour and different at each position."""
    noise = np.random.default_rng(len(colour)).integers(0, 100, (8, 8, 3), dtype=np.uint8)
    noise[:, :, list(COLOURS).index(colour)] += 150
    return noise


RED, BLUE = noisy("red").tolist(), noisy("blue").tolist()


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "artifacts", with_maps=True)
    return tmp_path / "artifacts"


class CountingRuntime(OnnxRuntime):
    """Counts the sessions that it opens."""

    def __init__(self) -> None:
        super().__init__(Device.CPU, threads=1, spin=False)
        self.opened: list[bytes] = []

    def open(self, model: bytes) -> OnnxSession:
        self.opened.append(model)
        return super().open(model)


def predictions(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["predictions"]
    return found


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.post("/predict?explain=true", json={"instances": [RED]}),
        lambda client: client.post("/predict", json={"instances": [RED], "explain": True}),
        lambda client: client.post("/predict?explain=true", json={"instances": [RED], "explain": True}),
        lambda client: client.post("/models/colours/versions/1/predict?explain=true", json={"instances": [RED]}),
        lambda client: client.post("/v1/models/colours:predict?explain=true", json={"instances": [RED]}),
        lambda client: client.post("/predict", files=form(encode_png(noisy("red"))), data={"explain": "true"}),
    ],
    ids=["query", "JSON", "both", "version", "v1", "form"],
)
def test_a_prediction_has_the_map_of_its_class(client: TestClient, ask: Callable[[TestClient], Any]) -> None:
    (prediction,) = predictions(ask(client))
    explanation = prediction["explanation"]
    assert (explanation["label"], explanation["index"]) == ("red", 0)
    assert (explanation["height"], explanation["width"]) == (8, 8)
    expected = maps(noisy("red")[None], np.array([[1, 0, 0]], np.float32))[0]
    np.testing.assert_allclose(explanation["map"], expected, rtol=1e-5)


def test_the_overlay_is_a_png_of_the_enlarged_image_with_the_map_over_it(client: TestClient) -> None:
    half = np.zeros((8, 8, 3), np.uint8)
    half[:, :4, 0] = 255  # the evidence for red is on the left
    (prediction,) = predictions(client.post("/predict?explain=true", json={"instances": [half.tolist()]}))
    picture = Image.open(io.BytesIO(base64.b64decode(prediction["explanation"]["overlay_png"])))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (224, 224))
    pixels = np.asarray(picture)
    assert np.array_equal(pixels[:, -20:], np.zeros((224, 20, 3), np.uint8))
    assert (pixels[:, :20] != [255, 0, 0]).any(axis=2).all()


def test_without_explain_an_answer_has_no_explanation_and_no_session_for_maps_is_open(serve: Serve) -> None:
    runtime = CountingRuntime()
    client = serve(runtime)
    at_load = len(runtime.opened)
    for options in ({}, {"explain": False}):
        (prediction,) = predictions(client.post("/predict", json={"instances": [RED], **options}))
        assert "explanation" not in prediction
    assert len(runtime.opened) == at_load
    for _ in range(2):
        predictions(client.post("/predict?explain=true", json={"instances": [RED]}))
    assert len(runtime.opened) == at_load + 1


def test_explaining_changes_no_other_field(client: TestClient) -> None:
    body = {"instances": [RED, BLUE], "top_k": 2}
    explained = predictions(client.post("/predict?explain=true", json=body))
    for prediction in explained:
        del prediction["explanation"]
    assert explained == predictions(client.post("/predict", json=body))


def test_an_image_that_cannot_be_decoded_has_no_explanation_and_costs_no_other(client: TestClient) -> None:
    body = {"instances": [RED, NO_IMAGE, BLUE], "on_error": "item", "explain": True}
    red, broken, blue = predictions(client.post("/predict", json=body))
    assert set(broken) == {"error"}
    assert [each["explanation"]["label"] for each in (red, blue)] == ["red", "blue"]
    expected = maps(noisy("blue")[None], np.array([[0, 0, 1]], np.float32))[0]
    np.testing.assert_allclose(blue["explanation"]["map"], expected, rtol=1e-5)


def test_images_beyond_one_batch_each_have_their_own_map(serve: Serve) -> None:
    client = serve(max_batch=2)
    shades = [np.full((8, 8, 3), [200, i, 0], np.uint8).tolist() for i in range(5)]
    shades[3] = BLUE
    explained = predictions(client.post("/predict?explain=true", json={"instances": shades}))
    assert [each["explanation"]["label"] for each in explained] == ["red"] * 3 + ["blue", "red"]
    assert explained[4]["explanation"]["map"][0][0] == pytest.approx(200 * 20 / 255)


def test_more_images_than_the_limit_are_422(serve: Serve) -> None:
    client = serve(max_explained=1)
    predictions(client.post("/predict?explain=true", json={"instances": [RED]}))
    response = client.post("/predict?explain=true", json={"instances": [RED, RED]})
    assert "CONVOY_MAX_EXPLAINED" in problem_of(response, 422, "invalid_request").detail
    assert len(predictions(client.post("/predict", json={"instances": [RED, RED]}))) == 2


def test_an_option_that_differs_between_query_and_body_is_422(client: TestClient) -> None:
    response = client.post("/predict?explain=false", json={"instances": [RED], "explain": True})
    assert "explain is false in the query and true in the body" in problem_of(response, 422, "invalid_request").detail


def test_evaluate_does_not_know_the_option(client: TestClient) -> None:
    problem_of(client.post("/evaluate?explain=true", json={"instances": [RED], "labels": [0]}), 422, "invalid_request")


@pytest.mark.parametrize(
    ("explanation", "reason"),
    [
        (None, "an earlier release"),
        ({"reason": "The network does not end in global pooling and one linear layer."}, "one linear layer"),
    ],
    ids=["bundle of an earlier release", "another network"],
)
def test_a_model_without_maps_serves_and_says_why_it_has_none(
    tmp_path: Path, serve: Serve, explanation: dict[str, str] | None, reason: str
) -> None:
    bundle = write_bundle(tmp_path / "others")
    change_manifest(bundle, lambda manifest: manifest.update(explanation=explanation))
    client = serve(artifacts=tmp_path / "others")
    assert predictions(client.post("/predict", json={"instances": [RED]}))[0]["label"] == "red"
    problem = problem_of(client.post("/predict?explain=true", json={"instances": [RED]}), 422, "invalid_request")
    assert problem.detail.startswith("colours version 1 has no class activation maps")
    assert reason in problem.detail
    shown = client.get("/models/colours").json()["explanation"]
    assert shown is None if explanation is None else shown["reason"] == explanation["reason"]


def test_the_model_shows_the_size_of_its_maps(client: TestClient) -> None:
    expected = {"height": 8, "width": 8, "pooling": "average", "reason": None}
    assert client.get("/models/colours").json()["explanation"] == expected
    assert client.get("/models").json()["models"][0]["explanation"] == expected


def test_altered_map_nodes_are_refused(artifacts: Path, serve: Serve) -> None:
    flip_byte(artifacts / "colours" / "1" / "model.cam.onnx")
    (model,) = serve().get("/models").json()["models"]
    assert model["state"] == "refused"
    assert "SHA-256 of model.cam.onnx" in model["reason"]


def test_maps_that_differ_from_the_golden_ones_are_refused(artifacts: Path, serve: Serve) -> None:
    bundle = artifacts / "colours" / "1"
    expected = bundle / "golden" / "maps.json"
    values = json.loads(expected.read_text())
    values[1][0][0] += 0.1
    expected.write_text(json.dumps(values))

    def mend(manifest: dict[str, Any]) -> None:
        manifest["golden"]["maps"] = hash_file(expected, bundle).model_dump()

    change_manifest(bundle, mend)
    (model,) = serve().get("/models").json()["models"]
    assert "Golden sample golden/1.png: the class activation map of fp32 differs" in model["reason"]


def test_files_that_vanish_after_the_load_cost_only_explanations(artifacts: Path, serve: Serve) -> None:
    client = serve(reload="off")
    (artifacts / "colours" / "1" / "model.cam.onnx").unlink()
    assert client.post("/predict?explain=true", json={"instances": [RED]}).status_code == 500
    assert predictions(client.post("/predict", json={"instances": [RED]}))[0]["label"] == "red"


def tensor(*images: Pixels) -> list[dict[str, Any]]:
    data = np.stack(images)
    return [{"name": "images", "shape": list(data.shape), "datatype": "UINT8", "data": data.ravel().tolist()}]


def test_the_inference_protocol_returns_maps_if_they_are_requested(client: TestClient) -> None:
    images = np.stack([noisy("red"), noisy("blue")])
    request = {"inputs": tensor(*images), "outputs": [{"name": "cam"}, {"name": "probabilities"}]}
    response = client.post("/v2/models/colours/infer", json=request)
    cam, probabilities = response.json()["outputs"]
    assert (cam["name"], cam["datatype"], cam["shape"]) == ("cam", "FP32", [2, 8, 8])
    assert (probabilities["name"], probabilities["shape"]) == ("probabilities", [2, 3])
    rows = np.reshape(probabilities["data"], (2, 3))
    np.testing.assert_allclose(np.reshape(cam["data"], (2, 8, 8)), maps(images, rows), rtol=1e-5)


def test_the_inference_protocol_returns_maps_as_binary_data(client: TestClient) -> None:
    outputs = [
        {"name": "probabilities", "parameters": {"binary_data": True}},
        {"name": "cam", "parameters": {"binary_data": True}},
    ]
    request = {"inputs": tensor(noisy("red")), "outputs": outputs}
    response = client.post("/v2/models/colours/infer", json=request)
    length = int(response.headers["Inference-Header-Content-Length"])
    sizes = [output["parameters"]["binary_data_size"] for output in json.loads(response.content[:length])["outputs"]]
    assert sizes == [3 * 4, 64 * 4]
    values = np.frombuffer(response.content[length + sizes[0] :], "<f4").reshape(1, 8, 8)
    np.testing.assert_allclose(values, maps(noisy("red")[None], np.array([[1, 0, 0]], np.float32)), rtol=1e-5)


def test_the_inference_protocol_returns_only_probabilities_by_default(client: TestClient) -> None:
    (output,) = client.post("/v2/models/colours/infer", json={"inputs": tensor(noisy("red"))}).json()["outputs"]
    assert output["name"] == "probabilities"


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ([{"name": "cam"}, {"name": "cam"}], "each once"),
        ([{"name": "logits"}], "each once"),
        ([{"name": "cam", "parameters": {"classification": 1}}], "remove it from 'cam'"),
    ],
)
def test_the_inference_protocol_refuses_outputs_that_it_cannot_return(
    client: TestClient, outputs: list[dict[str, Any]], reason: str
) -> None:
    response = client.post("/v2/models/colours/infer", json={"inputs": tensor(noisy("red")), "outputs": outputs})
    assert response.status_code == 400
    assert reason in response.json()["error"]


def test_the_inference_protocol_refuses_maps_of_a_model_without_them(tmp_path: Path, serve: Serve) -> None:
    write_bundle(tmp_path / "others")
    request = {"inputs": tensor(noisy("red")), "outputs": [{"name": "cam"}]}
    response = serve(artifacts=tmp_path / "others").post("/v2/models/colours/infer", json=request)
    assert response.status_code == 400
    assert "colours has one, 'probabilities'" in response.json()["error"]


def test_the_metadata_lists_the_maps(client: TestClient) -> None:
    outputs = client.get("/v2/models/colours").json()["outputs"]
    assert [(output["name"], output["shape"]) for output in outputs] == [
        ("probabilities", [-1, 3]),
        ("cam", [-1, 8, 8]),
    ]
    config = client.get("/v2/models/colours/config").json()
    assert [(output["name"], output["dims"]) for output in config["output"]] == [
        ("probabilities", [3]),
        ("cam", [8, 8]),
    ]


def test_b64_images_are_explained_like_pixels(client: TestClient) -> None:
    (prediction,) = predictions(client.post("/predict", json={"instances": [b64(solid("green"))], "explain": True}))
    assert prediction["explanation"]["map"][0][0] == pytest.approx(COLOURS["green"][1] * 20 / 255)
