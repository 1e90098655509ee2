"""A temperature for the logits, so that of the answers given with 90% nine in ten are right (Guo et al., 2017)."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from schemas.bundle import FloatArray
from schemas.manifest import Answered, CalibrationErrors, Reject, TemperatureScaling
from schemas.metrics import Labels, calibration, wilson_interval
from schemas.selective_prediction import CoverageCurve, coverage_curve
from trainer.evaluation.evaluate import Evaluation

COLDEST, HOTTEST = 0.05, 20.0


def fit_temperature(logits: FloatArray, labels: Labels) -> float:
    """The temperature that makes the labels [n] likeliest under softmax(logits [n, classes] / temperature).

    With Platt's targets (1999), (n+1)/(n+2) for the true class instead of 1: else a split without a mistake would ask
    for infinite confidence.
    """
    n, classes = logits.shape
    precise = logits.astype(np.float64)
    target = np.full((n, classes), 1 / (n + 2) / (classes - 1))
    target[np.arange(n), labels] = (n + 1) / (n + 2)

    def loss(log_temperature: float) -> float:
        return float(-(target * log_softmax(precise / np.exp(log_temperature), axis=1)).sum() / n)

    found = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def describe_scaling(temperature: float, validation: Evaluation, test: Evaluation) -> TemperatureScaling:
    return TemperatureScaling(temperature=temperature, validation=_errors(validation), test=_errors(test))


def uncalibrated(evaluation: Evaluation) -> FloatArray:
    """The probabilities that the same file would give without its temperature."""
    probabilities: FloatArray = softmax(evaluation.logits, axis=1)
    return probabilities


def _errors(evaluation: Evaluation) -> CalibrationErrors:
    before = calibration(evaluation.data.labels, uncalibrated(evaluation))
    return CalibrationErrors(
        before=before.expected_calibration_error,
        after=evaluation.metrics.calibration.expected_calibration_error,
    )


def find_reject(target_accuracy: float, validation: Evaluation, test: Evaluation) -> Reject | None:
    """The threshold that validation asks for, and what it does to both splits; None where no accuracy is asked for."""
    if not target_accuracy:
        return None
    curve = coverage_of(validation)
    threshold = curve.threshold_for(target_accuracy)
    if threshold is None:
        reason = (
            f"at no threshold is the accuracy on validation {target_accuracy:.2%}: at best {curve.accuracy.max():.2%}"
        )
        return Reject(target_accuracy=target_accuracy, threshold=None, reason=reason)
    return Reject(
        target_accuracy=target_accuracy,
        threshold=threshold,
        validation=_answered(curve, threshold),
        test=_measured(coverage_of(test), threshold, test.metrics.n),
    )


def coverage_of(evaluation: Evaluation) -> CoverageCurve:
    return coverage_curve(evaluation.data.labels, evaluation.probabilities)


def _answered(curve: CoverageCurve, threshold: float) -> Answered:
    coverage, accuracy = curve.at(threshold)
    return Answered(coverage=coverage, accuracy=accuracy)


def _measured(curve: CoverageCurve, threshold: float, n: int) -> Answered:
    """With intervals, of a split of n images that the threshold was not chosen on."""
    at = _answered(curve, threshold)
    answered = round(at.coverage * n)
    right = None if at.accuracy is None else wilson_interval(round(at.accuracy * answered), answered)
    return at.model_copy(update={"coverage_interval": wilson_interval(answered, n), "accuracy_interval": right})
