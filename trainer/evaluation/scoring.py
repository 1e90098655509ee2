"""Scores any bundle on any labelled data, for the commands evaluate and compare. Labels are matched by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from schemas.manifest import ModelManifest, VariantName
from trainer.data.dataset import Rows, SourceData
from trainer.data.detect import open_source, recipe_for_source, sources_at
from trainer.data.split import divide
from trainer.errors import DataError
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.onnx_session import OnnxModel
from trainer.files import open_newest_bundle
from trainer.recipe import DataConfig, Source


class Part(StrEnum):
    """The images of a data set that are scored."""

    ALL = "all"
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True)
class BundleModel:
    """One variant of a bundle, with its session."""

    path: Path
    manifest: ModelManifest
    variant: VariantName
    onnx: OnnxModel

    def __str__(self) -> str:
        return f"{self.path} ({self.variant})"


@dataclass(frozen=True)
class DataLocation:
    """Where labelled data is: a folder, an .npz file, or `digits`, the data set in scikit-learn.

    source chooses the kind of data if the folder holds several.
    """

    location: str
    skip_bad: bool = False
    cache: Path | None = None
    source: Source | None = None

    def sources(self, labels: Sequence[str]) -> list[Source]:
        """Returns the kinds of data found, for a model with these labels. Raises DataError if there are none."""
        found = [Source.DIGITS] if self.location == Source.DIGITS else sources_at(Path(self.location), labels)
        if not found:
            raise DataError(
                f"No data found at '{self.location}'. Give a folder of class-named folders, of CSV files or of a "
                "published data set, an .npz file, or the word digits."
            )
        if self.source is None:
            return found
        if self.source not in found:
            raise DataError(f"'{self.location}' holds no {self.source} data, but {' and '.join(found)}.")
        return [self.source]

    def load(self, config: DataConfig, manifest: ModelManifest) -> SourceData:
        """Returns all images, resized to the model's input. Raises DataError."""
        config, place = config.with_input(manifest.input), Path(self.location)
        source = open_source(config, place, skip_bad=self.skip_bad, cache=self.cache, known=manifest.labels)
        return source.resized(manifest.input).load()


@dataclass(frozen=True)
class Selection:
    """The images to score, as positions in the data set, and sentences about the choice for the user."""

    part: Part
    positions: Rows
    notes: tuple[str, ...]


def open_model(path: Path, variant: VariantName) -> BundleModel:
    """Opens a bundle's variant. Raises DataError if either is missing, and BundleError if the bundle is damaged."""
    bundle = open_newest_bundle(path)
    entry = bundle.manifest.variant(variant)
    if entry is None:
        names = ", ".join(each.name for each in bundle.manifest.variants)
        raise DataError(f"{bundle.path} has no variant {variant}. Its variants are {names}.")
    model = OnnxModel(bundle.read(entry))
    bundle.check_signature(model.inputs, model.outputs)
    return BundleModel(bundle.path, bundle.manifest, variant, model)


def choose_data_config(location: DataLocation, manifests: Sequence[ModelManifest]) -> DataConfig:
    """Returns how to read the data: as the first bundle trained on this kind of data did, else by its content.

    If CSV or .npz files contain no label names, their numbers are class indices of the first bundle. Raises DataError,
    also if there are several kinds of data and no bundle was trained on one of them.
    """
    found = location.sources(manifests[0].labels)
    trained_on = [config for manifest in manifests if (config := data_config(manifest)) and config.source in found]
    if not trained_on and len(found) > 1:
        raise DataError(
            f"'{location.location}' holds several kinds of data: {', '.join(found)}. Choose one, for example with "
            f"--source {found[0]}."
        )
    config = trained_on[0] if trained_on else recipe_for_source(found[0]).data
    if config.source in {Source.CSV, Source.NPZ} and not config.labels:
        config = config.model_copy(update={"labels": manifests[0].labels})
    return config


def data_config(manifest: ModelManifest) -> DataConfig | None:
    """Returns the data settings of the bundle's recipe; None if another release wrote them with other fields."""
    try:
        return DataConfig.model_validate(manifest.provenance.recipe.get("data"))
    except ValidationError:
        return None


def select_images(models: Sequence[tuple[BundleModel, SourceData]], config: DataConfig, part: Part | None) -> Selection:
    """Selects the same images for every model; each model comes with the data at its own input size.

    Without a part: the test split of the first model trained on this data, else all images.
    """
    owner = next(((model, own) for model, data in models if (own := own_data_config(model, data))), None)
    names = " and ".join(str(model.path) for model, _ in models)
    notes = []
    if part is None and owner is not None:
        notes.append(f"{owner[0].path} was trained on this data: scored on its recipe's test split.")
    elif part is None:
        notes.append(f"{names} {'were' if len(models) > 1 else 'was'} not trained on this data: scored on all images.")
    part = part or (Part.ALL if owner is None else Part.TEST)
    positions = positions_of(part, models[0][1], config if owner is None else owner[1])
    notes += filter(None, [overlap_note(model, data, positions) for model, data in models])
    return Selection(part, positions, tuple(notes))


def positions_of(part: Part, data: SourceData, config: DataConfig) -> Rows:
    """Returns the positions of the part's images. Raises DataError if the data cannot be split."""
    if part is Part.ALL:
        return np.arange(len(data))
    if data.test is None and not config.test:
        raise DataError(f"{data.name} has no test split. Score all images with --split all.")
    positions: Rows = getattr(divide(data, config), part)
    return positions


def own_data_config(model: BundleModel, data: SourceData) -> DataConfig | None:
    """Returns the model's data settings if it was trained on exactly this data."""
    trained_on = data.content_hash() == model.manifest.provenance.data.content_hash
    return data_config(model.manifest) if trained_on else None


def overlap_note(model: BundleModel, data: SourceData, positions: Rows) -> str | None:
    """Returns a warning if the model was trained or selected on some of these images."""
    config = own_data_config(model, data)
    if config is None:
        return None
    division = divide(data, config)
    trained, selected = (int(np.isin(positions, part).sum()) for part in (division.train, division.validation))
    if not trained + selected:
        return None
    return (
        f"warning: of these {len(positions):,} images, {model.path} was trained on {trained:,} and selected on "
        f"{selected:,}. The metrics do not show its accuracy on new images."
    )


def score(model: BundleModel, data: SourceData, positions: Rows) -> Evaluation:
    """Evaluates the model on the images at these positions.

    Raises DataError for a label that the model does not have, and MetricsError for invalid probabilities.
    """
    parts = data.take(positions)
    labels = _class_indices(data, model)[np.concatenate([part.labels for part in parts])]
    answers = [model.onnx.answers(part.images) for part in parts]
    probabilities, logits = (np.concatenate(arrays) for arrays in zip(*answers, strict=True))
    return Evaluation.of(labels, probabilities, logits, model.manifest.labels)


def check_same_labels(a: BundleModel, b: BundleModel) -> None:
    """Raises DataError if one model has a label that the other lacks; their order may differ."""
    for one, other in ((a, b), (b, a)):
        missing = [label for label in one.manifest.labels if label not in other.manifest.labels]
        if missing:
            raise DataError(
                f"Only bundles with the same labels can be compared: {one.path} has {', '.join(missing)}, "
                f"{other.path} does not."
            )


def _class_indices(data: SourceData, model: BundleModel) -> Rows:
    """Returns the model's class index for each of the data's labels, matched by name."""
    index = {name: i for i, name in enumerate(model.manifest.labels)}
    for name in data.labels:
        if name not in index:
            raise DataError(
                f"{data.name} has the label '{name}', which {model.path} does not have. Its labels are "
                f"{', '.join(model.manifest.labels)}."
            )
    return np.array([index[name] for name in data.labels])
