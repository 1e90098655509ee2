"""Labelled images and what a model said of them -> the report. Who asks the model is model.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.bundle import FloatArray
from schemas.errors import ImageError, MetricsError
from schemas.evaluation import EvaluationReport, Mistake, Rejecting
from schemas.manifest import ModelManifest, VariantName
from schemas.metrics import Labels, Probabilities, measure, with_intervals, worst_mistakes
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
class Scored:
    """The model that answered."""

    manifest: ModelManifest
    variant: VariantName
    provider: str

    @property
    def said(self) -> str:
        return f"{self.manifest.name} version {self.manifest.version}"


@dataclass(frozen=True)
class Scores:
    """labels are class indices [n]; probabilities float32 [n, classes], of which the rows of errors say nothing."""

    model: Scored
    images: Sequence[Image]
    labels: npt.NDArray[np.int64]
    probabilities: FloatArray
    errors: Mapping[int, ImageError]

    @property
    def answered(self) -> npt.NDArray[np.int64]:
        """The positions of the images that have an answer."""
        return np.delete(np.arange(len(self.labels)), list(self.errors))

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each image's answer is its label [n]."""
        right: npt.NDArray[np.bool_] = self.probabilities.argmax(axis=1) == self.labels
        return right


def report(scores: Scores, threshold: float | None = None) -> EvaluationReport:
    """With a threshold, what rejecting below it does is in it too.

    Raises InvalidRequestError where there is nothing that can be measured.
    """
    manifest, rows = scores.model.manifest, scores.answered
    labels, probabilities = scores.labels[rows], scores.probabilities[rows]
    try:
        metrics = measure(labels, probabilities, manifest.labels)
    except MetricsError as error:
        raise InvalidRequestError(str(error)) from error
    mistakes = worst_mistakes(labels, probabilities, manifest.labels)
    return EvaluationReport(
        **dict(metrics) | {"per_class": with_intervals(metrics)},
        worst_mistakes=tuple(_placed(mistake, int(rows[mistake.index]), scores.images) for mistake in mistakes),
        model=manifest.name,
        version=manifest.version,
        variant=scores.model.variant,
        provider=scores.model.provider,
        errors=item_errors(scores.errors),
        reject=None if threshold is None else rejecting(labels, probabilities, threshold),
    )


def check_comparable(a: ModelManifest, b: ModelManifest, labels: Sequence[Label]) -> None:
    """Raises InvalidRequestError where the same labels would not mean the same to both versions."""
    alone = set(a.labels) ^ set(b.labels)
    if alone:
        raise InvalidRequestError(
            f"Versions {a.version} and {b.version} of {a.name} cannot be compared: only one of them knows "
            f"{shortened(', '.join(sorted(alone)))}."
        )
    if a.labels != b.labels and any(isinstance(label, int) for label in labels):
        raise InvalidRequestError(
            f"Versions {a.version} and {b.version} of {a.name} have their labels in another order; send the labels' "
            "names, not class indices."
        )


def compare(a: Scores, b: Scores) -> EvaluationComparison:
    """Of the same images: both reports, and what tells the two apart. Raises InvalidRequestError."""
    rows = np.intersect1d(a.answered, b.answered)
    if not len(rows):
        raise InvalidRequestError("There is no image that both versions could read; there is nothing to compare.")
    comparison = compare_answers((a.model.said, a.right[rows]), (b.model.said, b.right[rows]))
    return EvaluationComparison(a=report(a), b=report(b), comparison=comparison)


def _placed(mistake: Mistake, position: int, images: Sequence[Image]) -> Mistake:
    """By the image's position in the request, bad ones counted too, and by its name where it has one."""
    return mistake.model_copy(update={"index": position, "name": name_of(images[position])})


def label_indices(labels: Sequence[Label], images: Sequence[Image], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Class indices of labels given by name or by index [n]. Raises InvalidRequestError."""
    if len(labels) != len(images):
        raise InvalidRequestError(f"There are {len(images)} images and {len(labels)} labels; send one label an image.")
    by_name = {name: i for i, name in enumerate(names)}
    return np.array([_label_index(label, i, images[i], by_name) for i, label in enumerate(labels)], np.int64)


def _label_index(label: Label, position: int, image: Image, by_name: dict[str, int]) -> int:
    if isinstance(label, int):
        if 0 <= label < len(by_name):
            return label
        raise InvalidRequestError(
            f"Label {position} is the class index {shortened(label)}; the model's go from 0 to {len(by_name) - 1}."
        )
    if label not in by_name:
        known = ", ".join(list(by_name)[:_NAMED_LABELS]) + (", ..." if len(by_name) > _NAMED_LABELS else "")
        said = (
            f"The folder of {shortened(image.name)} is"
            if isinstance(image, ArchivedImage)
            else f"Label {position} is '{shortened(label)}', which is"
        )
        raise InvalidRequestError(f"{said} none of the model's labels: {known}.")
    return by_name[label]


# Answering only what the model is sure of, with the threshold that its trainer found.


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
