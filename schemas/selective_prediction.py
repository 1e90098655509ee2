"""Answering only what the model is sure of: accuracy against coverage (El-Yaniv & Wiener, 2010). numpy alone.

An image is answered where its winning probability is at least the threshold; coverage is the share that is answered.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.metrics import Labels, Probabilities

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CoverageCurve:
    """One point for each winning probability that occurs, from the highest down: [points] each."""

    threshold: Values
    coverage: Values
    accuracy: Values

    def threshold_for(self, target_accuracy: float) -> float | None:
        """The smallest threshold at which the answered images reach the accuracy; None where none does."""
        reached = np.flatnonzero(self.accuracy >= target_accuracy)
        return float(self.threshold[reached[-1]]) if len(reached) else None

    def at(self, threshold: float) -> tuple[float, float | None]:
        """Coverage, and accuracy of what is answered; None where nothing is."""
        answered = int(np.count_nonzero(self.threshold >= threshold))
        if not answered:
            return 0.0, None
        return float(self.coverage[answered - 1]), float(self.accuracy[answered - 1])


def coverage_curve(labels: Labels, probabilities: Probabilities) -> CoverageCurve:
    """labels [n] as class indices, probabilities [n, classes]; n is at least 1."""
    confidence = probabilities.max(axis=1).astype(np.float64).clip(0, 1)
    order = np.argsort(-confidence, kind="stable")
    confidence = confidence[order]
    right = np.cumsum(probabilities.argmax(axis=1)[order] == labels[order])
    # Images of equal confidence are answered together or not at all.
    last = np.append(np.flatnonzero(np.diff(confidence)), len(confidence) - 1)
    return CoverageCurve(confidence[last], (last + 1) / len(labels), right[last] / (last + 1))
