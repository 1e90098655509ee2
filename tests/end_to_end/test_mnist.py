"""Trains one epoch on the real MNIST, then posts 1,000 test images to the service."""

import base64
from pathlib import Path

import httpx
import numpy as np
import pytest

from schemas.bundle import open_bundle
from schemas.evaluation import EvaluationReport, Metrics
from schemas.image import encode_png
from schemas.metrics import measure
from tests.support.service_process import serving_bundles
from tests.support.trainer_process import train
from trainer.data.dataset import LabelledImages
from trainer.data.torchvision_datasets import MNIST_SET, PublishedSource
from trainer.evaluation.onnx_session import OnnxModel

pytestmark = pytest.mark.slow

IMAGES = 1000


@pytest.fixture(scope="module")
def bundle(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    artifacts = tmp_path_factory.mktemp("artifacts")
    train("mnist", "--data", real_data, "--epochs", "1", artifacts=artifacts)
    return artifacts / "mnist" / "1"


@pytest.fixture(scope="module")
def images(real_data: Path) -> LabelledImages:
    test = PublishedSource(MNIST_SET, real_data).load().test
    assert test is not None
    return test.take(np.random.default_rng(0).permutation(len(test))[:IMAGES])


@pytest.fixture(scope="module")
def expected(bundle: Path, images: LabelledImages) -> Metrics:
    """The metrics that the trainer computes for these images with ONNX Runtime on the same variant."""
    opened = open_bundle(bundle)
    model = OnnxModel(opened.read(opened.manifest.fp32))
    return measure(images.labels, model.probabilities(images.images), opened.manifest.labels)


@pytest.mark.parametrize("kind", ["multipart", "json"])
def test_evaluate_reports_exactly_what_the_trainer_measures(
    bundle: Path, images: LabelledImages, expected: Metrics, kind: str
) -> None:
    encoded = [encode_png(image) for image in images.images]
    labels = [str(label) for label in images.labels]
    with serving_bundles(bundle.parent.parent) as service, service.client() as client:
        if kind == "multipart":
            files = [("files", (f"{i}.png", data)) for i, data in enumerate(encoded)]
            answer = client.post("/evaluate", files=files, data={"labels": labels})
        else:
            instances = [{"b64": base64.b64encode(data).decode()} for data in encoded]
            answer = client.post("/evaluate", json={"instances": instances, "labels": labels})
    report = _report(answer)
    assert report.n == IMAGES
    assert report.accuracy == expected.accuracy
    assert report.confusion_matrix == expected.confusion_matrix
    assert report.macro == expected.macro
    assert report.log_loss == pytest.approx(expected.log_loss, rel=1e-5)


def test_one_epoch_is_better_than_the_published_98_percent_of_20(bundle: Path) -> None:
    assert open_bundle(bundle).manifest.metrics.test.accuracy > 0.98


def _report(answer: httpx.Response) -> EvaluationReport:
    assert answer.status_code == 200, answer.text
    return EvaluationReport.model_validate_json(answer.content)
