"""Temperature scaling (Guo et al., 2017), and the confidence threshold that reaches a target accuracy."""

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from schemas.bundle import FloatArray
from schemas.manifest import Answered, CalibrationErrors, Reject, TemperatureScaling
from schemas.metrics import Labels, calibration, log_loss, wilson_interval
from schemas.selective_prediction import CoverageCurve, coverage_curve
from trainer.evaluation.evaluate import Evaluation

LOWEST, HIGHEST = 0.05, 20.0
_HALVINGS = 30  # of the range in which the temperature lies, to a relative 1e-8


def fit_temperature(logits: FloatArray, labels: Labels) -> float:
    """Returns the temperature T that makes softmax(logits / T) fit the labels best; 1.0 if it would not help.

    logits are [n, classes], labels [n]. The loss uses Platt's targets (1999), (n+1)/(n+2) for the true class instead of
    1: with 1, a split without a mistake would have infinite confidence. The temperature stays 1.0 if log loss or
    calibration error on these images would increase.
    """
    n, classes = logits.shape
    precise = logits.astype(np.float64)
    target = np.full((n, classes), 1 / (n + 2) / (classes - 1))
    target[np.arange(n), labels] = (n + 1) / (n + 2)
    # The loss is convex in 1 / T, so bisection of its slope finds the minimum.
    low, high = np.log(1 / HIGHEST), np.log(1 / LOWEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        slope = ((softmax(precise * np.exp(middle), axis=1) - target) * precise).sum()
        low, high = (low, middle) if slope > 0 else (middle, high)
    temperature = float(np.exp(-(low + high) / 2))
    before, after = softmax(precise, axis=1), softmax(precise / temperature, axis=1)
    better = log_loss(labels, after) < log_loss(labels, before) and _error(labels, after) <= _error(labels, before)
    return temperature if better else 1.0


def describe_scaling(temperature: float, validation: Evaluation, test: Evaluation) -> TemperatureScaling:
    return TemperatureScaling(temperature=temperature, validation=_errors(validation), test=_errors(test))


def uncalibrated(evaluation: Evaluation) -> FloatArray:
    """Returns the probabilities that the same file would give without its temperature."""
    return calibrated(evaluation.logits, 1.0)


def calibrated(logits: FloatArray, temperature: float) -> FloatArray:
    """Returns the probabilities that a file with this temperature gives for logits [n, classes]."""
    probabilities: FloatArray = softmax(logits.astype(np.float64) / temperature, axis=1).astype(np.float32)
    return probabilities


def _error(labels: Labels, probabilities: npt.NDArray[np.floating]) -> float:
    return calibration(labels, probabilities).expected_calibration_error


def _errors(evaluation: Evaluation) -> CalibrationErrors:
    return CalibrationErrors(
        before=_error(evaluation.labels, uncalibrated(evaluation)),
        after=evaluation.metrics.calibration.expected_calibration_error,
    )


def find_reject(target_accuracy: float, validation: Evaluation, test: Evaluation) -> Reject | None:
    """Returns the lowest threshold that meets the target accuracy on validation; None without a target (0)."""
    if not target_accuracy:
        return None
    curve = coverage_of(validation)
    threshold = curve.threshold_for(target_accuracy)
    if threshold is None:
        reason = (
            f"no threshold reaches an accuracy of {target_accuracy:.2%} on validation; the best is "
            f"{curve.accuracy.max():.2%}"
        )
        return Reject(target_accuracy=target_accuracy, threshold=None, reason=reason)
    return Reject(
        target_accuracy=target_accuracy,
        threshold=threshold,
        validation=_answered(curve, threshold),
        test=_with_intervals(_answered(coverage_of(test), threshold), test.metrics.n),
    )


def coverage_of(evaluation: Evaluation) -> CoverageCurve:
    return coverage_curve(evaluation.labels, evaluation.probabilities)


def _answered(curve: CoverageCurve, threshold: float) -> Answered:
    coverage, accuracy = curve.at(threshold)
    return Answered(coverage=coverage, accuracy=accuracy)


def _with_intervals(answered: Answered, n: int) -> Answered:
    """Adds 95% intervals; valid only for a split of n images on which the threshold was not chosen."""
    count = round(answered.coverage * n)
    accuracy = None if answered.accuracy is None else wilson_interval(round(answered.accuracy * count), count)
    return answered.model_copy(update={"coverage_interval": wilson_interval(count, n), "accuracy_interval": accuracy})
