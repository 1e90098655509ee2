"""The request and report of /evaluate. A bundle's manifest stores the same metrics of its validation and test split.

Values that describe single images, or grow with their number, belong to EvaluationReport and not to Metrics.
"""

from typing import Annotated, Any

from pydantic import Field, StrictInt, StrictStr, WithJsonSchema

from schemas.base import Frozen
from schemas.prediction import INSTANCES_SCHEMA, ItemError, OnError, RejectOption

MOST_MISTAKES = 20
WILSON = "95% Wilson score interval"

Rate = Annotated[float, Field(ge=0, le=1)]


class Averages(Frozen):
    precision: Rate
    recall: Rate
    f1: Rate


class ClassMetrics(Averages):
    label: str
    support: Annotated[int, Field(ge=0, description="number of images with this label")]


class CalibrationBin(Frozen):
    """One bin of the reliability diagram; confidence and accuracy are null if the bin is empty."""

    lower: Rate
    upper: Rate
    count: Annotated[int, Field(ge=0)]
    confidence: Rate | None
    accuracy: Rate | None


class Calibration(Frozen):
    """Expected calibration error over equal-width bins of the highest probability (Guo et al., 2017)."""

    expected_calibration_error: Rate
    bins: tuple[CalibrationBin, ...]


class Interval(Frozen):
    lower: Rate
    upper: Rate

    def __str__(self) -> str:
        return f"{self.lower:.2%} to {self.upper:.2%}"


class TopKAccuracy(Frozen):
    """The fraction of images whose label is among the k most probable classes; for k = 1, the accuracy."""

    k: Annotated[int, Field(ge=1)]
    accuracy: Rate
    accuracy_interval: Annotated[Interval, Field(description=WILSON)]


class Metrics(Frozen):
    """The metrics of one model on one labelled data set; each equals the scikit-learn metric of the same name.

    The predicted class is the most probable one; if several tie, the first. A class without images counts as 0
    (zero_division=0) in per_class, is listed in absent_classes and is excluded from the macro averages.

    Intervals are 95% Wilson score intervals (1927). They are given for rates over independent images: accuracy and
    top-k accuracy here, and the precision and recall of each class in the report. Macro averages, F1, log loss, areas
    under curves and calibration have no interval: no simple formula is accurate for small data sets.
    """

    n: Annotated[int, Field(ge=1, description="number of images scored")]
    accuracy: Rate
    accuracy_interval: Annotated[Interval, Field(description=WILSON)]
    top_k: Annotated[tuple[TopKAccuracy, ...], Field(description="for k = 1, 3, 5 below the number of classes")] = ()
    log_loss: Annotated[float, Field(ge=0, description="mean negative log likelihood, in nats")]
    macro: Annotated[Averages, Field(description="unweighted mean over the classes that have images")]
    micro: Annotated[
        Averages, Field(description="over all images pooled; equals the accuracy, as each image has one label")
    ]
    weighted: Annotated[Averages, Field(description="mean over the classes, weighted by support")]
    per_class: tuple[ClassMetrics, ...]
    absent_classes: tuple[str, ...]
    confusion_matrix: Annotated[
        tuple[tuple[int, ...], ...], Field(description="rows: true class, columns: predicted class, in label order")
    ]
    calibration: Calibration
    roc_auc: Annotated[
        Rate | None,
        Field(
            description="area under the ROC curve, for models of two classes: the second label is the positive class, "
            "its probability the score; null if all images are of one class"
        ),
    ] = None
    average_precision: Annotated[
        Rate | None,
        Field(description="area under the precision-recall curve, not interpolated; null if roc_auc is null"),
    ] = None
    notes: Annotated[
        tuple[str, ...], Field(description="remarks needed to interpret these metrics, one sentence each")
    ] = ()


class EvaluateRequest(Frozen):
    """The JSON body of /evaluate: the body of /predict, and one label per instance."""

    instances: Annotated[list[Any], WithJsonSchema(INSTANCES_SCHEMA), Field(min_length=1)]
    labels: Annotated[
        list[StrictStr | StrictInt],
        Field(description="one per instance, in order; a string is a label, an integer is a class index"),
    ]
    on_error: OnError | None = None
    reject: RejectOption = None


class Rejecting(Frozen):
    """The effect of the confidence threshold: an image gets a label if its highest probability reaches it."""

    threshold: Rate
    coverage: Annotated[Rate, Field(description="share of the images that get a label")]
    accuracy: Annotated[Rate | None, Field(description="over the images that get a label; null if there are none")]


class ClassReport(ClassMetrics):
    """ClassMetrics with intervals. An interval is null if there are no predictions (precision) or labels (recall)."""

    precision_interval: Annotated[Interval | None, Field(description=WILSON)]
    recall_interval: Annotated[Interval | None, Field(description=WILSON)]


class Mistake(Frozen):
    """A misclassified image, and the probability of the predicted class."""

    index: Annotated[int, Field(ge=0, description="position of the image in the request")]
    name: Annotated[str | None, Field(description="the image's file name; null if the client sent none")] = None
    label: str
    predicted: str
    probability: Annotated[Rate, Field(description="of the predicted class")]


class EvaluationReport(Metrics):
    """The metrics, and the model that was measured. n excludes the images in errors (on_error=item)."""

    per_class: tuple[ClassReport, ...]
    worst_mistakes: Annotated[
        tuple[Mistake, ...], Field(description=f"at most {MOST_MISTAKES} mistakes, by falling probability")
    ] = ()
    model: str
    version: int
    variant: Annotated[str, Field(description="the measured variant: fp32, int8 or fp16")]
    provider: Annotated[str, Field(description="the ONNX Runtime execution provider that was used")]
    errors: tuple[ItemError, ...] = ()
    reject: Annotated[Rejecting | None, Field(description="for reject=true; all other metrics cover all images")] = None
