"""Recipe: all settings of a run as one frozen object, which the bundle records."""

import difflib
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, ValidationError, model_validator

from schemas.base import Frozen
from schemas.files import atomic_write
from schemas.manifest import InputSpec, Interpolation, ModelName, Resize, Sha256, VariantName
from trainer.errors import RecipeError, WriteError
from trainer.network_config import NetworkConfig, network_named

Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
PRETRAINED = "pretrained"
SUFFIX = ".json"
_ENUM_MEMBER = re.compile(r"<\w+\.\w+: ('[^']*')>")  # as pydantic shows the values of a Literal


class Source(StrEnum):
    DIGITS = "digits"
    MNIST = "mnist"
    CIFAR10 = "cifar10"
    CSV = "csv"
    FOLDER = "folder"
    NPZ = "npz"


class OptimizerName(StrEnum):
    SGD = "sgd"
    ADAM = "adam"
    ADAMW = "adamw"
    MUON = "muon"


class ScheduleName(StrEnum):
    CONSTANT = "constant"
    COSINE = "cosine"
    TRIANGULAR = "triangular"
    ONE_CYCLE = "one_cycle"


class Sampling(StrEnum):
    """How the images of an epoch are drawn."""

    UNIFORM = "uniform"  # each image once
    BALANCED = "balanced"  # with replacement, each class equally often


class Monitor(StrEnum):
    """What chooses the epoch on the validation split."""

    ACCURACY = "accuracy"
    MACRO_F1 = "macro_f1"
    BALANCED_ACCURACY = "balanced_accuracy"
    LOG_LOSS = "log_loss"


class ClassWeights(StrEnum):
    OFF = "off"
    BALANCED = "balanced"


class Views(StrEnum):
    """The views of an image whose logits the exported graph averages."""

    ONE = "one"
    MIRROR = "mirror"  # the image and its mirror
    SHIFT = "shift"  # these two, and both shifted by one pixel along a diagonal, in both directions


class Precision(StrEnum):
    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


def _input_from_sides(value: Any) -> Any:
    """Turns a list, which --set data.input=64,64,3 makes, into settings."""
    sides = ("height", "width", "channels")
    if isinstance(value, str) or (isinstance(value, list) and len(value) != len(sides)):
        raise ValueError("give height,width,channels, as in 64,64,3")
    if isinstance(value, InputSpec):
        return value.model_dump(exclude={"value_range"})
    return dict(zip(sides, value, strict=True)) if isinstance(value, list) else value or {}


class InputConfig(Frozen):
    """The images that the network gets. null follows the data and, for a pretrained network, its weights."""

    height: Annotated[int | None, Field(description="height of the images, in pixels")] = None
    width: Annotated[int | None, Field(description="width of the images, in pixels")] = None
    channels: Annotated[
        int | None, Field(description="1 (grey) or 3 (RGB); null follows the data, as for height and width")
    ] = None
    resize: Annotated[Resize | None, Field(description="how images of another size are fitted to the input")] = None
    interpolation: Annotated[Interpolation | None, Field(description="filter for resizing")] = None

    @property
    def spec(self) -> InputSpec | None:
        """The complete description; None if the size follows the data."""
        given = self.model_dump(exclude_none=True)
        return InputSpec.model_validate({"channels": 3} | given) if {"height", "width"} <= set(given) else None

    @model_validator(mode="after")
    def _is_complete_or_open(self) -> Self:
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width must both be set, or neither")
        if self.spec is None and self.channels not in {None, 1, 3}:
            raise ValueError(f"channels is {self.channels}; it must be 1 (grey) or 3 (RGB)")
        return self


class DataConfig(Frozen):
    """Which images to read, and how to divide them if the data set has no published splits."""

    source: Annotated[Source, Field(description="kind of data")]
    validation: Annotated[
        float,
        Field(gt=0, lt=1, description="share of the images for validation, if the data has no validation split"),
    ]
    test: Annotated[
        float, Field(ge=0, lt=1, description="share of the images for the test, if the data has no test split")
    ] = 0.0
    split_seed: Annotated[Seed, Field(description="random seed of the split")] = 0
    limit: Annotated[
        int | None,
        Field(gt=0, description="largest number of images to use besides published splits, drawn by class; null: all"),
    ] = None
    input: Annotated[InputConfig, BeforeValidator(_input_from_sides)] = InputConfig()
    shape: Annotated[
        tuple[int, int, int] | None, Field(description="height,width,channels of a row of csv or npz; null detects it")
    ] = None
    value_range: Annotated[
        tuple[float, float] | None,
        Field(description="values of black,white in csv, npz and 32-bit TIFF; null detects them"),
    ] = None
    label_column: Annotated[
        str | None, Field(description="label column in csv, by name or by number from 1; null detects it")
    ] = None
    header: Annotated[bool | None, Field(description="whether csv files have a header; null detects it")] = None
    labels: Annotated[
        tuple[str, ...], Field(description="names of the classes by index, if the labels of the data are numbers")
    ] = ()

    def with_input(self, size: InputSpec) -> Self:
        return self.model_copy(update={"input": InputConfig.model_validate(_input_from_sides(size))})

    @model_validator(mode="after")
    def _leaves_training_images(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave no images to train on")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError("value_range is black,white, and black must be the smaller")
        return self


class Flip(StrEnum):
    OFF = "off"
    RANDOM = "random"
    ALTERNATING = "alternating"


class AugmentConfig(Frozen):
    """Random changes to each training image, drawn anew in every epoch; 0 turns one off."""

    flip: Annotated[
        Flip, Field(description="mirror left and right: half of the images at random, or each in every other epoch")
    ] = Flip.OFF
    vertical_flip: Annotated[bool, Field(description="mirror top and bottom of half of the images")] = False
    translate: Annotated[
        float, Field(ge=0, description="largest shift, in pixels; whole pixels unless rotate or scale is on")
    ] = 0.0
    rotate: Annotated[float, Field(ge=0, le=180, description="largest angle, in degrees")] = 0.0
    scale: Annotated[float, Field(ge=0, lt=1, description="largest relative change of size")] = 0.0
    crop: Annotated[float, Field(ge=0, lt=1, description="largest share of the area that is removed")] = 0.0
    aspect: Annotated[float, Field(ge=0, description="largest relative change of the crop's aspect ratio")] = 0.0
    reflect: Annotated[bool, Field(description="fill the border with the mirrored image; else with black")] = False
    colour: Annotated[float, Field(ge=0, le=1, description="largest change of brightness, contrast, saturation")] = 0.0
    trivial: Annotated[bool, Field(description="one random change of random strength (TrivialAugment)")] = False
    cutout: Annotated[int, Field(ge=0, description="side of a black square, in pixels")] = 0
    erase: Annotated[float, Field(ge=0, le=1, description="share of images with a rectangle of noise")] = 0.0
    mixup: Annotated[float, Field(ge=0, description="alpha of mixup's beta distribution")] = 0.0
    cutmix: Annotated[float, Field(ge=0, description="alpha of CutMix's beta distribution")] = 0.0

    def check_size(self, height: int, width: int) -> None:
        """Raises RecipeError for a shift that moves a whole image away."""
        if self.translate >= min(height, width):
            raise RecipeError(
                f"augment.translate={self.translate:g} shifts images of {height}x{width} pixels out of the picture. "
                f"Set it below {min(height, width)}."
            )


AUGMENT_POLICIES = {
    "none": AugmentConfig(),
    "light": AugmentConfig(flip=Flip.RANDOM, crop=0.3, reflect=True),
    "strong": AugmentConfig(
        flip=Flip.RANDOM, rotate=15, crop=0.6, aspect=1 / 3, reflect=True, colour=0.3, erase=0.25, mixup=0.2, cutmix=1
    ),
    "trivial": AugmentConfig(flip=Flip.RANDOM, crop=0.3, aspect=1 / 3, reflect=True, trivial=True, erase=0.1),
}
"""The values of augment.policy, which sets all of augment."""


class OptimizerConfig(Frozen):
    name: Annotated[OptimizerName, Field(description="optimizer")]
    learning_rate: Annotated[float, Field(gt=0, description="highest learning rate of the schedule")]
    weight_decay: Annotated[
        float,
        Field(
            ge=0,
            description="decay of matrices and filters, not of biases and norms; adam adds it to the gradient (L2), "
            "the others decouple it",
        ),
    ] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1, description="Nesterov momentum of sgd")] = 0.9
    muon_rate: Annotated[
        float, Field(gt=0, description="learning rate of muon for the filters; sgd updates the other weights")
    ] = 0.24
    muon_momentum: Annotated[float, Field(ge=0, lt=1, description="Nesterov momentum of muon")] = 0.6
    bias_rate: Annotated[float, Field(gt=0, description="factor on the learning rate of biases and norms")] = 1.0
    gradient_clip: Annotated[float, Field(ge=0, description="largest norm of the gradient; 0: no limit")] = 0.0


class ScheduleConfig(Frozen):
    """The learning rate over the run: up during warm_up, then down to 0; or constant.

    cosine and triangular rise linearly from 0; one_cycle rises from a 25th, by a cosine (Smith & Topin, 2019).
    """

    name: Annotated[ScheduleName, Field(description="course of the learning rate")] = ScheduleName.COSINE
    warm_up: Annotated[Fraction, Field(description="share of the run in which the learning rate rises")] = 0.1


class FineTune(StrEnum):
    AUTO = "auto"  # at most twice the time of the linear probe
    OFF = "off"


class TransferConfig(Frozen):
    """Starting weights. In head-only epochs, the body is in inference mode: no dropout, batch norm fixed."""

    weights: Annotated[
        str | None,
        Field(description="starting weights: pretrained (on ImageNet), a safetensors file, or a bundle; null: random"),
    ] = None
    sha256: Annotated[Sha256 | None, Field(description="expected SHA-256 of the weights; null accepts any")] = None
    head_epochs: Annotated[int, Field(ge=0, description="number of epochs in which the last layer trains alone")] = 0
    body_rate: Annotated[float, Field(gt=0, description="factor on the learning rate of all but the last layer")] = 1.0
    frozen: Annotated[
        Fraction,
        Field(description="share of a timm network's weight tensors, from the first layer on, that keep their values"),
    ] = 0.0
    keep_head: Annotated[bool, Field(description="keeps the last layer of a bundle with the same labels")] = False
    probe: Annotated[
        bool, Field(description="first fits the last layer of a timm network alone, by logistic regression")
    ] = False
    fine_tune: Annotated[
        FineTune | Annotated[float, Field(gt=0)],
        Field(description="seconds of fine-tuning after the probe; auto: at most twice the probe's time"),
    ] = FineTune.AUTO

    @model_validator(mode="after")
    def _has_weights_to_keep(self) -> Self:
        if self.weights is None and (
            self.head_epochs or self.body_rate != 1 or self.sha256 or self.probe or self.frozen
        ):
            raise ValueError(
                "without starting weights, also set head_epochs=0, body_rate=1, sha256=null, probe=false and frozen=0"
            )
        if isinstance(self.fine_tune, float) and not self.probe:
            raise ValueError("fine_tune limits the training after a linear probe; without one, set max_seconds")
        if self.keep_head and self.fine_tune is FineTune.OFF:
            raise ValueError("keep_head=true and fine_tune=off would train nothing; leave one of them out")
        return self


class Recipe(Frozen):
    name: Annotated[ModelName, Field(description="model name")]
    data: DataConfig
    network: NetworkConfig
    sigmoid: Annotated[bool, Field(description="for two classes: one output neuron and binary cross-entropy")] = False
    transfer: TransferConfig = TransferConfig()
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    epochs: Annotated[int, Field(ge=1, description="number of passes over the training images")]
    max_seconds: Annotated[
        float,
        Field(ge=0, description="limit of the training time, in seconds; the schedule is fitted to it; 0: no limit"),
    ] = 0.0
    batch_size: Annotated[int, Field(ge=1, description="images per training step, in all processes together")]
    validation_batch_size: Annotated[int, Field(ge=1, description="images per batch on the validation split")] = 1000
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="share of the target probability that all classes divide equally")
    ] = 0.0
    class_weights: Annotated[
        ClassWeights, Field(description="balanced: weights each class by the inverse of its frequency")
    ] = ClassWeights.OFF
    sampling: Annotated[
        Sampling,
        Field(description="uniform: draws each image once per epoch; balanced: draws each class equally often"),
    ] = Sampling.UNIFORM
    monitor: Annotated[Monitor, Field(description="metric on the validation split that chooses the epoch")] = (
        Monitor.ACCURACY
    )
    patience: Annotated[
        int,
        Field(ge=0, description="early stopping: number of epochs without improvement; 0: off"),
    ] = 0
    ema_decay: Annotated[
        float,
        Field(ge=0, lt=1, description="decay of the moving average of the weights, which is then exported; 0: off"),
    ] = 0.0
    test_views: Annotated[
        Views, Field(description="test-time augmentation in the exported graph: 1, 2 or 6 inferences per image")
    ] = Views.ONE
    precision: Annotated[Precision, Field(description="auto: measures which one is faster")] = Precision.AUTO
    target_accuracy: Annotated[
        Fraction, Field(description="target accuracy for the confidence threshold; 0: no threshold")
    ] = 0.0
    variants: Annotated[
        tuple[Literal[VariantName.INT8, VariantName.FP16], ...],
        Field(description="variants to try; each is kept if it is faster than fp32 and about as accurate; empty: none"),
    ] = (VariantName.INT8, VariantName.FP16)
    seed: Annotated[Seed, Field(description="random seed of weights, batches and augmentation")] = 0

    @model_validator(mode="after")
    def _balances_once(self) -> Self:
        if self.sampling is Sampling.BALANCED and self.class_weights is ClassWeights.BALANCED:
            raise ValueError("sampling=balanced and class_weights=balanced would balance twice; choose one")
        return self


def with_settings(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    """Returns the recipe with dotted keys replaced: {"optimizer.learning_rate": "0.1", "network": "plain"}.

    network and augment.policy stand for all settings of their group, which later keys change further. Values may be
    strings from a command line. Raises RecipeError naming the wrong key or value.
    """
    tree = recipe.model_dump(mode="json")
    for key, value in settings.items():
        _replace(tree, key, value)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        where, value, fault = first_fault(error)
        plain = fault.replace("Input should be", "it must be").partition(", unable")[0]
        given = f"Setting {where} = {value!r}" if not isinstance(value, dict) else f"These settings of {where} disagree"
        raise RecipeError(f"{given}: {plain}.") from error


def first_fault(error: ValidationError) -> tuple[str, Any, str]:
    """Returns the dotted key of the first invalid field, its value, and the reason."""
    first = error.errors(include_url=False)[0]
    # A union puts its member's tag into the path: network.plain.widths is network.widths to the user.
    where = ".".join(str(part) for i, part in enumerate(first["loc"]) if not (i == 1 and first["loc"][0] == "network"))
    fault = _ENUM_MEMBER.sub(r"\1", first["msg"].removeprefix("Value error, "))
    if first["type"] == "string_pattern_mismatch" and where == "name":
        fault = "use up to 64 lower-case letters, digits, dots, hyphens and underscores, first a letter or a digit"
    if where.startswith("transfer.fine_tune."):  # of its types, the error names the first
        where, fault = "transfer.fine_tune", "it must be a number of seconds above 0, 'auto' or 'off'"
    return where or "recipe", first["input"], fault


def _replace(tree: dict[str, Any], key: str, value: Any) -> None:
    if key == "augment.policy":
        if value not in AUGMENT_POLICIES:
            raise RecipeError(f"Setting {key} = {value!r}: choose one of {', '.join(AUGMENT_POLICIES)}.")
        tree["augment"] = AUGMENT_POLICIES[value].model_dump(mode="json")
        return
    *path, last = key.split(".")
    node: Any = tree
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        raise RecipeError(f"Unknown setting '{key}': {_known_settings(tree, key, node)}.")
    if key in {"network", "network.name"}:
        tree["network"] = network_named(str(value)).model_dump(mode="json")
    elif key == "data.input":  # height,width,channels leave resize and interpolation as they are
        try:
            sides = _input_from_sides(_parsed(value, []))
        except ValueError as error:
            raise RecipeError(f"Setting {key} = {value!r}: {error}.") from error
        node[last] = node[last] | sides if sides else dict.fromkeys(node[last])
    elif isinstance(node[last], dict):
        raise RecipeError(f"'{key}' is a group; set one of {', '.join(f'{key}.{name}' for name in node[last])}.")
    else:
        node[last] = _parsed(value, node[last])


def _known_settings(tree: dict[str, Any], key: str, group: Any) -> str:
    """Returns the settings of the key's group, else the most similar ones, else all."""
    prefix, _, _ = key.rpartition(".")
    if prefix and isinstance(group, dict):
        return f"{prefix} has {', '.join(group)}"
    known = list(_flat(tree))
    close = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}" if close else f"known settings are {', '.join(known)}"


def _parsed(value: Any, present: Any) -> Any:
    """Splits lists at commas and reads null; pydantic parses everything else."""
    if value == "null":
        return None
    if isinstance(value, str) and (isinstance(present, list) or (not isinstance(present, str) and "," in value)):
        return [part for part in value.split(",") if part]
    return value


def flat_settings(recipe: Recipe) -> dict[str, JsonValue]:
    """Returns all settings by dotted key."""
    return _flat(recipe.model_dump(mode="json"))


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def is_recipe_file(what: str) -> bool:
    return what.endswith(SUFFIX)


def read_recipe(path: Path) -> Recipe:
    """Raises RecipeError if the file is missing, damaged, or from a release with other settings."""
    try:
        return Recipe.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RecipeError(f"The recipe file {path} cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        where, _, fault = first_fault(error)
        raise RecipeError(
            f"The recipe file {path} is damaged or from another release: {where}: {fault}. Correct it, or tune again."
        ) from error


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Writes a recipe file. Raises WriteError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, recipe.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise WriteError(f"The recipe file {path} could not be written ({error.strerror}).") from error
