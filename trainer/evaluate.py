"""Model + data -> probabilities -> figures, always through ONNX Runtime on the file that they describe."""

from dataclasses import dataclass

from schemas.bundle import FloatArray
from schemas.errors import MetricsError
from schemas.evaluation import Metrics
from schemas.metrics import measure
from trainer.data.dataset import LabelledImages
from trainer.errors import ExportError
from trainer.evaluation.onnx_session import OnnxModel


@dataclass(frozen=True)
class Evaluation:
    """One split, with what was said of it: probabilities and logits float32 [n, classes]."""

    data: LabelledImages
    probabilities: FloatArray
    logits: FloatArray
    metrics: Metrics


def evaluate(model: OnnxModel, data: LabelledImages, labels: tuple[str, ...]) -> Evaluation:
    """Raises ExportError where the model answers with something that is no probability."""
    return judge(*model.answers(data.images), data, labels)


def judge(probabilities: FloatArray, logits: FloatArray, data: LabelledImages, labels: tuple[str, ...]) -> Evaluation:
    """As evaluate, of a model's answers to the data's images."""
    try:
        return Evaluation(data, probabilities, logits, measure(data.labels, probabilities, labels))
    except MetricsError as error:
        raise ExportError(f"The exported model cannot be measured: {error}") from error
