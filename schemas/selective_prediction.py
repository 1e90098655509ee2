"""Selective prediction: accuracy against coverage (El-Yaniv & Wiener, 2010). Uses NumPy only.

An image is answered if its highest probability reaches the threshold; coverage is the fraction that is answered.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.metrics import Labels, Probabilities

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CoverageCurve:
    """One point for each distinct highest probability, in descending order; each array is [points]."""

    threshold: Values
    coverage: Values
    accuracy: Values

    def threshold_for(self, target_accuracy: float) -> float | None:
        """Returns the lowest threshold at which the answered images reach the accuracy, or None."""
        reached = np.flatnonzero(self.accuracy >= target_accuracy)
        return float(self.threshold[reached[-1]]) if len(reached) else None

    def at(self, threshold: float) -> tuple[float, float | None]:
        """Returns the coverage, and the accuracy of the answered images (None if no image is answered)."""
        answered = int(np.count_nonzero(self.threshold >= threshold))
        if not answered:
            return 0.0, None
        return float(self.coverage[answered - 1]), float(self.accuracy[answered - 1])


def coverage_curve(labels: Labels, probabilities: Probabilities) -> CoverageCurve:
    """Returns the curve for labels [n] (class indices) and probabilities [n, classes]; n is at least 1."""
    confidence = probabilities.max(axis=1).astype(np.float64).clip(0, 1)
    order = np.argsort(-confidence, kind="stable")
    confidence = confidence[order]
    correct = np.cumsum(probabilities.argmax(axis=1)[order] == labels[order])
    # A threshold cannot separate images of equal confidence.
    last = np.append(np.flatnonzero(np.diff(confidence)), len(confidence) - 1)
    return CoverageCurve(confidence[last], (last + 1) / len(labels), correct[last] / (last + 1))
