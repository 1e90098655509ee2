"""Computes metrics from labels and probabilities, with NumPy only: the service does without scikit-learn and SciPy."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.errors import MetricsError
from schemas.evaluation import (
    MOST_MISTAKES,
    Averages,
    Calibration,
    CalibrationBin,
    ClassMetrics,
    ClassReport,
    Interval,
    Metrics,
    Mistake,
    TopKAccuracy,
)
from schemas.ranking_metrics import average_precision, label_ranks, roc_auc

Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.floating]
Confusion = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

CALIBRATION_BINS = 15
TOP_K = (1, 3, 5)
_NAMED_CLASSES = 10
Z_95 = 1.959963984540054
_ROUNDING = 1e-3  # half precision can place a probability this far outside 0 to 1


def measure(labels: Labels, probabilities: Probabilities, names: Sequence[str]) -> Metrics:
    """Returns the metrics for labels [n] (class indices) and probabilities [n, classes].

    Raises MetricsError if shapes or ranges do not match, or if a probability is not finite.
    """
    _check(labels, probabilities, names)
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, len(names))
    precision, recall, f1 = _precision_recall_f1(confusion)
    support = confusion.sum(axis=1)
    present = support > 0
    correct = int(np.trace(confusion))
    accuracy = correct / len(labels)
    absent = tuple(name for name, has_images in zip(names, present, strict=True) if not has_images)
    positive_and_score = (labels == 1, probabilities[:, 1]) if len(names) == 2 else None
    return Metrics(
        n=len(labels),
        accuracy=accuracy,
        accuracy_interval=wilson_interval(correct, len(labels)),
        top_k=top_k_accuracy(labels, probabilities),
        log_loss=log_loss(labels, probabilities),
        macro=_averages(precision, recall, f1, present / present.sum()),
        micro=Averages(precision=accuracy, recall=accuracy, f1=accuracy),
        weighted=_averages(precision, recall, f1, support / support.sum()),
        per_class=tuple(
            ClassMetrics(label=name, support=int(count), precision=float(p), recall=float(r), f1=float(f))
            for name, count, p, r, f in zip(names, support, precision, recall, f1, strict=True)
        ),
        absent_classes=absent,
        confusion_matrix=tuple(tuple(int(count) for count in row) for row in confusion),
        calibration=calibration(labels, probabilities),
        roc_auc=roc_auc(*positive_and_score) if positive_and_score else None,
        average_precision=average_precision(*positive_and_score) if positive_and_score else None,
        notes=_notes(names, absent),
    )


def top_k_accuracy(labels: Labels, probabilities: Probabilities) -> tuple[TopKAccuracy, ...]:
    """Returns the accuracy for each k of TOP_K below the number of classes."""
    n, classes = probabilities.shape
    ranks = label_ranks(labels, probabilities)
    hits = {k: int((ranks < k).sum()) for k in TOP_K if k < classes}
    return tuple(
        TopKAccuracy(k=k, accuracy=count / n, accuracy_interval=wilson_interval(count, n)) for k, count in hits.items()
    )


def with_intervals(metrics: Metrics) -> tuple[ClassReport, ...]:
    """Returns the metrics per class, with the intervals of precision and recall."""
    confusion = np.array(metrics.confusion_matrix)
    counts = zip(np.diag(confusion).tolist(), confusion.sum(axis=0).tolist(), strict=True)
    return tuple(
        ClassReport(
            **dict(row),
            precision_interval=wilson_interval(hits, predicted) if predicted else None,
            recall_interval=wilson_interval(hits, row.support) if row.support else None,
        )
        for row, (hits, predicted) in zip(metrics.per_class, counts, strict=True)
    )


def worst_mistakes(
    labels: Labels, probabilities: Probabilities, names: Sequence[str], most: int = MOST_MISTAKES
) -> tuple[Mistake, ...]:
    """Returns the mistakes of highest probability, the highest first. index is the row in labels."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    confidence = probabilities[wrong, predicted[wrong]]
    worst = wrong[np.argsort(-confidence, kind="stable")[:most]].tolist()
    return tuple(
        Mistake(
            index=row,
            label=names[labels[row]],
            predicted=names[predicted[row]],
            probability=min(1.0, float(probabilities[row, predicted[row]])),
        )
        for row in worst
    )


def confusion_matrix(labels: Labels, predicted: npt.NDArray[np.integer], classes: int) -> Confusion:
    """Returns the counts [true class, predicted class]."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def log_loss(labels: Labels, probabilities: Probabilities) -> float:
    """Returns the mean negative log likelihood in nats. As in scikit-learn, 0 counts as the epsilon of the type."""
    chosen = probabilities[np.arange(len(labels)), labels]
    floor = np.finfo(probabilities.dtype).eps
    return float(-np.log(np.clip(chosen, floor, 1 - floor).astype(np.float64)).mean())


def calibration(labels: Labels, probabilities: Probabilities, bins: int = CALIBRATION_BINS) -> Calibration:
    """Returns the expected calibration error of the predicted class over equal-width bins (Guo et al., 2017)."""
    confidence = probabilities.max(axis=1).astype(np.float64).clip(0, 1)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    # A bin is (lower, upper]; the first also contains 0. The edges equal the reported ones bit for bit.
    index = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    count = np.bincount(index, minlength=bins)
    confidence_sum = np.bincount(index, confidence, minlength=bins)
    right_sum = np.bincount(index, right, minlength=bins)
    return Calibration(
        expected_calibration_error=float(np.abs(confidence_sum - right_sum).sum() / len(labels)),
        bins=tuple(
            CalibrationBin(
                lower=i / bins,
                upper=(i + 1) / bins,
                count=int(count[i]),
                confidence=float(confidence_sum[i] / count[i]) if count[i] else None,
                accuracy=float(right_sum[i] / count[i]) if count[i] else None,
            )
            for i in range(bins)
        ),
    )


def wilson_interval(successes: int, n: int) -> Interval:
    """Returns the 95% score interval of a rate (Wilson, 1927), which suits small n and rates near 0 and 1."""
    rate, z2 = successes / n, Z_95**2
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At rates 0 and 1 the exact bound is 0 or 1, but the formula has a rounding error.
    lower = 0.0 if successes == 0 else max(0.0, centre - half)
    return Interval(lower=lower, upper=1.0 if successes == n else min(1.0, centre + half))


def learnt_something(metrics: Metrics) -> bool:
    """Returns whether the mean recall over the classes is above that of guessing, which is 1 / classes.

    False if the difference could be chance and is below a tenth of the largest possible one.
    """
    classes = sum(row.support > 0 for row in metrics.per_class)
    guessing, recall = 1 / classes, metrics.macro.recall
    significant = wilson_interval(round(recall * metrics.n), metrics.n).lower > guessing
    return classes == 1 or significant or recall > guessing + (1 - guessing) / 10


def _notes(names: Sequence[str], absent: Sequence[str]) -> tuple[str, ...]:
    if not absent:
        return ()
    listed = ", ".join(absent[:_NAMED_CLASSES]) + (", ..." if len(absent) > _NAMED_CLASSES else "")
    notes = [
        f"{len(absent)} of the {len(names)} classes {'has' if len(absent) == 1 else 'have'} no images ({listed}), "
        "which counts as 0 in per_class and is excluded from the macro averages."
    ]
    if len(names) == 2:
        present = next(name for name in names if name not in absent)
        notes.append(
            f"roc_auc and average_precision are null: they need images of both classes, and all are {present}."
        )
    return tuple(notes)


def _check(labels: Labels, probabilities: Probabilities, names: Sequence[str]) -> None:
    if len(labels) == 0:
        raise MetricsError("There are no labelled images; metrics need at least one.")
    if probabilities.shape != (len(labels), len(names)):
        raise MetricsError(
            f"The probabilities have shape {list(probabilities.shape)}; {len(labels)} labels and {len(names)} classes "
            f"need {[len(labels), len(names)]}."
        )
    if labels.min() < 0 or labels.max() >= len(names):
        raise MetricsError(f"A class index is outside 0 to {len(names) - 1}.")
    if not np.isfinite(probabilities).all():
        raise MetricsError("A probability is not a finite number.")
    if probabilities.min() < -_ROUNDING or probabilities.max() > 1 + _ROUNDING:
        raise MetricsError("A probability is outside 0 to 1; these look like logits.")


def _precision_recall_f1(confusion: Confusion) -> tuple[Values, Values, Values]:
    """Returns precision, recall and F1 of each class; 0 where the denominator is 0."""
    hits = np.diag(confusion).astype(np.float64)
    predicted, support = confusion.sum(axis=0), confusion.sum(axis=1)
    return (
        _ratio(hits, predicted),
        _ratio(hits, support),
        _ratio(2 * hits, predicted + support),
    )


def _ratio(numerator: Values, denominator: npt.NDArray[np.int64]) -> Values:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _averages(precision: Values, recall: Values, f1: Values, weights: Values) -> Averages:
    # Rounding can exceed 1 by one unit in the last place.
    means = [min(1.0, float(values @ weights)) for values in (precision, recall, f1)]
    return Averages(precision=means[0], recall=means[1], f1=means[2])
