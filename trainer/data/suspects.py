"""Finds images that may be placeholders or mistakes: equal to many others, nearly uniform, or unlike all others."""

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.data.dataset import LabelledImages, Rows
from trainer.data.duplicates import short_hashes
from trainer.data.split import Splits

_MANY_COPIES = 3
_UNIFORM_DEVIATION = 4  # grey levels of 255
_SAMPLED_PIXELS = 1024  # of an image
_NEIGHBOUR = 3  # up to two placeholders of one kind are still far from all other images
_COMPARED_IMAGES = 2000
_LEAST_IMAGES = 20
_BLOCK = 4096  # images whose distances are in memory at a time
_LEAST_DISTANCE = 0.01
_FENCE = 1.5  # interquartile ranges beyond the upper quartile (Tukey, 1977)
_SHOWN = 5


class Kind(StrEnum):
    EQUAL = "equal to others"
    UNIFORM = "nearly uniform"
    UNLIKE = "unlike all others"


class Suspect(NamedTuple):
    kind: Kind
    split: str
    label: str
    name: str


def find_suspects(data: Splits) -> list[Suspect]:
    """Returns the images that occur three times or more in all splits together, and those that are nearly uniform."""
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    hashes = np.concatenate([short_hashes(part) for part in parts.values()])
    _, kind, copies = np.unique(hashes, return_inverse=True, return_counts=True)
    equal, uniform, start = list[tuple[int, Suspect]](), list[Suspect](), 0
    for name, part in parts.items():
        here = slice(start, start := start + len(part))
        positions = np.flatnonzero(copies[kind[here]] >= _MANY_COPIES)
        equal += zip(hashes[here][positions].tolist(), _suspects(data, Kind.EQUAL, name, positions), strict=True)
        uniform += _suspects(data, Kind.UNIFORM, name, np.flatnonzero(_deviations(part) < _UNIFORM_DEVIATION))
    # If a class has too few images, splits share them. A shared image has one name, and counts once.
    different = Counter(image for image, _ in {(image, suspect.name) for image, suspect in equal})
    return [suspect for image, suspect in equal if different[image] >= _MANY_COPIES] + uniform


def unlike_others(data: Splits, features: npt.NDArray[np.float32]) -> list[Suspect]:
    """Returns the images whose features are far from those of all others.

    features [n, features] are of the training and then the validation images. The distance is the cosine distance to
    the third-nearest of at most 2,000 images.
    """
    if len(features) < _LEAST_IMAGES:
        return []
    unit = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    sample = unit[:: -(-len(unit) // _COMPARED_IMAGES)]
    nearest = np.concatenate([_distances(block, sample) for block in np.array_split(unit, -(-len(unit) // _BLOCK))])
    lower, upper = np.quantile(nearest, (0.25, 0.75))
    far = np.flatnonzero(nearest > max(upper + _FENCE * (upper - lower), _LEAST_DISTANCE))
    count = len(data.train)
    return [
        *_suspects(data, Kind.UNLIKE, "train", far[far < count]),
        *_suspects(data, Kind.UNLIKE, "validation", far[far >= count] - count),
    ]


def _distances(rows: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns the distance of each row to its third-nearest other row; the nearest is the row itself."""
    return np.partition(1 - rows @ others.T, _NEIGHBOUR, axis=1)[:, _NEIGHBOUR]


def describe(suspects: Sequence[Suspect]) -> list[str]:
    """Returns a sentence for each kind."""
    sentences = []
    for kind in Kind:
        names = list(dict.fromkeys(suspect.name for suspect in suspects if suspect.kind is kind))
        if names:
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            sentences.append(f"warning: images that may be placeholders or mistakes, {kind}: {len(names):,} ({shown})")
    return sentences


def _suspects(data: Splits, kind: Kind, split: str, positions: Rows) -> list[Suspect]:
    part: LabelledImages = getattr(data, split)
    return [Suspect(kind, split, data.labels[part.labels[i]], part.name(int(i))) for i in positions]


def _deviations(part: LabelledImages) -> npt.NDArray[np.float32]:
    """Returns the standard deviation over the pixels of each image, of the channel where it is largest [n]."""
    _, height, width, channels = part.images.shape
    step = -(-height * width // _SAMPLED_PIXELS)
    blocks = (
        block.reshape(len(block), -1, channels)[:, ::step].std(axis=1, dtype=np.float32).max(axis=1)
        for block in part.images.blocks()
    )
    return np.concatenate([*blocks, np.empty(0, np.float32)])
