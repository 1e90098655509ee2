"""Any bundle on any labelled data: data read as the bundle needs them, labels matched by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from schemas.bundle import FloatArray, open_bundle
from schemas.errors import MetricsError
from schemas.evaluation import Metrics
from schemas.manifest import ModelManifest, VariantName
from schemas.metrics import measure
from schemas.model_comparison import Comparison
from schemas.model_comparison import compare as compare_answers
from trainer.data.dataset import LabelledImages, Labels, Rows, SourceData
from trainer.data.detect import open_source, recipe_of, sources_at
from trainer.data.split import divide
from trainer.errors import DataError, ExportError
from trainer.evaluation.onnx_session import OnnxModel
from trainer.files import newest_version
from trainer.recipe import DataConfig, Source


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


class Part(StrEnum):
    """Which of the images."""

    ALL = "all"
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True)
class Model:
    """One variant of a bundle, ready to answer."""

    path: Path
    manifest: ModelManifest
    variant: VariantName
    onnx: OnnxModel

    @property
    def shown(self) -> str:
        return f"{self.path} ({self.variant})"


@dataclass(frozen=True)
class Place:
    """Labelled data as a person names them: a folder, an .npz file, or digits, the set inside scikit-learn.

    source is the kind that is meant, where several lie there.
    """

    what: str
    skip_bad: bool = False
    cache: Path | None = None
    source: Source | None = None

    def sources(self, labels: Sequence[str]) -> list[Source]:
        """What may be meant, for a model of these labels. Raises DataError where there is nothing of it."""
        there = [Source.DIGITS] if self.what == Source.DIGITS else sources_at(Path(self.what), labels)
        if not there:
            raise DataError(
                f"'{self.what}' is no folder of class-named folders, of CSV files or of published ones, nor an .npz "
                "file, nor the word digits."
            )
        if self.source is None:
            return there
        if self.source not in there:
            raise DataError(f"'{self.what}' holds no data of the kind {self.source}, but {' and '.join(there)}.")
        return [self.source]

    def load(self, config: DataConfig, manifest: ModelManifest) -> SourceData:
        """Every image, of the size that the model takes. Raises DataError."""
        config = config.model_copy(update={"input": manifest.input})
        source = open_source(config, Path(self.what), skip_bad=self.skip_bad, cache=self.cache, known=manifest.labels)
        return source.load()


@dataclass(frozen=True)
class Chosen:
    """Which images are scored, and what a person should know of the choice, a sentence each."""

    part: Part
    positions: Rows
    told: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """What a model said of n images: class indices of the model [n], and probabilities float32 [n, classes]."""

    labels: Labels
    probabilities: FloatArray
    metrics: Metrics


def open_model(path: Path, variant: VariantName) -> Model:
    """Raises DataError where there is no bundle or no such variant, and BundleError for one that must not answer."""
    path = newest_version(path)
    bundle = open_bundle(path)
    entry = bundle.manifest.variant(variant)
    if entry is None:
        there = ", ".join(each.name for each in bundle.manifest.variants)
        raise DataError(f"{path} has no variant {variant}; it has {there}.")
    model = OnnxModel(bundle.read(entry))
    bundle.check_signature(model.inputs, model.outputs)
    return Model(path, bundle.manifest, variant, model)


def how_to_read(place: Place, manifests: Sequence[ModelManifest]) -> DataConfig:
    """As the first bundle's recipe that was trained on data of a kind that is there; else by the content alone.

    Where CSV and .npz files have no names, their numbers are the first bundle's class indices. Raises DataError, also
    where several kinds are there and no bundle was trained on one of them.
    """
    there = place.sources(manifests[0].labels)
    own = [config for manifest in manifests if (config := data_config(manifest)) and config.source in there]
    if not own and len(there) > 1:
        raise DataError(
            f"'{place.what}' holds several kinds of data: {', '.join(there)}; say which is meant, as with "
            f"--source {there[0]}."
        )
    config = own[0] if own else recipe_of(there[0]).data
    if config.source in {Source.CSV, Source.NPZ} and not config.labels:
        config = config.model_copy(update={"labels": manifests[0].labels})
    return config


def data_config(manifest: ModelManifest) -> DataConfig | None:
    """What the bundle's recipe says of its data; None where it was written by a release with other words for it."""
    try:
        return DataConfig.model_validate(manifest.provenance.recipe.get("data"))
    except ValidationError:
        return None


def choose(asked: Sequence[tuple[Model, SourceData]], config: DataConfig, part: Part | None) -> Chosen:
    """The same images for every model; each comes with the data at its own size.

    Without a part, of data that a model was trained on the test split, as that model's recipe divides it; else all.
    """
    owner = next(((model, own) for model, data in asked if (own := own_division(model, data))), None)
    names = " and ".join(str(model.path) for model, _ in asked)
    told = []
    if part is None and owner is not None:
        told.append(f"{owner[0].path} was trained on this data: scored on the test split, as its recipe divides it.")
    elif part is None:
        told.append(
            f"{names} {'were' if len(asked) > 1 else 'was'} not trained on just this data: scored on all images."
        )
    part = part or (Part.ALL if owner is None else Part.TEST)
    positions = positions_of(part, asked[0][1], config if owner is None else owner[1])
    told += filter(None, [already_seen(model, data, positions) for model, data in asked])
    return Chosen(part, positions, tuple(told))


def positions_of(part: Part, data: SourceData, config: DataConfig) -> Rows:
    """Where the part's images are among all, divided as config says. Raises DataError where it cannot be."""
    if part is Part.ALL:
        return np.arange(len(data))
    if data.test is None and not config.test:
        raise DataError(f"{data.name} has no test split of its own; score all of it, with --split all.")
    division = divide(data, config)
    positions: Rows = getattr(division, part)
    return positions


def own_division(model: Model, data: SourceData) -> DataConfig | None:
    """How the model's recipe divided just this data; None where the model was trained on other data."""
    trained_on = data.content_hash() == model.manifest.provenance.data.content_hash
    return data_config(model.manifest) if trained_on else None


def already_seen(model: Model, data: SourceData, positions: Rows) -> str | None:
    """A sentence where some of these images were not new to the model; None where its recipe kept all of them away."""
    config = own_division(model, data)
    if config is None:
        return None
    division = divide(data, config)
    learnt, chosen = (int(np.isin(positions, part).sum()) for part in (division.train, division.validation))
    if not learnt + chosen:
        return None
    return (
        f"{model.path} has seen these images: it learnt from {learnt:,} of the {len(positions):,} and was chosen by "
        f"{chosen:,}; the figures say little of new ones."
    )


def score(model: Model, data: SourceData, positions: Rows) -> Score:
    """The model's answers for the images at these positions, against their labels.

    Raises DataError naming a label that the model does not know, and MetricsError for answers that cannot be measured.
    """
    own = index_of_labels(data, model)
    parts = data.take(positions)
    labels = own[np.concatenate([part.labels for part in parts])]
    probabilities = np.concatenate([model.onnx.probabilities(part.images) for part in parts])
    return Score(labels, probabilities, measure(labels, probabilities, model.manifest.labels))


def index_of_labels(data: SourceData, model: Model) -> Rows:
    """The model's class index for each of the data's labels, matched by name. Raises DataError."""
    index = {name: i for i, name in enumerate(model.manifest.labels)}
    for name in data.labels:
        if name not in index:
            raise DataError(
                f"{data.name} has the label '{name}', which {model.path} does not know; its labels are "
                f"{', '.join(model.manifest.labels)}."
            )
    return np.array([index[name] for name in data.labels])


def check_same_labels(a: Model, b: Model) -> None:
    """Raises DataError naming the labels that only one of them has; their order may differ."""
    for one, other in ((a, b), (b, a)):
        alone = [label for label in one.manifest.labels if label not in other.manifest.labels]
        if alone:
            raise DataError(
                f"Only bundles of the same labels can be compared: {one.path} has {', '.join(alone)}, which "
                f"{other.path} has not."
            )


def compare(a: tuple[str, Score], b: tuple[str, Score]) -> Comparison:
    """The names of two models and their scores on the same images, in the same order."""
    (name_a, right_a), (name_b, right_b) = (
        (name, score.probabilities.argmax(axis=1) == score.labels) for name, score in (a, b)
    )
    return compare_answers((name_a, right_a), (name_b, right_b))
