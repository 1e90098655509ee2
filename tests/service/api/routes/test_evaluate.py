import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from schemas.evaluation import EvaluationReport
from schemas.image import decode_image
from schemas.metrics import measure
from schemas.model_comparison import EvaluationComparison
from service.api.app import create_app
from service.settings import Device, Settings
from tests.service.conftest import Serve
from tests.support.bundles import COLOURS, SPEC, run, solid, write_bundle
from tests.support.http_requests import BROKEN, b64, form, npy, problem_of
from tests.support.zip_files import npz, zipped

ALL = list(COLOURS)
IMAGES = [solid(colour, (8 + i % 5, 9)) for i, colour in enumerate(ALL * 20)]
# Every seventh label is wrong.
LABELS = [ALL[(i + (i % 7 == 0)) % 3] for i in range(60)]


def test_json_and_form_give_the_metrics_of_the_model_file(client: TestClient, artifacts: Path) -> None:
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


@pytest.mark.anyio
@pytest.mark.parametrize("query", [b"", b"versions=1,2"])
async def test_a_small_archive_with_much_content_does_not_block_the_event_loop(artifacts: Path, query: bytes) -> None:
    write_bundle(artifacts, version=2)
    labels = np.full(10_000, "purple", "U1000")
    body = npz(images=np.zeros((len(labels), 1, 1), np.uint8), labels=labels)
    scope = {"type": "http", "method": "POST", "path": "/models/colours/evaluate", "query_string": query, "headers": []}
    messages: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        messages.append(message)

    app, turns = create_app(Settings(artifacts=artifacts, device=Device.CPU, versions="all")), 0
    async with app.router.lifespan_context(app):
        answering = asyncio.create_task(app(scope, receive, send))
        while not answering.done():
            await asyncio.sleep(0)
            turns += 1
        await answering
    assert messages[0]["status"] == 422
    assert b"'purple', is not one of the model's labels" in messages[1]["body"]
    assert turns > 10  # a few without another thread


@pytest.mark.parametrize("path", ["/evaluate", "/models/colours/evaluate", "/models/colours/versions/1/evaluate"])
def test_every_form_of_the_path_answers(client: TestClient, path: str) -> None:
    response = client.post(path, json={"instances": [b64(solid("blue"))], "labels": [2]})
    assert (response.json()["accuracy"], response.json()["version"]) == (1.0, 1)


def test_an_unknown_model_is_404(client: TestClient) -> None:
    problem_of(client.post("/models/dogs/evaluate", json={}), 404, "model_not_found")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["red", "purple"], "Label 1, 'purple', is not one of the model's labels: red, green, blue."),
        (["red"], "There are 2 images and 1 labels; send one label per image."),
        ([0, 7], "Label 1 is the class index 7; the model has the classes 0 to 2."),
        ([], "There are 2 images and 0 labels"),
    ],
)
def test_invalid_labels_are_422(client: TestClient, labels: list[Any], message: str) -> None:
    body = {"instances": [b64(solid("red"))] * 2, "labels": labels}
    assert problem_of(client.post("/evaluate", json=body), 422, "invalid_request").detail.startswith(message)


def test_a_wrong_label_of_a_form_is_named_by_its_position(client: TestClient) -> None:
    response = client.post("/evaluate", files=form(solid("red")), data={"labels": "purple"})
    assert problem_of(response, 422, "invalid_request").detail.startswith("Label 0, 'purple', is not")


def test_a_mistake_on_a_forms_file_has_its_name(client: TestClient) -> None:
    report = client.post("/evaluate", files=form(solid("red"), solid("blue")), data={"labels": ["red", "red"]}).json()
    assert [(mistake["index"], mistake["name"]) for mistake in report["worst_mistakes"]] == [(1, "1.png")]


def test_a_form_without_labels_is_422(client: TestClient) -> None:
    problem = problem_of(client.post("/evaluate", files=form(solid("red"))), 422, "invalid_request")
    assert "1 images and 0 labels" in problem.detail


def test_an_invalid_image_fails_the_request_or_is_excluded(client: TestClient) -> None:
    body = {"instances": [b64(solid("red")), b64(BROKEN)], "labels": ["red", "red"]}
    assert problem_of(client.post("/evaluate", json=body), 422, "invalid_image").errors[0].index == 1
    report = client.post("/evaluate?on_error=item", json=body).json()
    assert (report["n"], report["accuracy"], report["errors"][0]["index"]) == (1, 1.0, 1)


def archive(data: bytes) -> dict[str, Any]:
    return {"files": {"archive": ("images.zip", data, "application/zip")}}


def raw(data: bytes, media_type: str) -> dict[str, Any]:
    return {"content": data, "headers": {"content-type": media_type}}


def folders() -> bytes:
    return zipped({f"set/{label}/{i}.png": image for i, (label, image) in enumerate(zip(LABELS, IMAGES, strict=True))})


def arrays() -> bytes:
    return npz(images=np.stack([decode_image(image, SPEC) for image in IMAGES]), labels=np.array(LABELS))


def test_every_body_format_gives_the_same_report(client: TestClient) -> None:
    expected = client.post("/evaluate", files=form(*IMAGES), data={"labels": LABELS}).json()
    assert len(expected["worst_mistakes"]) == 9
    for request in (
        archive(folders()),
        archive(arrays()),
        raw(folders(), "application/zip"),
        raw(folders(), "application/x-zip-compressed"),
        raw(arrays(), "application/x-npz"),
        raw(arrays(), "application/zip"),
    ):
        response = client.post("/evaluate", **request)
        assert response.status_code == 200, response.text
        found = response.json()
        for mistake in found["worst_mistakes"] + expected["worst_mistakes"]:
            mistake.pop("name", None)
        assert found == expected


def test_a_hostile_archive_is_422_and_other_data_400(client: TestClient) -> None:
    escaping = zipped({"../red/1.png": IMAGES[0]})
    for request in (archive(escaping), raw(escaping, "application/zip")):
        problem = problem_of(client.post("/evaluate", **request), 422, "invalid_request")
        assert "leads out of the archive" in problem.detail
    for request in (archive(b"no zip"), raw(b"no zip", "application/x-npz")):
        problem_of(client.post("/evaluate", **request), 400, "invalid_request")


def test_a_setting_limits_the_unpacked_size_of_an_archive(serve: Serve) -> None:
    client = serve(max_archive_bytes=1000, max_images=60)
    problem = problem_of(client.post("/evaluate", **archive(folders())), 422, "invalid_request")
    assert "more than the 1,000 allowed" in problem.detail
    one_more = zipped({f"red/{i}.png": b"" for i in range(61)})
    problem_of(client.post("/evaluate", **archive(one_more)), 413, "too_many_images")


def test_the_body_limit_applies_to_each_image_of_an_archive(serve: Serve) -> None:
    client = serve(max_body_bytes=10_000)
    problem = problem_of(
        client.post("/evaluate", **archive(zipped({"red/1.png": bytes(10_001)}))), 422, "invalid_request"
    )
    assert "unpacks to 10,001 bytes; at most 10,000" in problem.detail


def test_an_invalid_image_in_an_archive_is_named_by_its_file(client: TestClient) -> None:
    data = archive(zipped({"red/1.png": solid("red"), "red/2.png": BROKEN}))
    problem = problem_of(client.post("/evaluate", **data), 422, "invalid_image")
    assert (problem.errors[0].index, problem.errors[0].reason[:11]) == (1, "red/2.png: ")
    report = client.post("/evaluate?on_error=item", **data).json()
    assert (report["n"], report["errors"][0]["index"]) == (1, 1)
    assert report["errors"][0]["reason"].startswith("red/2.png: ")


@pytest.mark.parametrize(
    ("files", "data"),
    [([("archive", ("a.zip", b""))], {"labels": "red"}), ([("archive", ("a.zip", b"")), *form(b"")], None)],
)
def test_an_archive_excludes_files_and_labels(client: TestClient, files: Any, data: dict[str, str] | None) -> None:
    problem = problem_of(client.post("/evaluate", files=files, data=data), 422, "invalid_request")
    assert problem.detail.startswith("Send either the archive")


def test_archives_are_for_evaluate_only(client: TestClient) -> None:
    problem_of(client.post("/predict", **raw(folders(), "application/zip")), 415, "unsupported_media_type")
    problem = problem_of(client.post("/predict", **archive(folders())), 422, "invalid_request")
    assert problem.detail.startswith("Unknown field 'archive'")


@pytest.fixture
def two(tmp_path: Path, serve: Serve) -> TestClient:
    """colours 2, which is correct, and colours 3, with inverted logits: it predicts blue for red."""
    root = tmp_path / "two"
    write_bundle(root, version=2)
    write_bundle(root, version=3, scale=-20.0)
    return serve(artifacts=root, versions="all")


def test_comparing_a_version_that_does_not_serve_is_404_with_advice(artifacts: Path, serve: Serve) -> None:
    write_bundle(artifacts, version=2)
    response = serve().post("/models/colours/evaluate?versions=1,2", files=form(IMAGES[0]))
    assert "CONVOY_VERSIONS=all serves every version" in problem_of(response, 404, "model_not_found").detail


@pytest.mark.parametrize("path", ["/evaluate", "/models/colours/evaluate"])
def test_two_versions_are_evaluated_and_compared_in_one_request(two: TestClient, path: str) -> None:
    images, labels = IMAGES[:30], (ALL * 10)
    response = two.post(f"{path}?versions=2,3", files=form(*images), data={"labels": labels})
    assert response.status_code == 200, response.text
    found = EvaluationComparison.model_validate_json(response.content)
    assert (found.a.version, found.a.accuracy) == (2, 1)
    assert (found.b.version, found.b.accuracy) == (3, 0)
    assert found.comparison.only_a_right == found.comparison.n == 30
    assert found.comparison.verdict.startswith("colours version 2 is better than colours version 3 by more than chance")
    alone = two.post("/models/colours/versions/3/evaluate", files=form(*images), data={"labels": labels})
    assert EvaluationReport.model_validate_json(alone.content) == found.b


@pytest.mark.parametrize("versions", ["2", "2,3,4", "2,two", "0,1", "", "2,2", "2, 3", "9" * 30 + ",1"])
def test_versions_are_two_different_numbers(two: TestClient, versions: str) -> None:
    response = two.post("/models/colours/evaluate", params={"versions": versions}, files=form(IMAGES[0]))
    detail = problem_of(response, 422, "invalid_request").detail
    assert "name two versions to compare" in detail
    assert "match" not in detail  # a pattern


def test_a_version_that_does_not_serve_is_404(two: TestClient) -> None:
    problem_of(two.post("/models/colours/evaluate?versions=2,7", files=form(IMAGES[0])), 404, "model_not_found")


def test_a_version_in_the_path_is_not_compared(two: TestClient) -> None:
    path = "/models/colours/versions/2/evaluate?versions=2,3"
    problem_of(two.post(path, files=form(IMAGES[0])), 422, "invalid_request")


def test_body_formats_without_labels_are_415(client: TestClient) -> None:
    for content_type in ("image/png", "application/x-npy"):
        body = npy(np.zeros((1, 8, 8), np.uint8))
        response = client.post("/evaluate", content=body, headers={"content-type": content_type})
        problem_of(response, 415, "unsupported_media_type")


def test_evaluate_has_no_top_k(client: TestClient) -> None:
    problem_of(client.post("/evaluate?top_k=1", json={}), 422, "invalid_request")
