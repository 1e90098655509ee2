import numpy as np
import pytest

from schemas.selective_prediction import coverage_curve

# Highest probabilities 0.9, 0.8, 0.8, 0.6, 0.5; correct, correct, wrong, correct, wrong.
PROBABILITIES = np.array([[0.1, 0.9], [0.8, 0.2], [0.8, 0.2], [0.4, 0.6], [0.5, 0.5]])
LABELS = np.array([1, 0, 1, 1, 1])


def test_images_of_equal_confidence_are_answered_together() -> None:
    curve = coverage_curve(LABELS, PROBABILITIES)
    assert curve.threshold.tolist() == [0.9, 0.8, 0.6, 0.5]
    assert curve.coverage.tolist() == pytest.approx([1 / 5, 3 / 5, 4 / 5, 1])
    assert curve.accuracy.tolist() == pytest.approx([1, 2 / 3, 3 / 4, 3 / 5])


def test_the_order_of_the_images_does_not_matter() -> None:
    order = np.array([3, 2, 4, 0, 1])
    one, other = coverage_curve(LABELS, PROBABILITIES), coverage_curve(LABELS[order], PROBABILITIES[order])
    assert one.accuracy.tolist() == other.accuracy.tolist()


@pytest.mark.parametrize(
    ("target", "threshold"),
    [(0.5, 0.5), (0.6, 0.5), (0.7, 0.6), (0.75, 0.6), (0.76, 0.9), (1.0, 0.9)],
    # The accuracy falls below 0.7 at 0.8 and reaches it again at 0.6: the lowest threshold counts.
)
def test_the_threshold_is_the_lowest_that_reaches_the_target(target: float, threshold: float) -> None:
    curve = coverage_curve(LABELS, PROBABILITIES)
    assert curve.threshold_for(target) == threshold
    _, accuracy = curve.at(threshold)
    assert accuracy is not None
    assert accuracy >= target


def test_an_unreachable_target_has_no_threshold() -> None:
    assert coverage_curve(1 - LABELS[:1], PROBABILITIES[:1]).threshold_for(0.1) is None


def test_images_at_or_above_the_threshold_are_answered() -> None:
    curve = coverage_curve(LABELS, PROBABILITIES)
    assert curve.at(0.8) == (3 / 5, 2 / 3)
    assert curve.at(0.81) == (0.2, 1)
    assert curve.at(0.0) == (1, 0.6)
    assert curve.at(0.95) == (0, None)


def test_a_float32_threshold_includes_the_image_that_set_it() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 50).astype(np.float32)
    curve = coverage_curve(probabilities.argmax(axis=1), probabilities)
    threshold = float(curve.threshold[20])
    assert int((probabilities.max(axis=1) >= threshold).sum()) == 21
    assert curve.at(threshold)[0] == 21 / 50
