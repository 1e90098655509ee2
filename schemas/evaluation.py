"""/evaluate: request and report. The report's figures are also what a bundle's manifest holds of its test split."""

from typing import Annotated, Any

from pydantic import Field, StrictInt, StrictStr, WithJsonSchema

from schemas.base import Frozen
from schemas.prediction import INSTANCES_SCHEMA, ItemError, OnError, RejectOption

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


class Metrics(Frozen):
    """The figures of one model on one labelled set; each equals scikit-learn's of the same name.

    A class without a labelled image counts as 0 (zero_division=0) in per_class, is named in absent_classes and is left
    out of the macro means.
    """

    n: Annotated[int, Field(ge=1, description="images measured")]
    accuracy: Rate
    accuracy_interval: Annotated[Interval, Field(description="95% Wilson score interval of the accuracy")]
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


class EvaluationReport(Metrics):
    """The figures, with who answered. errors lists the images left out under on_error=item; n does not count them."""

    model: str
    version: int
    variant: Annotated[str, Field(description="the variant that answered: fp32, int8 or fp16")]
    provider: Annotated[str, Field(description="the ONNX Runtime execution provider that answered")]
    errors: tuple[ItemError, ...] = ()
    reject: Annotated[Rejecting | None, Field(description="under reject=true; all other figures are of all images")] = (
        None
    )
