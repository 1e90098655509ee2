"""What the service returns. docs/serving.md and docs/evaluation.md of Convoy describe each field.

Fields with a default are absent from some responses, or from those of older services.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ItemError:
    """An invalid image, by its position in the request."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document (RFC 9457)."""

    title: str
    status: int
    detail: str
    code: str
    errors: tuple[ItemError, ...] = ()


# Predictions


@dataclass(frozen=True, slots=True)
class ClassProbability:
    label: str
    index: int
    probability: float


@dataclass(frozen=True, slots=True)
class MapExplanation:
    """The class activation map of the most probable class: `height` rows of `width` numbers, evidence for the class.

    overlay_png is a PNG in base64: the image as the model sees it, with the map as a heat map on it.
    """

    label: str
    index: int
    height: int
    width: int
    map: tuple[tuple[float, ...], ...]
    overlay_png: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """The most probable class of one image.

    label and index are None if the model rejected the image (reject=True; reason says why), or if the image is invalid
    (on_error="item"; error says why). An invalid image has no probability either.
    """

    label: str | None = None
    index: int | None = None
    probability: float | None = None
    top: tuple[ClassProbability, ...] = ()
    reason: str | None = None
    error: ItemError | None = None
    explanation: MapExplanation | None = None


@dataclass(frozen=True, slots=True)
class Predictions:
    """One prediction for each image, in the order of the images, with the version that answered."""

    model: str
    version: int
    predictions: tuple[Prediction, ...]


# Evaluation


@dataclass(frozen=True, slots=True)
class Interval:
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Averages:
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class ClassReport:
    label: str
    support: int
    precision: float
    recall: float
    f1: float
    precision_interval: Interval | None
    recall_interval: Interval | None


@dataclass(frozen=True, slots=True)
class TopKAccuracy:
    k: int
    accuracy: float
    accuracy_interval: Interval


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    lower: float
    upper: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    expected_calibration_error: float
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True, slots=True)
class Mistake:
    """A misclassified image, by its position in the request, and the probability of the predicted class."""

    index: int
    label: str
    predicted: str
    probability: float
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Rejecting:
    """The effect of the model's confidence threshold (reject=True)."""

    threshold: float
    coverage: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """The metrics of one version on labelled images. Rows of confusion_matrix are true classes."""

    model: str
    version: int
    variant: str
    provider: str
    n: int
    accuracy: float
    accuracy_interval: Interval
    log_loss: float
    macro: Averages
    micro: Averages
    weighted: Averages
    per_class: tuple[ClassReport, ...]
    absent_classes: tuple[str, ...]
    confusion_matrix: tuple[tuple[int, ...], ...]
    calibration: Calibration
    top_k: tuple[TopKAccuracy, ...] = ()
    roc_auc: float | None = None
    average_precision: float | None = None
    notes: tuple[str, ...] = ()
    worst_mistakes: tuple[Mistake, ...] = ()
    errors: tuple[ItemError, ...] = ()
    reject: Rejecting | None = None


# Models


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The size to which the service resizes every image."""

    height: int
    width: int
    channels: int
    resize: str = "stretch"
    interpolation: str = "bilinear"
    value_range: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Execution:
    mode: str
    reason: str
    max_batch: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """The size of a version's class activation maps; if it has none, reason says why. pooling is "average" or "max"."""

    height: int | None = None
    width: int | None = None
    pooling: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A version of a model. If its state is not "ready", reason says why."""

    name: str
    version: int
    state: str
    current: bool
    reason: str | None = None
    task: str | None = None
    labels: tuple[str, ...] = ()
    input: InputSpec | None = None
    explanation: Explanation | None = None
    accuracy: float | None = None
    accuracy_interval: Interval | None = None
    accuracy_variant: str | None = None
    test_images: int | None = None
    variant: str | None = None
    variant_reason: str | None = None
    provider: str | None = None
    execution: Execution | None = None
    report: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelList:
    """The versions that serve or should, and the default model, which answers calls that name no model.

    candidates are further versions in the artifacts folder, which an administrator can promote.
    """

    default: str | None
    provider: str
    provider_reason: str
    models: tuple[ModelSummary, ...]
    candidates: tuple[ModelSummary, ...] = ()
