"""The metrics of a model file on labelled images, measured through ONNX Runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from schemas.bundle import FloatArray
from schemas.evaluation import Metrics
from schemas.metrics import Labels, measure
from trainer.data.dataset import LabelledImages
from trainer.evaluation.onnx_session import OnnxModel


@dataclass(frozen=True)
class Evaluation:
    """A model's answers for n labelled images.

    labels [n] are the model's class indices; probabilities and logits are float32 [n, classes].
    """

    labels: Labels
    probabilities: FloatArray
    logits: FloatArray
    metrics: Metrics

    @classmethod
    def of(cls, labels: Labels, probabilities: FloatArray, logits: FloatArray, names: Sequence[str]) -> Self:
        """Raises MetricsError if a probability is not finite or not within 0..1."""
        return cls(labels, probabilities, logits, measure(labels, probabilities, names))

    @property
    def predicted(self) -> Labels:
        """The most probable class of each image [n]."""
        predicted: Labels = self.probabilities.argmax(axis=1)
        return predicted

    @property
    def correct(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Whether the answer for each image is its label [n]."""
        correct: np.ndarray[tuple[int], np.dtype[np.bool_]] = self.predicted == self.labels
        return correct


def evaluate(model: OnnxModel, data: LabelledImages, names: Sequence[str]) -> Evaluation:
    """Runs the model on all images; names are its labels. Raises MetricsError."""
    return Evaluation.of(data.labels, *model.answers(data.images), names)
