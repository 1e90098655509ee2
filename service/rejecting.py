"""Answering only what the model is sure of, with the threshold that its trainer found."""

from schemas.evaluation import Rejecting
from schemas.manifest import ModelManifest
from schemas.metrics import Labels, Probabilities
from schemas.selective_prediction import coverage_curve
from service.errors import InvalidRequestError


def reject_threshold(manifest: ModelManifest) -> float:
    """Raises InvalidRequestError where the model has none."""
    if manifest.reject and manifest.reject.threshold is not None:
        return manifest.reject.threshold
    why = f" ({manifest.reject.reason.rstrip('.')})" if manifest.reject and manifest.reject.reason else ""
    raise InvalidRequestError(
        f"{manifest.name} version {manifest.version} has no reject threshold{why}; ask without reject, or train it "
        "with a --target-accuracy that it can reach."
    )


def rejecting(labels: Labels, probabilities: Probabilities, threshold: float) -> Rejecting:
    """labels [n] as class indices, probabilities [n, classes]; n is at least 1."""
    coverage, accuracy = coverage_curve(labels, probabilities).at(threshold)
    return Rejecting(threshold=threshold, coverage=coverage, accuracy=accuracy)
