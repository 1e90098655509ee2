"""Turns a model's probabilities for labelled images into the evaluation report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.bundle import FloatArray
from schemas.errors import ImageError, MetricsError
from schemas.evaluation import EvaluationReport, Rejecting
from schemas.manifest import ModelManifest, VariantName
from schemas.metrics import measure, with_intervals, worst_mistakes
from schemas.model_comparison import EvaluationComparison
from schemas.model_comparison import compare as compare_answers
from schemas.prediction import item_errors
from schemas.selective_prediction import coverage_curve
from service.errors import InvalidRequestError
from service.inference.inputs import ArchivedImage, Image, name_of
from service.validation import shortened

_NAMED_LABELS = 20

Label = str | int
"""A label's name, or a class index."""


@dataclass(frozen=True)
class Scores:
    """What a model answered to labelled images.

    labels are class indices [n]; probabilities are float32 [n, classes]; errors are by position, and their rows of
    probabilities mean nothing.
    """

    manifest: ModelManifest
    variant: VariantName
    provider: str
    images: Sequence[Image]
    labels: npt.NDArray[np.int64]
    probabilities: FloatArray
    errors: Mapping[int, ImageError]

    @property
    def model_version(self) -> str:
        return f"{self.manifest.name} version {self.manifest.version}"

    @property
    def answered(self) -> npt.NDArray[np.int64]:
        """The positions of the images without an error."""
        return np.delete(np.arange(len(self.labels)), list(self.errors))

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the most probable class of each image is its label [n]."""
        correct: npt.NDArray[np.bool_] = self.probabilities.argmax(axis=1) == self.labels
        return correct


def report(scores: Scores, threshold: float | None = None) -> EvaluationReport:
    """Returns the report; with a threshold, also the metrics of rejecting below it.

    Raises InvalidRequestError if nothing can be measured.
    """
    manifest, rows = scores.manifest, scores.answered
    labels, probabilities = scores.labels[rows], scores.probabilities[rows]
    try:
        metrics = measure(labels, probabilities, manifest.labels)
    except MetricsError as error:
        raise InvalidRequestError(str(error)) from error
    reject = None
    if threshold is not None:
        coverage, accuracy = coverage_curve(labels, probabilities).at(threshold)
        reject = Rejecting(threshold=threshold, coverage=coverage, accuracy=accuracy)
    mistakes = []
    for mistake in worst_mistakes(labels, probabilities, manifest.labels):
        position = int(rows[mistake.index])  # in the request, where images with errors count too
        mistakes.append(mistake.model_copy(update={"index": position, "name": name_of(scores.images[position])}))
    return EvaluationReport(
        **dict(metrics) | {"per_class": with_intervals(metrics)},
        worst_mistakes=tuple(mistakes),
        model=manifest.name,
        version=manifest.version,
        variant=scores.variant,
        provider=scores.provider,
        errors=item_errors(scores.errors),
        reject=reject,
    )


def check_comparable(a: ModelManifest, b: ModelManifest, labels: Sequence[Label]) -> None:
    """Raises InvalidRequestError if the same labels would mean something else to the two versions."""
    different = set(a.labels) ^ set(b.labels)
    if different:
        raise InvalidRequestError(
            f"Versions {a.version} and {b.version} of {a.name} cannot be compared: only one of them has the labels "
            f"{shortened(', '.join(sorted(different)))}."
        )
    if a.labels != b.labels and any(isinstance(label, int) for label in labels):
        raise InvalidRequestError(
            f"Versions {a.version} and {b.version} of {a.name} order their labels differently; send label names, not "
            "class indices."
        )


def compare(a: Scores, b: Scores) -> EvaluationComparison:
    """Returns both reports and the comparison of their answers to the same images. Raises InvalidRequestError."""
    rows = np.intersect1d(a.answered, b.answered)
    if not len(rows):
        raise InvalidRequestError("No image could be read by both versions; send valid images.")
    comparison = compare_answers((a.model_version, a.correct[rows]), (b.model_version, b.correct[rows]))
    return EvaluationComparison(a=report(a), b=report(b), comparison=comparison)


def label_indices(labels: Sequence[Label], images: Sequence[Image], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Returns the class indices [n] of labels given by name or by index. Raises InvalidRequestError."""
    if len(labels) != len(images):
        raise InvalidRequestError(f"There are {len(images)} images and {len(labels)} labels; send one label per image.")
    by_name = {name: i for i, name in enumerate(names)}
    return np.array([_label_index(label, i, images[i], by_name) for i, label in enumerate(labels)], np.int64)


def _label_index(label: Label, position: int, image: Image, by_name: dict[str, int]) -> int:
    if isinstance(label, int):
        if 0 <= label < len(by_name):
            return label
        raise InvalidRequestError(
            f"Label {position} is the class index {shortened(label)}; the model has the classes 0 to "
            f"{len(by_name) - 1}."
        )
    if label not in by_name:
        known = ", ".join(list(by_name)[:_NAMED_LABELS]) + (", ..." if len(by_name) > _NAMED_LABELS else "")
        subject = f"Label {position}, '{shortened(label)}',"
        if isinstance(image, ArchivedImage):
            subject = f"The folder of {shortened(image.name)}"
        raise InvalidRequestError(f"{subject} is not one of the model's labels: {known}.")
    return by_name[label]


def reject_threshold(manifest: ModelManifest) -> float:
    """Returns the threshold that the trainer found. Raises InvalidRequestError if the model has none."""
    if manifest.reject and manifest.reject.threshold is not None:
        return manifest.reject.threshold
    why = f" ({manifest.reject.reason.rstrip('.')})" if manifest.reject and manifest.reject.reason else ""
    raise InvalidRequestError(
        f"{manifest.name} version {manifest.version} has no reject threshold{why}; send the request without reject, "
        "or train with a --target-accuracy that the model can reach."
    )
