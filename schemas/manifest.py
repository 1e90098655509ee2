"""manifest.json: the description of a bundle. artifacts/README.md specifies the format."""

import json
import re
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, JsonValue, ValidationError, model_validator

from schemas.base import Frozen
from schemas.errors import FormatVersionError, ManifestError
from schemas.evaluation import WILSON, Interval, Metrics, Rate
from schemas.value_range import ValueRange

FORMAT_VERSION = 1
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"

ModelName = Annotated[str, Field(pattern=NAME_PATTERN)]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _inside_the_bundle(path: str) -> str:
    parts = path.split("/")
    if not re.fullmatch(r"[A-Za-z0-9._/-]+", path) or any(part in {"", ".", ".."} for part in parts):
        raise ValueError(f"'{path}' must be a plain relative path inside the bundle")
    return path


BundlePath = Annotated[str, AfterValidator(_inside_the_bundle)]


class Task(StrEnum):
    MULTICLASS = "multiclass"
    BINARY = "binary"


class Resize(StrEnum):
    """How images of another size are resized to height x width."""

    STRETCH = "stretch"  # scale both sides; the aspect ratio is lost
    CROP = "crop"  # scale to cover, then keep the centre
    PAD = "pad"  # scale to fit, then fill with black


class Interpolation(StrEnum):
    NEAREST = "nearest"
    BOX = "box"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class InputSpec(Frozen):
    """The graph's input: uint8 [batch, height, width, channels]; 1 channel is grey, 3 are RGB."""

    height: Annotated[int, Field(ge=1, le=4096)]
    width: Annotated[int, Field(ge=1, le=4096)]
    channels: Annotated[int, Field(json_schema_extra={"enum": [1, 3]})]
    resize: Resize = Resize.STRETCH
    interpolation: Interpolation = Interpolation.BILINEAR
    value_range: Annotated[
        ValueRange | None,
        Field(description="values of black and white in 32-bit images", exclude_if=lambda value: value is None),
    ] = None  # without it they are refused, and older readers of manifests do not know it

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.channels not in {1, 3}:
            raise ValueError(f"channels is {self.channels}; it must be 1 (grey) or 3 (RGB)")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError("value_range is black, white, and black must be the smaller")
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
    """The difference between the exported file and the PyTorch network, on images of the test split."""

    images: Annotated[int, Field(ge=1)]
    max_logit_difference: Annotated[float, Field(ge=0)]
    argmax_agreement: Rate


class VariantMetrics(Frozen):
    """Measured with ONNX Runtime on this file, over the whole test split."""

    accuracy: Rate
    log_loss: Annotated[float, Field(ge=0)]


class BatchSpeed(Frozen):
    """Throughput of the variant and of fp32, measured alternately on the variant's execution provider."""

    batch: Annotated[int, Field(ge=1, description="images per inference")]
    images_per_second: Annotated[float, Field(gt=0)]
    fp32_images_per_second: Annotated[float, Field(gt=0)]

    @property
    def ratio(self) -> float:
        return self.images_per_second / self.fp32_images_per_second


class VariantMap(HashedFile):
    """The nodes that compute class activation maps: appended to the variant's file, they add the output `cam`."""

    golden_tolerance: Annotated[
        float, Field(gt=0, description="largest accepted absolute difference from a golden map of the same class")
    ]


class Variant(HashedFile):
    name: VariantName
    metrics: VariantMetrics
    parity: Parity
    golden_tolerance: Annotated[
        float, Field(gt=0, lt=1, description="largest accepted absolute difference from a golden probability")
    ]
    speed: Annotated[
        tuple[BatchSpeed, ...], Field(description="relative to fp32; empty for fp32 itself and if not measured")
    ] = ()
    explanation: Annotated[VariantMap | None, Field(description="null if the network has no maps")] = None


class DroppedVariant(Frozen):
    """A variant that was built but did not pass its checks."""

    name: VariantName
    reason: str


class CalibrationErrors(Frozen):
    """Expected calibration error of the fp32 file, before and after temperature scaling."""

    before: Rate
    after: Rate


class TemperatureScaling(Frozen):
    """probabilities = softmax(logits / temperature), fitted on the validation split (Guo et al., 2017)."""

    temperature: Annotated[float, Field(gt=0)]
    validation: CalibrationErrors
    test: CalibrationErrors


_TEST_INTERVAL = f"{WILSON}; null for the validation split, which chose the threshold"


class Answered(Frozen):
    """One split at the threshold: the share of images that get a label, and the accuracy on these images."""

    coverage: Rate
    accuracy: Annotated[Rate | None, Field(description="null if no image gets a label")]
    coverage_interval: Annotated[Interval | None, Field(description=_TEST_INTERVAL)] = None
    accuracy_interval: Annotated[
        Interval | None, Field(description=f"{_TEST_INTERVAL}, and if no image gets a label")
    ] = None


class Reject(Frozen):
    """The confidence threshold: images whose highest probability is lower get no label under reject=true."""

    target_accuracy: Rate
    threshold: Annotated[
        Rate | None, Field(description="the lowest threshold that meets the target accuracy on the validation split")
    ]
    reason: Annotated[str | None, Field(description="why there is no threshold")] = None
    validation: Answered | None = None
    test: Answered | None = None

    @model_validator(mode="after")
    def _threshold_or_reason(self) -> Self:
        parts = (self.threshold, self.validation, self.test)
        if (self.reason is None) == (self.threshold is None) or len({part is None for part in parts}) > 1:
            raise ValueError("give either threshold, validation and test, or only a reason")
        return self


class Pooling(StrEnum):
    """How a network reduces its last feature maps to one number per channel."""

    AVERAGE = "average"
    MAX = "max"


class Explanation(Frozen):
    """The class activation maps of the network, or the reason why it has none."""

    height: Annotated[int | None, Field(ge=1, description="of a map")] = None
    width: Annotated[int | None, Field(ge=1, description="of a map")] = None
    pooling: Annotated[
        Pooling | None,
        Field(description="average: the mean of a map plus the bias is the logit; max: a map shows the evidence only"),
    ] = None
    reason: Annotated[str | None, Field(description="the reason if the network has no maps")] = None

    @model_validator(mode="after")
    def _maps_or_reason(self) -> Self:
        parts = (self.height, self.width, self.pooling)
        if (self.reason is None) == (self.height is None) or len({part is None for part in parts}) > 1:
            raise ValueError("give either height, width and pooling, or only a reason")
        return self


class Golden(Frozen):
    """Encoded images, and files with the probabilities and maps of fp32 on the CPU for each image, in order."""

    expected: HashedFile
    maps: Annotated[HashedFile | None, Field(description="null if the network has no maps")] = None
    images: Annotated[tuple[HashedFile, ...], Field(min_length=1)]


class Duplicates(Frozen):
    """Number of images per split that are identical to a training image; they make the metrics too optimistic."""

    validation: Count
    test: Count


class Suspects(Frozen):
    """Number of images that may be placeholders or mistakes; report/suspects.csv has their names."""

    equal: Annotated[Count, Field(description="images that occur three times or more")]
    uniform: Annotated[Count, Field(description="images of nearly one colour")]
    unlike: Annotated[
        Count | None, Field(description="images whose features are unlike all others; null without a backbone")
    ] = None


class DataProvenance(Frozen):
    name: str
    content_hash: Sha256
    train: Count
    validation: Count
    test: Count
    duplicates: Annotated[Duplicates | None, Field(description="null if duplicates were not counted")] = None
    suspects: Annotated[Suspects | None, Field(description="null if suspects were not counted")] = None


class TrainingStep(Frozen):
    """One step of training from a pretrained backbone: its duration and its accuracy on the validation split."""

    name: str
    seconds: Annotated[float, Field(ge=0)]
    validation_accuracy: Rate
    validation_interval: Interval
    validation_images: Count
    folds: Annotated[int, Field(ge=0, description="folds of the cross-validation; 0: one validation split")] = 0
    kept: Annotated[bool, Field(description="whether the model uses the weights of this step")]

    @property
    def sentence(self) -> str:
        where = f"in {self.folds}-fold cross-validation" if self.folds else "on validation"
        return (
            f"{self.name}: accuracy {self.validation_accuracy:.2%} {where} "
            f"(95% interval {self.validation_interval}, {self.validation_images:,} images), {self.seconds:.1f} s"
            f"{'' if self.kept else ', not kept'}"
        )


class Provenance(Frozen):
    """The origin of the model. recipe is the complete configuration of the training run."""

    recipe: dict[str, JsonValue]
    data: DataProvenance
    seed: int
    epochs: Annotated[int, Field(ge=0, description="number of epochs trained")]
    best_epoch: Annotated[int, Field(ge=0, description="the epoch of these weights, chosen on the validation split")]
    parameters: Count
    device: str
    processes: Annotated[
        int | None, Field(ge=1, description="number of training processes; null in bundles of earlier releases")
    ] = None
    duration_seconds: Annotated[float, Field(ge=0, description="training only, without export and report")]
    steps: Annotated[
        tuple[TrainingStep, ...], Field(description="the steps of training from a pretrained backbone; otherwise empty")
    ] = ()
    created: Annotated[str, Field(description="UTC, ISO 8601")]
    git_commit: str | None
    libraries: dict[str, str]


class SplitMetrics(Frozen):
    """Measured with ONNX Runtime on the fp32 file."""

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
    weights: Annotated[HashedFile | None, Field(description="null for an imported model")]
    metrics: SplitMetrics
    calibration: TemperatureScaling | None = None
    reject: Reject | None = None
    explanation: Annotated[Explanation | None, Field(description="null in bundles of earlier releases")] = None
    provenance: Provenance

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must be unique")
        if self.task is Task.BINARY and len(self.labels) != 2:
            raise ValueError(f"a binary task needs two labels, not {len(self.labels)}")
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names) or VariantName.FP32 not in names:
            raise ValueError("variant names must be unique and include fp32")
        both = sorted(set(names) & {dropped.name for dropped in self.dropped_variants})
        if both:
            raise ValueError(f"{both[0]} is listed in both variants and dropped_variants")
        maps = self.map_shape is not None
        if {part is not None for part in (self.golden.maps, *(each.explanation for each in self.variants))} != {maps}:
            raise ValueError("golden and every variant must have maps if explanation has a size, and only then")
        return self

    @property
    def map_shape(self) -> tuple[int, int] | None:
        """Height and width of the class activation maps; None without maps."""
        found = self.explanation
        return None if found is None or found.height is None or found.width is None else (found.height, found.width)

    def variant(self, name: VariantName) -> Variant | None:
        return next((variant for variant in self.variants if variant.name is name), None)

    @property
    def fp32(self) -> Variant:
        """The variant that every bundle has."""
        return next(variant for variant in self.variants if variant.name is VariantName.FP32)


def parse_manifest(text: str | bytes) -> ModelManifest:
    """Reads manifest.json.

    Raises FormatVersionError for another format version (checked first, because its fields may differ), and
    ManifestError naming the first invalid field.
    """
    try:
        raw: Any = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"manifest.json is not JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise ManifestError("manifest.json must contain a JSON object.")
    version = raw.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:  # true == 1 in Python
        raise FormatVersionError(
            f"The bundle has format version {version!r}; this release reads version {FORMAT_VERSION}. Export it again."
        )
    try:
        return ModelManifest.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise ManifestError(f"manifest.json: {field + ': ' if field else ''}{message}.") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def render_json(model: Frozen) -> str:
    """Returns indented JSON with each list of numbers on one line: a confusion matrix has classes x classes numbers."""
    text = model.model_dump_json(indent=2)
    # Newlines inside JSON strings are escaped, so the pattern matches only the layout.
    return re.sub(r"\[\n([\s\d,.e+-]+)\]", lambda match: f"[{' '.join(match[1].split())}]", text) + "\n"
