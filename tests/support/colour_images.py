"""A data set that any network learns in a moment: noise around red, green or blue."""

import numpy as np

from schemas.manifest import InputSpec
from trainer.data.dataset import FakeSource, LabelledImages, SourceData
from trainer.data.split import Splits, split
from trainer.network_config import PlainConfig
from trainer.recipe import (
    AugmentConfig,
    DataConfig,
    OptimizerConfig,
    OptimizerName,
    Precision,
    Recipe,
    ScheduleConfig,
    Source,
)

LABELS = ("red", "green", "blue")


def colours(count: int = 90, seed: int = 0) -> SourceData:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = rng.integers(0, 120, (count, 8, 8, 3), dtype=np.uint8)
    images[np.arange(count), :, :, labels] += 130
    return SourceData(
        "colours",
        LABELS,
        InputSpec(height=8, width=8, channels=3),
        LabelledImages(images, labels.astype(np.int64)),
        None,
    )


def source(count: int = 90) -> FakeSource:
    return FakeSource(colours(count))


def splits(recipe: Recipe, count: int = 90) -> Splits:
    return split(source(count).load(), recipe.data)


def recipe(**changes: object) -> Recipe:
    """Returns a recipe that trains for about a second, without variants. Its data source is not read."""
    settings: dict[str, object] = {
        "name": "colours",
        "data": DataConfig(source=Source.DIGITS, validation=0.2, test=0.2),
        "network": PlainConfig(widths=(4,), dense=8, dropout=0.1),
        "augment": AugmentConfig(translate=1),
        "optimizer": OptimizerConfig(name=OptimizerName.ADAMW, learning_rate=0.02),
        "schedule": ScheduleConfig(),
        "epochs": 3,
        "batch_size": 16,
        "precision": Precision.FP32,  # auto may choose differently from run to run
        "variants": (),
    }
    return Recipe.model_validate(settings | changes)
