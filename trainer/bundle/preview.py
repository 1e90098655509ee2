"""What the network will see: random training images before and after augmentation, as one picture."""

import textwrap
from pathlib import Path

import numpy as np
import torch

from schemas.image import Pixels
from trainer.bundle.report import draw, grid, save, shortened
from trainer.data.dataset import LabelledImages
from trainer.data.split import Splits
from trainer.errors import WriteError
from trainer.recipe import AugmentConfig, Recipe
from trainer.training.augment import Augmenter, Mixed
from trainer.training.loader import GatheredImages

_COLUMNS = 8
_TITLE_WIDTH = 120  # letters that fit above so many columns
_WORDS = {
    "flip": "{} flip",
    "translate": "shifted by up to {:g} pixels",
    "rotate": "turned by up to {:g} degrees",
    "scale": "scaled by up to {:.0%}",
    "crop": "up to {:.0%} of the area cut away",
    "reflect": "mirrored at the border",
    "colour": "colours changed by up to {:.0%}",
    "cutout": "a black square of {} pixels",
    "mixup": "mixup {:g}",
    "cutmix": "CutMix {:g}",
}


def write_show(path: Path, recipe: Recipe, data: Splits, count: int) -> int:
    """Draws up to count training images, each above what augmentation makes of it; returns how many.

    Raises WriteError.
    """
    chosen = np.random.default_rng(recipe.seed).permutation(len(data.train))[:count]
    rows = [chosen[start : start + _COLUMNS] for start in range(0, len(chosen), _COLUMNS)]
    figure, cells = grid(_title(recipe, data), 2 * _COLUMNS * len(rows), _COLUMNS)
    for row, positions in enumerate(rows):
        images = data.train.take(positions)
        seen, mixed = as_seen(images, recipe.augment, recipe.seed + row)
        above, below = cells[2 * row * _COLUMNS :], cells[(2 * row + 1) * _COLUMNS :]
        for i, label in enumerate(images.labels):
            draw(above[i], images.images[i], shortened(data.labels[label]))
            draw(below[i], seen[i], _mixture(mixed, i, data.labels) if mixed is not None else "")
    try:
        save(figure, path)
    except OSError as error:
        raise WriteError(f"{path} could not be written ({error}).") from error
    return len(chosen)


def as_seen(data: LabelledImages, config: AugmentConfig, seed: int) -> tuple[Pixels, Mixed | None]:
    """The images as one augmented batch, uint8 [n, height, width, channels], and how they were mixed if they were."""
    index = torch.arange(len(data))
    images, labels = GatheredImages(data, torch.device("cpu")).batch(index)
    augmenter = Augmenter(config, len(data), torch.Generator().manual_seed(seed))
    images = augmenter(images, index, epoch=0)
    mixed = augmenter.mix(images, labels)
    seen = (images if mixed is None else mixed.images).clamp(0, 1)
    return (seen * 255).round().byte().permute(0, 2, 3, 1).numpy(), mixed


def in_words(config: AugmentConfig) -> str:
    """What augmentation does, or that there is none."""
    defaults = AugmentConfig()
    used = {name: value for name, value in config if value != getattr(defaults, name)}
    said = [_WORDS.get(name, f"{name} {{}}").format(value) for name, value in used.items()]
    return ", ".join(said) or "no augmentation"


def _title(recipe: Recipe, data: Splits) -> str:
    counts = (
        f"{data.name}: {len(data.train):,} training images of {len(data.labels)} classes, {len(data.validation):,} for "
        f"validation, {len(data.test):,} for the test"
    )
    changes = f"above: as read, below: as the network sees them ({in_words(recipe.augment)})"
    return "\n".join(textwrap.wrap(counts, _TITLE_WIDTH) + textwrap.wrap(changes, _TITLE_WIDTH))


def _mixture(mixed: Mixed, i: int, labels: tuple[str, ...]) -> str:
    share, label, other = float(mixed.share), labels[int(mixed.labels[i])], labels[int(mixed.others[i])]
    return f"{share:.0%} {shortened(label)}\n{1 - share:.0%} {shortened(other)}"
