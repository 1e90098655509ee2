"""Pictures of training images as the network sees them."""

import textwrap
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from schemas.image import Pixels
from trainer.bundle.image_grid import MAX_IMAGES, Captioned, image_grid, plain, save, shortened
from trainer.data.dataset import LabelledImages
from trainer.data.split import Splits
from trainer.errors import WriteError
from trainer.recipe import AugmentConfig, Recipe
from trainer.training.augment import Augmenter, Targets
from trainer.training.loader import GatheredImages

SAMPLES = 25
_COLUMNS = 8
_TITLE_WIDTH = 120  # characters that fit above 8 columns


def write_show(path: Path, recipe: Recipe, data: Splits, count: int) -> int:
    """Draws training images, each above its augmented version, and returns how many: count, at most 200.

    Raises WriteError.
    """
    chosen = np.random.default_rng(recipe.seed).permutation(len(data.train))[: min(count, MAX_IMAGES // 2)]
    cells: list[Captioned] = []
    for row, start in enumerate(range(0, len(chosen), _COLUMNS)):
        images = data.train.take(chosen[start : start + _COLUMNS])
        augmented, targets = augmented_batch(images, recipe.augment, recipe.seed + row)
        above = [
            Captioned(image, shortened(data.labels[label]))
            for image, label in zip(images.images, images.labels, strict=True)
        ]
        below = [Captioned(image, _mixture(targets, i, data.labels)) for i, image in enumerate(augmented)]
        empty = [Captioned(np.full_like(augmented[0], 255), "")] * (_COLUMNS - len(above))
        cells += [*above, *empty, *below, *empty]
    try:
        save(image_grid(_title(recipe, data), cells, _COLUMNS), path)
    except OSError as error:
        raise WriteError(f"{path} could not be written ({error}).") from error
    return len(chosen)


def samples(recipe: Recipe, data: Splits) -> Figure:
    """Random training images as the network sees them: augmented, and mixed if the recipe mixes them."""
    chosen = np.random.default_rng(recipe.seed).permutation(len(data.train))[:SAMPLES]
    images = data.train.take(chosen)
    augmented, targets = augmented_batch(images, recipe.augment, recipe.seed)
    captions = [
        _mixture(targets, i, data.labels) or shortened(data.labels[label]) for i, label in enumerate(images.labels)
    ]
    title = f"{len(chosen)} of {len(data.train):,} training images as the network sees them"
    return image_grid(title, list(map(Captioned, augmented, captions)))


def augmented_batch(data: LabelledImages, config: AugmentConfig, seed: int) -> tuple[Pixels, Targets]:
    """Returns the images augmented as one batch, uint8 [n, height, width, channels], and the labels in each."""
    index = torch.arange(len(data))
    images, labels = GatheredImages(data, torch.device("cpu")).batch(index)
    augmenter = Augmenter(config, len(data), torch.Generator().manual_seed(seed))
    images = augmenter(images, index, epoch=0)
    images, targets = augmenter.mix(images, labels)
    return (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy(), targets


def describe_augmentation(config: AugmentConfig) -> str:
    """Returns the settings that differ from their defaults, as in --set augment.NAME=VALUE."""
    defaults = AugmentConfig()
    changed = [f"{name}={value}" for name, value in config if value != getattr(defaults, name)]
    return ", ".join(changed) or "no augmentation"


def _title(recipe: Recipe, data: Splits) -> str:
    counts = (
        f"{plain(data.name)}: {len(data.train):,} training images of {len(data.labels)} classes, "
        f"{len(data.validation):,} for validation, {len(data.test):,} for the test"
    )
    rows = f"above: original, below: as the network sees it ({describe_augmentation(recipe.augment)})"
    return "\n".join(textwrap.wrap(counts, _TITLE_WIDTH) + textwrap.wrap(rows, _TITLE_WIDTH))


def _mixture(targets: Targets, i: int, labels: tuple[str, ...]) -> str:
    """Returns the labels in the i-th image with their shares; nothing for an image that is not a mixture."""
    if len(targets) == 1:
        return ""
    return "\n".join(f"{float(share):.0%} {shortened(labels[int(each[i])])}" for each, share in targets)
