"""Trains a recipe in this process, on the CPU."""

from pathlib import Path

from schemas.bundle import Bundle
from tests.support import colour_images
from tests.support.recorder import CPU, Recorder
from trainer.data.dataset import DataSource
from trainer.recipe import Recipe
from trainer.run import CheckpointOptions, train
from trainer.training.progress import Reporter


def train_bundle(
    recipe: Recipe,
    artifacts: Path,
    source: DataSource | None = None,
    *,
    reporter: Reporter | None = None,
    runs: CheckpointOptions | None = None,
) -> Bundle:
    """Trains on colours unless a source is given."""
    bundle = train(recipe, source or colour_images.source(), CPU, artifacts, reporter or Recorder(), runs=runs)
    assert bundle is not None
    return bundle
