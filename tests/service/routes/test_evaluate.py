from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from schemas.evaluation import EvaluationReport
from schemas.image import decode_image
from schemas.metrics import measure
from tests.bundles import COLOURS, SPEC, run, solid
from tests.service.asking import BROKEN, b64, form, npy, problem_of

ALL = list(COLOURS)
IMAGES = [solid(colour, (8 + i % 5, 9)) for i, colour in enumerate(ALL * 20)]
# Every seventh label is wrong.
LABELS = [ALL[(i + (i % 7 == 0)) % 3] for i in range(60)]


def test_json_and_form_give_the_figures_that_the_same_file_gives(client: TestClient, artifacts: Path) -> None:
    pixels = np.stack([decode_image(image, SPEC) for image in IMAGES])
    probabilities = run(artifacts / "colours" / "1" / "model.onnx", pixels)
    expected = measure(np.array([ALL.index(label) for label in LABELS]), probabilities, ALL).model_dump()
    as_json = client.post("/evaluate", json={"instances": [b64(image) for image in IMAGES], "labels": LABELS})
    as_form = client.post("/evaluate", files=form(*IMAGES), data={"labels": LABELS})
    for response in (as_json, as_form):
        report = EvaluationReport.model_validate_json(response.content)
        assert report.accuracy == expected["accuracy"] == 51 / 60
        assert report.confusion_matrix == expected["confusion_matrix"]
        assert report.log_loss == pytest.approx(expected["log_loss"], rel=1e-5)
        assert (report.n, report.variant, report.provider) == (60, "fp32", "CPUExecutionProvider")


@pytest.mark.parametrize("path", ["/evaluate", "/models/colours/evaluate", "/models/colours/versions/1/evaluate"])
def test_every_form_of_the_path_answers(client: TestClient, path: str) -> None:
    response = client.post(path, json={"instances": [b64(solid("blue"))], "labels": [2]})
    assert (response.json()["accuracy"], response.json()["version"]) == (1.0, 1)


def test_an_unknown_model_is_404(client: TestClient) -> None:
    problem_of(client.post("/models/dogs/evaluate", json={}), 404, "model_not_found")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["red", "purple"], "Label 1 is 'purple', which is none of the model's labels: red, green, blue."),
        (["red"], "There are 2 images and 1 labels; send one label an image."),
        ([0, 7], "Label 1 is the class index 7; the model's go from 0 to 2."),
        ([], "There are 2 images and 0 labels"),
    ],
)
def test_labels_that_do_not_fit_are_422(client: TestClient, labels: list[Any], said: str) -> None:
    body = {"instances": [b64(solid("red"))] * 2, "labels": labels}
    assert problem_of(client.post("/evaluate", json=body), 422, "invalid_request").detail.startswith(said)


def test_a_form_without_labels_is_422(client: TestClient) -> None:
    problem = problem_of(client.post("/evaluate", files=form(solid("red"))), 422, "invalid_request")
    assert "1 images and 0 labels" in problem.detail


def test_a_bad_image_fails_the_request_or_is_left_out(client: TestClient) -> None:
    body = {"instances": [b64(solid("red")), b64(BROKEN)], "labels": ["red", "red"]}
    assert problem_of(client.post("/evaluate", json=body), 422, "invalid_image").errors[0].index == 1
    report = client.post("/evaluate?on_error=item", json=body).json()
    assert (report["n"], report["accuracy"], report["errors"][0]["index"]) == (1, 1.0, 1)


def test_kinds_of_body_without_labels_are_415(client: TestClient) -> None:
    for content_type in ("image/png", "application/x-npy"):
        body = npy(np.zeros((1, 8, 8), np.uint8))
        response = client.post("/evaluate", content=body, headers={"content-type": content_type})
        problem_of(response, 415, "unsupported_media_type")


def test_top_k_is_no_option_of_evaluate(client: TestClient) -> None:
    problem_of(client.post("/evaluate?top_k=1", json={}), 422, "invalid_request")
