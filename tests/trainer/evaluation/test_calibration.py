import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from schemas.bundle import Bundle, FloatArray, open_bundle
from schemas.manifest import InputSpec
from schemas.metrics import Labels, calibration
from tests.support import colour_images
from tests.support.training import train_bundle
from trainer.data.split import split
from trainer.evaluation.calibration import HIGHEST, LOWEST, fit_temperature
from trainer.evaluation.onnx_session import OnnxModel
from trainer.export.onnx import export
from trainer.models.build import build
from trainer.models.layers import OneNeuron, Shape
from trainer.network_config import PlainConfig
from trainer.recipe import Recipe

SPEC = InputSpec(height=8, width=8, channels=3)


def drawn(count: int, overconfident: float, seed: int = 0) -> tuple[FloatArray, Labels]:
    """Returns labels drawn from softmax(logits), and logits that are too large for them by a factor."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, 5))
    labels = np.array([rng.choice(5, p=row) for row in softmax(logits, axis=1)])
    return (logits * overconfident).astype(np.float32), labels


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_the_temperature_corrects_over_and_underconfidence(factor: float) -> None:
    assert fit_temperature(*drawn(20_000, factor)) == pytest.approx(factor, rel=0.05)


def test_a_split_without_a_mistake_does_not_lead_to_infinite_confidence() -> None:
    labels = np.arange(300) % 3
    logits = (np.eye(3)[labels] * 4).astype(np.float32)
    temperature = fit_temperature(logits, labels)
    assert temperature > 2 * LOWEST
    # Platt's target for the true class is reached exactly, for the images are all alike.
    assert softmax(logits / temperature, axis=1).max(axis=1) == pytest.approx(301 / 302, abs=1e-5)


def test_the_temperature_stays_1_if_another_would_increase_the_calibration_error() -> None:
    kept = 0
    for seed in range(20):
        logits, labels = drawn(60, 1.0, seed)
        temperature = fit_temperature(logits, labels)
        before, after = (
            calibration(labels, softmax(logits / t, axis=1)).expected_calibration_error for t in (1.0, temperature)
        )
        assert after <= before + 1e-9
        kept += temperature == 1.0
    assert 0 < kept < 20


def test_a_split_of_only_mistakes_keeps_the_temperature_within_bounds() -> None:
    labels = np.arange(300) % 3
    logits = (np.eye(3)[labels] * -4).astype(np.float32)
    assert fit_temperature(logits, labels) <= HIGHEST


@pytest.mark.parametrize("sigmoid", [False, True])
def test_the_temperature_changes_the_probabilities_and_not_the_logits(sigmoid: bool) -> None:
    torch.manual_seed(0)
    body = build(PlainConfig(widths=(4,), dense=8), Shape(height=8, width=8, channels=3, classes=1 if sigmoid else 3))
    network = nn.Sequential(body, *([OneNeuron()] if sigmoid else [])).eval()
    images = np.random.default_rng(0).integers(0, 256, (20, *SPEC.shape), np.uint8)
    plain = OnnxModel(export(network, SPEC))
    scaled = OnnxModel(export(network, SPEC, temperature=0.3))
    probabilities, logits = scaled.run(images)
    assert np.array_equal(logits, plain.run(images)[1])
    assert probabilities == pytest.approx(softmax(logits / 0.3, axis=1), abs=1e-6)
    assert abs(probabilities - plain.run(images)[0]).max() > 0.01
    if sigmoid:
        assert (logits[:, 0] == 0).all()


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return colour_images.recipe(seed=3, label_smoothing=0.3, test_views="mirror")


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return train_bundle(recipe, tmp_path_factory.mktemp("artifacts"), colour_images.source(300))


def test_the_manifest_has_the_calibration_errors_of_the_file_on_each_split(trained: Bundle, recipe: Recipe) -> None:
    scaling = trained.manifest.calibration
    assert scaling is not None
    splits = split(colour_images.source(300).load(), recipe.data)
    model = OnnxModel(open_bundle(trained.path).read(trained.manifest.fp32))
    for part, errors, metrics in (
        (splits.validation, scaling.validation, trained.manifest.metrics.validation),
        (splits.test, scaling.test, trained.manifest.metrics.test),
    ):
        probabilities, logits = model.answers(part.images)
        before, after = (calibration(part.labels, p) for p in (softmax(logits, axis=1), probabilities))
        assert errors.before == pytest.approx(before.expected_calibration_error)
        assert errors.after == after.expected_calibration_error
        assert metrics.calibration == after
    assert scaling.validation.after < scaling.validation.before


def test_the_temperature_is_fitted_to_the_deployed_network_on_validation(trained: Bundle, recipe: Recipe) -> None:
    """With its test-time views, which are served."""
    scaling = trained.manifest.calibration
    assert scaling is not None
    validation = split(colour_images.source(300).load(), recipe.data).validation
    logits = OnnxModel(open_bundle(trained.path).read(trained.manifest.fp32)).logits(validation.images)
    assert scaling.temperature == pytest.approx(fit_temperature(logits, validation.labels), rel=1e-3)
    card = (trained.path / "README.md").read_text(encoding="utf-8")
    assert f"by a temperature of {scaling.temperature:.3f}, fitted on" in card
    assert f"{scaling.test.before:.4f} before, {scaling.test.after:.4f} after" in card
