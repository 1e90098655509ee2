"""Trains digits, serves it and sends requests, as `make train` and `make serve` do."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from schemas.bundle import open_bundle
from schemas.evaluation import EvaluationReport, Metrics
from schemas.image import encode_png
from schemas.manifest import ModelManifest
from tests.support.http_requests import npy
from tests.support.service_process import Service
from tests.support.trainer_process import train
from tests.support.zip_files import npz, zipped
from trainer.data.dataset import LabelledImages
from trainer.data.digits import DigitsSource
from trainer.data.split import split
from trainer.recipe import Recipe


@pytest.fixture(scope="module")
def manifest(artifacts: Path) -> ModelManifest:
    return open_bundle(artifacts / "digits" / "1").manifest


@pytest.fixture(scope="module")
def images_of_the_test_split(manifest: ModelManifest) -> LabelledImages:
    return split(DigitsSource().load(), Recipe.model_validate(manifest.provenance.recipe).data).test


@pytest.mark.slow
def test_the_default_recipe_reaches_98_percent_on_average_over_seeds(tmp_path: Path) -> None:
    """The test split is so small that each image counts half a percent, so one seed shows little."""
    accuracies = []
    for seed in range(3):
        train("digits", "--seed", str(seed), artifacts=tmp_path)
        test = open_bundle(tmp_path / "digits" / str(seed + 1)).manifest.metrics.test
        assert test.n == 179
        accuracies.append(test.accuracy)
    assert sum(accuracies) / len(accuracies) >= 0.98


def test_the_service_is_ready_and_lists_its_model(service: Service) -> None:
    with service.client() as client:
        assert client.get("/livez").status_code == 200
        ready = client.get("/readyz")
        assert ready.status_code == 200
        models = client.get("/models").json()
    assert "digits" in json.dumps(models)
    assert "CPUExecutionProvider" in json.dumps(models)


def test_golden_samples_get_the_probabilities_that_the_trainer_expected(service: Service, artifacts: Path) -> None:
    bundle = open_bundle(artifacts / "digits" / "1")
    samples = bundle.golden_samples()
    files = [("files", (Path(sample.file).name, sample.image)) for sample in samples]
    with service.client() as client:
        predictions = client.post("/predict", params={"top_k": 10}, files=files).json()["predictions"]
    assert len(predictions) == len(samples)
    for sample, prediction in zip(samples, predictions, strict=True):
        assert prediction["label"] == bundle.manifest.labels[int(sample.probabilities.argmax())]
        probabilities = {entry["index"]: entry["probability"] for entry in prediction["top"]}
        assert np.allclose([probabilities[i] for i in range(10)], sample.probabilities, atol=1e-4)


def test_evaluating_the_test_split_gives_the_metrics_of_the_manifest(
    service: Service, manifest: ModelManifest, images_of_the_test_split: LabelledImages
) -> None:
    files = [("files", (f"{i}.png", encode_png(image))) for i, image in enumerate(images_of_the_test_split.images)]
    labels = [manifest.labels[label] for label in images_of_the_test_split.labels]
    with service.client() as client:
        answer = client.post("/models/digits/evaluate", files=files, data={"labels": labels})
    assert answer.status_code == 200, answer.text
    report = EvaluationReport.model_validate_json(answer.content)
    expected = manifest.metrics.test
    for field in Metrics.model_fields.keys() - {"log_loss", "calibration", "per_class"}:
        assert getattr(report, field) == getattr(expected, field), field
    for row, trained in zip(report.per_class, expected.per_class, strict=True):
        assert trained.model_dump().items() <= row.model_dump().items()
    assert report.log_loss == pytest.approx(expected.log_loss, rel=1e-5)
    error = report.calibration.expected_calibration_error
    assert error == pytest.approx(expected.calibration.expected_calibration_error, abs=1e-5)
    assert (report.model, report.version, report.variant) == ("digits", 1, "fp32")


def test_archives_and_files_give_the_same_report(
    service: Service, manifest: ModelManifest, images_of_the_test_split: LabelledImages
) -> None:
    labels = [manifest.labels[label] for label in images_of_the_test_split.labels]
    encoded = [encode_png(image) for image in images_of_the_test_split.images]
    folders = zipped(
        {f"digits/{label}/{i}.png": png for i, (label, png) in enumerate(zip(labels, encoded, strict=True))}
    )
    with service.client() as client:
        answers = [
            client.post("/evaluate", files=[("files", ("a.png", png)) for png in encoded], data={"labels": labels}),
            client.post("/evaluate", files={"archive": ("digits.zip", folders)}),
            client.post("/evaluate", content=folders, headers={"Content-Type": "application/zip"}),
            client.post(
                "/evaluate",
                content=npz(images=images_of_the_test_split.images, labels=images_of_the_test_split.labels),
                headers={"Content-Type": "application/x-npz"},
            ),
        ]
    reports = [answer.json() for answer in answers]
    for report in reports:
        for mistake in report["worst_mistakes"]:
            mistake.pop("name")
    assert reports[0]["accuracy"] == manifest.metrics.test.accuracy
    assert all(report == reports[0] for report in reports)


def test_every_kind_of_body_gives_the_same_prediction(
    service: Service, images_of_the_test_split: LabelledImages
) -> None:
    image = images_of_the_test_split.images[0]
    png = encode_png(image)
    array = image[np.newaxis]
    with service.client() as client:
        answers = [
            client.post("/predict", files={"files": ("a.png", png)}),
            client.post("/predict", content=png, headers={"Content-Type": "image/png"}),
            client.post("/predict", json={"instances": [{"b64": base64.b64encode(png).decode()}]}),
            client.post("/predict", json={"instances": [image[:, :, 0].tolist()]}),
            client.post("/predict", content=npy(array), headers={"Content-Type": "application/x-npy"}),
        ]
    predictions = [answer.json()["predictions"] for answer in answers]
    assert all(prediction == predictions[0] for prediction in predictions)


def test_the_report_s_plots_are_served(service: Service) -> None:
    with service.client() as client:
        for name in ("curves.png", "confusion_matrix.png", "samples.png", "predictions.png", "mistakes.png"):
            answer = client.get(f"/models/digits/report/{name}")
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "image/png"
            assert answer.content.startswith(b"\x89PNG")
