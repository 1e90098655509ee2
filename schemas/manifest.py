"""manifest.json: what a bundle says of itself. The format is specified in artifacts/README.md."""

import json
import re
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, JsonValue, ValidationError, model_validator

from schemas.base import Frozen
from schemas.errors import FormatVersionError, ManifestError
from schemas.evaluation import WILSON, Interval, Metrics, Rate

FORMAT_VERSION = 1
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"

ModelName = Annotated[str, Field(pattern=NAME_PATTERN)]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _inside_the_bundle(path: str) -> str:
    parts = path.split("/")
    if not re.fullmatch(r"[A-Za-z0-9._/-]+", path) or any(part in {"", ".", ".."} for part in parts):
        raise ValueError(f"'{path}' is not a plain relative path inside the bundle")
    return path


BundlePath = Annotated[str, AfterValidator(_inside_the_bundle)]


class Task(StrEnum):
    MULTICLASS = "multiclass"
    BINARY = "binary"


class Resize(StrEnum):
    """How an image of another size becomes height x width."""

    STRETCH = "stretch"  # both sides scaled, the aspect ratio is lost
    CROP = "crop"  # scaled to cover, centre kept
    PAD = "pad"  # scaled to fit, the rest black


class Interpolation(StrEnum):
    NEAREST = "nearest"
    BOX = "box"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class InputSpec(Frozen):
    """What the graph takes: uint8 [batch, height, width, channels]; 1 channel is grey, 3 are RGB."""

    height: Annotated[int, Field(ge=1, le=4096)]
    width: Annotated[int, Field(ge=1, le=4096)]
    channels: Annotated[int, Field(json_schema_extra={"enum": [1, 3]})]
    resize: Resize = Resize.STRETCH
    interpolation: Interpolation = Interpolation.BILINEAR

    @model_validator(mode="after")
    def _grey_or_rgb(self) -> Self:
        if self.channels not in {1, 3}:
            raise ValueError(f"channels is {self.channels}; it must be 1 (grey) or 3 (RGB)")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.height, self.width, self.channels)


class VariantName(StrEnum):
    FP32 = "fp32"
    INT8 = "int8"
    FP16 = "fp16"


class HashedFile(Frozen):
    file: BundlePath
    sha256: Sha256


class Parity(Frozen):
    """The exported file against the PyTorch network, on images of the test split."""

    images: Annotated[int, Field(ge=1)]
    max_logit_difference: Annotated[float, Field(ge=0)]
    argmax_agreement: Rate


class VariantMetrics(Frozen):
    """Measured through ONNX Runtime on this very file, over the whole test split."""

    accuracy: Rate
    log_loss: Annotated[float, Field(ge=0)]


class BatchSpeed(Frozen):
    """Images per second of the variant, and of fp32 measured in turns with it, on the provider that it is for."""

    batch: Annotated[int, Field(ge=1, description="images an inference")]
    images_per_second: Annotated[float, Field(gt=0)]
    fp32_images_per_second: Annotated[float, Field(gt=0)]

    @property
    def ratio(self) -> float:
        return self.images_per_second / self.fp32_images_per_second


class Variant(HashedFile):
    name: VariantName
    metrics: VariantMetrics
    parity: Parity
    golden_tolerance: Annotated[
        float, Field(gt=0, lt=1, description="largest allowed |difference| of a probability from the golden one")
    ]
    speed: Annotated[
        tuple[BatchSpeed, ...], Field(description="beside fp32; of fp32 itself, and where not measured, empty")
    ] = ()


class DroppedVariant(Frozen):
    """A variant that was tried and did not pass its gates."""

    name: VariantName
    reason: str


class CalibrationErrors(Frozen):
    """Expected calibration error of the fp32 file, without and with the temperature."""

    before: Rate
    after: Rate


class TemperatureScaling(Frozen):
    """probabilities = softmax(logits / temperature), fitted on validation (Guo et al., 2017)."""

    temperature: Annotated[float, Field(gt=0)]
    validation: CalibrationErrors
    test: CalibrationErrors


_OF_TEST = f"{WILSON}; null for validation, which chose the threshold"


class Answered(Frozen):
    """One split at the threshold: the share of its images that is answered, and how many of those rightly."""

    coverage: Rate
    accuracy: Annotated[Rate | None, Field(description="null where nothing is answered")]
    coverage_interval: Annotated[Interval | None, Field(description=_OF_TEST)] = None
    accuracy_interval: Annotated[Interval | None, Field(description=f"{_OF_TEST}, and where nothing is answered")] = (
        None
    )


class Reject(Frozen):
    """An image whose winning probability is below the threshold is better not answered."""

    target_accuracy: Rate
    threshold: Annotated[
        Rate | None, Field(description="smallest with which what is answered of validation reaches the target")
    ]
    reason: Annotated[str | None, Field(description="why there is no threshold")] = None
    validation: Answered | None = None
    test: Answered | None = None

    @model_validator(mode="after")
    def _threshold_or_reason(self) -> Self:
        given = (self.threshold, self.validation, self.test)
        if (self.reason is None) == (self.threshold is None) or len({part is None for part in given}) > 1:
            raise ValueError("either there is a threshold, with what it does to each split, or a reason why not")
        return self


class Golden(Frozen):
    """Encoded images and, in the file `expected`, the probabilities that fp32 on the CPU gave for each, in order."""

    expected: HashedFile
    images: Annotated[tuple[HashedFile, ...], Field(min_length=1)]


class Duplicates(Frozen):
    """Images of a split whose pixels are those of a training image: what they say of the model is too good."""

    validation: Count
    test: Count


class DataProvenance(Frozen):
    name: str
    content_hash: Sha256
    train: Count
    validation: Count
    test: Count
    duplicates: Annotated[Duplicates | None, Field(description="null where they were not looked for")] = None


class TrainingStep(Frozen):
    """One step of training from a pretrained backbone: what it cost, and what it reached on validation."""

    name: str
    seconds: Annotated[float, Field(ge=0)]
    validation_accuracy: Rate
    validation_interval: Interval
    validation_images: Count
    folds: Annotated[int, Field(ge=0, description="of cross-validation; 0: one validation split")] = 0
    kept: Annotated[bool, Field(description="whether the model has this step's weights")]

    @property
    def sentence(self) -> str:
        lower, upper = self.validation_interval.lower, self.validation_interval.upper
        where = f"in {self.folds}-fold cross-validation" if self.folds else "on validation"
        return (
            f"{self.name}: accuracy {self.validation_accuracy:.2%} {where} "
            f"(95% interval {lower:.2%} to {upper:.2%}, {self.validation_images:,} images), {self.seconds:.1f} s"
            f"{'' if self.kept else ', not kept'}"
        )


class Provenance(Frozen):
    """Where the model is from. recipe is the run's whole configuration, as run."""

    recipe: dict[str, JsonValue]
    data: DataProvenance
    seed: int
    epochs: Annotated[int, Field(ge=0, description="epochs trained")]
    best_epoch: Annotated[int, Field(ge=0, description="the epoch whose weights these are, chosen on validation")]
    parameters: Count
    device: str
    processes: Annotated[int | None, Field(ge=1, description="that shared each batch; null in bundles of before")] = (
        None
    )
    duration_seconds: Annotated[float, Field(ge=0, description="training alone, without export and report")]
    steps: Annotated[tuple[TrainingStep, ...], Field(description="of training from a backbone; else empty")] = ()
    created: Annotated[str, Field(description="UTC, ISO 8601")]
    git_commit: str | None
    libraries: dict[str, str]


class SplitMetrics(Frozen):
    """Measured through ONNX Runtime on the fp32 file."""

    validation: Metrics
    test: Metrics


class ModelManifest(Frozen):
    format_version: int = FORMAT_VERSION
    name: ModelName
    version: Annotated[int, Field(ge=1)]
    task: Task
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    input: InputSpec
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    dropped_variants: tuple[DroppedVariant, ...] = ()
    golden: Golden
    weights: HashedFile
    metrics: SplitMetrics
    calibration: TemperatureScaling | None = None
    reject: Reject | None = None
    provenance: Provenance

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must differ from each other")
        if self.task is Task.BINARY and len(self.labels) != 2:
            raise ValueError("a binary task has two labels")
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names) or VariantName.FP32 not in names:
            raise ValueError("variants must differ in name, and fp32 must be one of them")
        if set(names) & {dropped.name for dropped in self.dropped_variants}:
            raise ValueError("a variant cannot be there and dropped")
        return self

    def variant(self, name: VariantName) -> Variant | None:
        return next((variant for variant in self.variants if variant.name is name), None)

    @property
    def fp32(self) -> Variant:
        """The one that is always there."""
        return next(variant for variant in self.variants if variant.name is VariantName.FP32)


def parse_manifest(text: str | bytes) -> ModelManifest:
    """Reads manifest.json.

    Raises FormatVersionError for a format of another release (said before anything else: its fields may differ), and
    ManifestError naming the first field that is wrong.
    """
    try:
        raw: Any = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"manifest.json is not JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise ManifestError("manifest.json must hold a JSON object.")
    version = raw.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:  # true == 1 in Python
        raise FormatVersionError(
            f"The bundle has format version {version!r}; this release reads version {FORMAT_VERSION}. Export it again."
        )
    try:
        return ModelManifest.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "manifest.json"
        raise ManifestError(f"manifest.json: {where}: {first['msg']}.") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def render_json(model: Frozen) -> str:
    """Returns indented JSON with each list of numbers on one line: a confusion matrix has classes x classes numbers."""
    text = model.model_dump_json(indent=2)
    # Only JSON's own layout contains newlines; those inside strings are escaped.
    return re.sub(r"\[\n([\s\d,.e+-]+)\]", lambda match: f"[{' '.join(match[1].split())}]", text) + "\n"
