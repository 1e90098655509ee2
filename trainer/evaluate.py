"""Model + data -> probabilities -> figures, always through ONNX Runtime on the file that they describe."""

from dataclasses import dataclass

from schemas.bundle import FloatArray
from schemas.evaluation import Metrics
from schemas.metrics import measure
from trainer.data.source import LabelledImages
from trainer.inference import OnnxModel


@dataclass(frozen=True)
class Evaluation:
    """One split, with what was said of it: probabilities float32 [n, classes]."""

    data: LabelledImages
    probabilities: FloatArray
    metrics: Metrics


def evaluate(model: OnnxModel, data: LabelledImages, labels: tuple[str, ...]) -> Evaluation:
    probabilities = model.probabilities(data.images)
    return Evaluation(data, probabilities, measure(data.labels, probabilities, labels))
