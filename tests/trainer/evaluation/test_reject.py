import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from schemas.bundle import Bundle, open_bundle
from schemas.manifest import Answered
from schemas.metrics import wilson_interval
from tests.support import colour_images
from tests.support.training import train_bundle
from trainer.cli.main import parse
from trainer.cli.recipe_options import settings_of
from trainer.data.split import split
from trainer.evaluation.calibration import find_reject
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.onnx_session import OnnxModel
from trainer.recipe import OptimizerConfig, OptimizerName, Recipe


def noisy(**changes: object) -> Recipe:
    """Returns a recipe that trains so briefly that some predictions are wrong."""
    optimizer = OptimizerConfig(name=OptimizerName.ADAMW, learning_rate=0.003)
    return colour_images.recipe(seed=1, epochs=1, optimizer=optimizer, **changes)


def trained(recipe: Recipe, artifacts: Path) -> Bundle:
    return train_bundle(recipe, artifacts, colour_images.source(150))


def test_the_threshold_gives_the_coverage_and_accuracy_in_the_manifest(tmp_path: Path) -> None:
    recipe = noisy(target_accuracy=0.9)
    bundle = trained(recipe, tmp_path)
    reject = bundle.manifest.reject
    assert reject is not None
    assert reject.threshold is not None
    assert bundle.manifest.metrics.validation.accuracy < 0.9
    splits = split(colour_images.source(150).load(), recipe.data)
    model = OnnxModel(open_bundle(bundle.path).read(bundle.manifest.fp32))
    for part, measured in ((splits.validation, reject.validation), (splits.test, reject.test)):
        probabilities = model.probabilities(part.images)
        answered = probabilities.max(axis=1) >= reject.threshold
        assert measured is not None
        assert measured.coverage == answered.mean()
        right = probabilities.argmax(axis=1)[answered] == part.labels[answered]
        assert measured.accuracy == (right.mean() if len(right) else None)
    assert reject.validation is not None
    assert reject.validation.accuracy is not None
    assert reject.validation.accuracy >= 0.9
    assert (reject.validation.coverage_interval, reject.validation.accuracy_interval) == (None, None)
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    threshold = f"A confidence threshold of {reject.threshold:.4f} reaches an accuracy of 90.00%"
    assert f"{threshold} on\nthe validation" in card


def test_coverage_and_accuracy_on_the_test_split_have_intervals(tmp_path: Path) -> None:
    bundle = trained(noisy(target_accuracy=0.5), tmp_path)
    assert bundle.manifest.reject is not None
    measured = bundle.manifest.reject.test
    n = bundle.manifest.metrics.test.n
    assert measured is not None
    assert measured.accuracy is not None
    answered = round(measured.coverage * n)
    intervals = wilson_interval(answered, n), wilson_interval(round(measured.accuracy * answered), answered)
    assert (measured.coverage_interval, measured.accuracy_interval) == intervals
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    share, right = (f"95% interval {each.lower:.2%} to {each.upper:.2%}" for each in intervals)
    answers = f"with an accuracy of {measured.accuracy:.2%} ({right})."
    assert f"On the test split, {measured.coverage:.2%} ({share}) of the {n} images reach it {answers}" in card


def test_without_answers_only_coverage_has_an_interval() -> None:
    labels = np.array([0, 1])
    sure, unsure = (
        Evaluation.of(labels, given, np.log(given), "ab")
        for given in (np.array([[0.9, 0.1], [0.1, 0.9]], np.float32), np.full((2, 2), 0.5, np.float32))
    )
    reject = find_reject(1.0, sure, unsure)
    assert reject is not None
    assert reject.test == Answered(coverage=0.0, accuracy=None, coverage_interval=wilson_interval(0, 2))


def test_an_unreachable_target_has_a_reason() -> None:
    labels = np.array([0, 1, 1, 1])
    probabilities = np.array([[0.4, 0.6], [0.45, 0.55], [0.7, 0.3], [0.1, 0.9]], np.float32)
    split = Evaluation.of(labels, probabilities, np.log(probabilities), "ab")
    reached = find_reject(1.0, split, split)
    assert reached is not None
    assert reached.threshold == pytest.approx(0.9)
    assert reached.reason is None
    first_wrong = replace(split, probabilities=probabilities[:, ::-1])
    missed = find_reject(0.9, first_wrong, first_wrong)
    assert missed is not None
    assert (missed.threshold, missed.validation, missed.test) == (None, None, None)
    assert missed.reason == "no threshold reaches an accuracy of 90.00% on validation; the best is 66.67%"


def test_without_a_target_there_is_no_threshold_but_a_coverage_curve(tmp_path: Path) -> None:
    recipe = noisy()
    bundle = trained(recipe, tmp_path)
    assert bundle.manifest.reject is None
    with (bundle.path / "report" / "coverage.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["coverage"]) == 1
    assert float(rows[-1]["accuracy"]) == bundle.manifest.metrics.test.accuracy
    coverage = np.array([float(row["coverage"]) for row in rows])
    assert (np.diff(coverage) > 0).all()


def test_the_command_line_has_a_short_form() -> None:
    assert settings_of(parse(["train", "digits", "--target-accuracy", "0.99"])) == {"target_accuracy": "0.99"}


@pytest.mark.parametrize("target", [-0.1, 1.1])
def test_refuses_a_target_accuracy_outside_0_to_1(target: float) -> None:
    with pytest.raises(ValueError, match="target_accuracy"):
        colour_images.recipe(target_accuracy=target)
