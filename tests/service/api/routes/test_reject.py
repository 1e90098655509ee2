from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from schemas.bundle import MANIFEST_FILE
from schemas.manifest import Answered, DroppedVariant, Reject, VariantName, parse_manifest, render_json
from tests.service.conftest import Serve
from tests.support.bundles import solid
from tests.support.http_requests import b64, form, problem_of

THRESHOLD = 0.9
YELLOW = [[[255, 255, 0]] * 8] * 8  # half red, half green
IMAGES = [b64(solid("red")), YELLOW, b64(solid("blue"))]
REJECT = Reject(
    target_accuracy=0.99,
    threshold=THRESHOLD,
    validation=Answered(coverage=1, accuracy=1),
    test=Answered(coverage=1, accuracy=1),
)


def change_manifest(artifacts: Path, **fields: object) -> None:
    file = artifacts / "colours" / "1" / MANIFEST_FILE
    file.write_text(render_json(parse_manifest(file.read_text()).model_copy(update=fields)))


@pytest.fixture
def client(artifacts: Path, serve: Serve) -> TestClient:
    """Serves a model with a confidence threshold."""
    change_manifest(artifacts, reject=REJECT)
    return serve()


def test_a_prediction_below_the_threshold_has_a_reason_in_place_of_a_label(client: TestClient) -> None:
    red, yellow, blue = client.post("/predict?reject=true", json={"instances": IMAGES}).json()["predictions"]
    assert (red["label"], blue["label"]) == ("red", "blue")
    assert "reason" not in red
    assert (yellow["label"], yellow["index"]) == (None, None)
    assert yellow["probability"] == pytest.approx(0.5)
    assert yellow["reason"] == "The highest probability is 0.5, below the threshold of 0.9."
    assert [(entry["label"], entry["index"]) for entry in yellow["top"]] == [("red", 0), ("green", 1), ("blue", 2)]


def test_without_reject_every_prediction_has_a_label(client: TestClient) -> None:
    for options in ({}, {"reject": False}):
        predictions = client.post("/predict", json={"instances": IMAGES, **options}).json()["predictions"]
        assert [prediction["label"] for prediction in predictions] == ["red", "red", "blue"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.post("/predict?reject=true", json={"instances": [YELLOW]}),
        lambda client: client.post("/predict", json={"instances": [YELLOW], "reject": True}),
        lambda client: client.post("/predict?reject=true", json={"instances": [YELLOW], "reject": True}),
        lambda client: client.post("/models/colours/predict?reject=true", json={"instances": [YELLOW]}),
    ],
    ids=["query", "JSON", "both", "named"],
)
def test_reject_is_read_from_the_query_or_the_body(client: TestClient, ask: Callable[[TestClient], Any]) -> None:
    assert ask(client).json()["predictions"][0]["label"] is None


def test_reject_is_read_from_a_form(artifacts: Path, serve: Serve) -> None:
    change_manifest(artifacts, reject=REJECT.model_copy(update={"threshold": 1.0}))
    client = serve()
    for text, label in (("true", None), ("false", "red")):
        response = client.post("/predict", files=form(solid("red")), data={"reject": text})
        assert response.json()["predictions"][0]["label"] == label
    twice = client.post("/predict", files=form(solid("red")), data={"reject": ["true", "true"]})
    assert "more than once" in problem_of(twice, 422, "invalid_request").detail
    response = client.post("/predict", files=form(solid("red")), data={"reject": "perhaps"})
    assert "must be true or false, not 'perhaps'" in problem_of(response, 422, "invalid_request").detail


def test_a_reject_that_differs_between_query_and_body_is_422(client: TestClient) -> None:
    response = client.post("/predict?reject=false", json={"instances": [YELLOW], "reject": True})
    assert "reject is false in the query and true in the body" in problem_of(response, 422, "invalid_request").detail
    response = client.post("/predict", json={"instances": [YELLOW], "reject": 1})
    assert problem_of(response, 422, "invalid_request").detail == "reject must be true or false."


def test_a_prediction_at_the_threshold_has_a_label(artifacts: Path, serve: Serve) -> None:
    change_manifest(artifacts, reject=REJECT.model_copy(update={"threshold": 0.5}))
    (prediction,) = serve().post("/predict?reject=true", json={"instances": [YELLOW]}).json()["predictions"]
    assert prediction["label"] == "red"


def test_an_invalid_image_beside_a_rejected_one_keeps_its_error(client: TestClient) -> None:
    body = {"instances": [YELLOW, b64(b"no image")], "reject": True, "on_error": "item"}
    rejected, failed = client.post("/predict", json=body).json()["predictions"]
    assert rejected["label"] is None
    assert failed["error"]["index"] == 1


@pytest.mark.parametrize(
    ("reject", "message"),
    [
        (None, "colours version 1 has no reject threshold; send the request without reject"),
        (
            Reject(target_accuracy=1, threshold=None, reason="Nothing reaches 100%."),
            "has no reject threshold (Nothing reaches 100%); send the request without",
        ),
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/evaluate"])
def test_reject_without_a_threshold_is_422_with_advice(
    artifacts: Path, serve: Serve, path: str, reject: Reject | None, message: str
) -> None:
    change_manifest(artifacts, reject=reject)
    labels = {"labels": ["red"]} if path == "/evaluate" else {}
    response = serve().post(f"{path}?reject=true", json={"instances": [b64(solid("red"))], **labels})
    assert message in problem_of(response, 422, "invalid_request").detail


def test_evaluate_reports_coverage_and_accuracy_at_the_threshold(client: TestClient) -> None:
    body = {"instances": [*IMAGES, b64(solid("red"))], "labels": ["red", "green", "red", "red"]}
    plain = client.post("/evaluate", json=body).json()
    report = client.post("/evaluate?reject=true", json=body).json()
    assert report.pop("reject") == {"threshold": THRESHOLD, "coverage": 0.75, "accuracy": pytest.approx(2 / 3)}
    assert plain.pop("reject") is None
    assert report == plain
    assert client.post("/evaluate", json=body | {"reject": True}).json()["reject"]["coverage"] == 0.75


def test_evaluate_has_no_accuracy_if_every_image_is_rejected(client: TestClient) -> None:
    report = client.post("/evaluate?reject=true", json={"instances": [YELLOW], "labels": ["red"]}).json()
    assert report["reject"] == {"threshold": THRESHOLD, "coverage": 0, "accuracy": None}


def test_the_model_shows_its_threshold_and_dropped_variants(artifacts: Path, serve: Serve) -> None:
    dropped = (DroppedVariant(name=VariantName.INT8, reason="It was no faster."),)
    change_manifest(artifacts, reject=REJECT, dropped_variants=dropped)
    detail = serve().get("/models/colours").json()
    assert detail["reject"]["threshold"] == THRESHOLD
    assert detail["calibration"] is None
    assert detail["dropped_variants"] == [{"name": "int8", "reason": "It was no faster."}]
