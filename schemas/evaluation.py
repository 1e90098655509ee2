"""/evaluate: request and report. The report's figures are also what a bundle's manifest holds of its test split.

What grows with the images or tells of single ones belongs to EvaluationReport, and not to Metrics.
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
    support: Annotated[int, Field(ge=0, description="labelled images of this class")]


class CalibrationBin(Frozen):
    """One bin of the reliability diagram; confidence and accuracy are null where no answer fell into it."""

    lower: Rate
    upper: Rate
    count: Annotated[int, Field(ge=0)]
    confidence: Rate | None
    accuracy: Rate | None


class Calibration(Frozen):
    """Expected calibration error over equal-width bins of the winning probability (Guo et al., 2017)."""

    expected_calibration_error: Rate
    bins: tuple[CalibrationBin, ...]


class Interval(Frozen):
    lower: Rate
    upper: Rate


class TopKAccuracy(Frozen):
    """The share of images whose label is among the k most probable classes; with k = 1 the accuracy."""

    k: Annotated[int, Field(ge=1)]
    accuracy: Rate
    accuracy_interval: Annotated[Interval, Field(description=WILSON)]


class Metrics(Frozen):
    """The figures of one model on one labelled set; each equals scikit-learn's of the same name.

    The answer is the most probable class, among equals the first. A class without a labelled image counts as 0
    (zero_division=0) in per_class, is named in absent_classes and is left out of the macro means.

    Intervals are Wilson's score intervals of 95% (1927). They stand where a figure is a rate of independent images:
    accuracy and top-k accuracy here, precision and recall of a class in the report. The others (means over classes, F1,
    log loss, areas, calibration) have none: none that takes a few lines is right for small sets.
    """

    n: Annotated[int, Field(ge=1, description="images measured")]
    accuracy: Rate
    accuracy_interval: Annotated[Interval, Field(description=WILSON)]
    top_k: Annotated[
        tuple[TopKAccuracy, ...], Field(description="for each k of 1, 3 and 5 that is below the number of classes")
    ] = ()
    log_loss: Annotated[float, Field(ge=0, description="mean negative log likelihood, in nats")]
    macro: Annotated[Averages, Field(description="mean over the classes that have labelled images")]
    micro: Annotated[Averages, Field(description="over all images pooled; equals the accuracy with one label an image")]
    weighted: Annotated[Averages, Field(description="mean over the classes, weighted by their support")]
    per_class: tuple[ClassMetrics, ...]
    absent_classes: tuple[str, ...]
    confusion_matrix: Annotated[
        tuple[tuple[int, ...], ...], Field(description="rows: true class, columns: predicted class, in label order")
    ]
    calibration: Calibration
    roc_auc: Annotated[
        Rate | None,
        Field(
            description="area under the ROC curve, of two classes alone: the second label is the positive one, its "
            "probability the score; null where the images are all of one class"
        ),
    ] = None
    average_precision: Annotated[
        Rate | None, Field(description="area under the precision-recall curve, not interpolated; null as roc_auc is")
    ] = None
    notes: Annotated[
        tuple[str, ...], Field(description="what must be known to read these figures, a sentence each")
    ] = ()


class EvaluateRequest(Frozen):
    """The JSON body of /evaluate: /predict's, with one label an instance."""

    instances: Annotated[list[Any], WithJsonSchema(INSTANCES_SCHEMA), Field(min_length=1)]
    labels: Annotated[
        list[StrictStr | StrictInt],
        Field(description="one an instance, in order; a string is a label's name, an integer a class index"),
    ]
    on_error: OnError | None = None
    reject: RejectOption = None


class Rejecting(Frozen):
    """What becomes of the images where only those are answered whose winning probability reaches the threshold."""

    threshold: Rate
    coverage: Annotated[Rate, Field(description="share of the images that is answered")]
    accuracy: Annotated[Rate | None, Field(description="of what is answered; null where nothing is")]


class ClassReport(ClassMetrics):
    """Its rates' intervals are null where there is no image to count: none of the class, or none taken for it."""

    precision_interval: Annotated[Interval | None, Field(description=WILSON)]
    recall_interval: Annotated[Interval | None, Field(description=WILSON)]


class Mistake(Frozen):
    """A wrong answer, and how sure of it the model was."""

    index: Annotated[int, Field(ge=0, description="position of the image in the request")]
    name: Annotated[str | None, Field(description="the name of the image's file; null if the client sent none")] = None
    label: str
    predicted: str
    probability: Annotated[Rate, Field(description="of the predicted class")]


class EvaluationReport(Metrics):
    """The figures, with who answered. errors lists the images left out under on_error=item; n does not count them."""

    per_class: tuple[ClassReport, ...]
    worst_mistakes: Annotated[
        tuple[Mistake, ...], Field(description=f"the surest wrong answers, the surest first, at most {MOST_MISTAKES}")
    ] = ()
    model: str
    version: int
    variant: Annotated[str, Field(description="the variant that answered: fp32, int8 or fp16")]
    provider: Annotated[str, Field(description="the ONNX Runtime execution provider that answered")]
    errors: tuple[ItemError, ...] = ()
    reject: Annotated[Rejecting | None, Field(description="under reject=true; all other figures are of all images")] = (
        None
    )
