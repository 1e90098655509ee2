"""Divides a data set into training, validation and test images, stratified by class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from schemas.image import Pixels
from schemas.manifest import Duplicates, InputSpec
from trainer.data.dataset import LabelledImages, Labels, Rows, SourceData
from trainer.data.duplicates import REMEDY, find_duplicates
from trainer.errors import DataError
from trainer.recipe import DataConfig

_FEW_CLASSES = 20  # up to here, the size of each class is printed
_COMPARED_IMAGES = 200
_DARK = 64  # grey levels of 255: photos have brighter pixels
_FAR_MEANS = 64  # grey levels of 255
_FAR_SPREADS = 3  # times


@dataclass(frozen=True)
class Splits:
    """Training adjusts the weights to `train`, chooses the epoch on `validation`, and measures once, on `test`."""

    name: str
    labels: tuple[str, ...]
    input: InputSpec
    content_hash: str
    duplicates: Duplicates
    notes: tuple[str, ...]
    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages


class Division(NamedTuple):
    """Positions of each split's images in the data set, as SourceData.take counts them."""

    train: Rows
    validation: Rows
    test: Rows


def divide(data: SourceData, config: DataConfig) -> Division:
    """Returns the published splits; those that are missing are taken from the training images by their shares.

    config.limit first reduces the training images. Raises DataError if there is neither a published test split nor a
    share for one.
    """
    if data.test is None and not config.test:
        raise DataError(f"{data.name} has no test split of its own. Set its share, as in --set data.test=0.2.")
    shares = [0 if data.test is not None else config.test, 0 if data.validation is not None else config.validation]
    labels, rng = data.train.labels, np.random.default_rng(config.split_seed)
    used = np.arange(len(labels))
    if config.limit is not None and config.limit < len(labels):
        used, _ = _stratified(labels, [config.limit / len(labels)], rng)
    test, validation, train = (used[part] for part in _stratified(labels[used], shares, rng))
    start = len(labels)
    if data.validation is not None:
        validation = np.arange(start, start := start + len(data.validation))
    if data.test is not None:
        test = np.arange(start, len(data))
    return Division(train, validation, test)


def split(data: SourceData, config: DataConfig) -> Splits:
    """Returns the images of each split.

    Raises DataError for a class without images in a split, and for test images unlike the training images.
    """
    if len(data.labels) < 2:
        raise DataError(f"All images of {data.name} have the label '{data.labels[0]}'. Training needs two classes.")
    train, validation, test = (_only(data.take(part)) for part in divide(data, config))
    for name, part in (("training", train), ("validation", validation), ("test", test)):
        empty = np.flatnonzero(np.bincount(part.labels, minlength=len(data.labels)) == 0)
        if len(empty):
            raise DataError(
                f"The {name} split of {data.name} has no image of class '{data.labels[empty[0]]}'. "
                "Add images of it, or leave the class out."
            )
    if config.value_range is None:
        for name, published in (("validation", data.validation), ("test", data.test)):
            if published is not None:
                _check_alike(data.train, published, name)
    found = find_duplicates(train, validation, test)
    return Splits(
        name=data.name,
        labels=data.labels,
        input=data.input,
        content_hash=data.content_hash(),
        duplicates=found.duplicates,
        notes=(
            *data.notes,
            _class_sizes(train, data.labels),
            *([] if config.value_range else _darkness(train)),
            *_note_small_classes(data, config),
            *found.notes,
            *([REMEDY] if found.duplicates.validation or found.duplicates.test else []),
        ),
        train=train,
        validation=validation,
        test=test,
    )


def _only(parts: list[LabelledImages]) -> LabelledImages:
    (part,) = parts
    return part


def _class_sizes(train: LabelledImages, labels: tuple[str, ...]) -> str:
    counts = np.bincount(train.labels, minlength=len(labels))
    smallest, largest = int(counts.argmin()), int(counts.argmax())
    shown = range(len(labels)) if len(labels) <= _FEW_CLASSES else (smallest, largest)
    ratio = counts[largest] / counts[smallest]
    return (
        f"training images per class: {', '.join(f'{labels[i]}: {counts[i]:,}' for i in shown)} "
        f"(the largest is {ratio:.1f} times the smallest)"
    )


def _note_small_classes(data: SourceData, config: DataConfig) -> list[str]:
    """Returns a sentence if a class has too few images for separate splits."""
    parts = 1 + (data.validation is None) + (data.test is None and config.test > 0)
    few = np.flatnonzero(np.bincount(data.train.labels, minlength=len(data.labels)) < parts)
    if not len(few):
        return []
    names = ", ".join(data.labels[i] for i in few[:_FEW_CLASSES])
    return [f"classes with fewer than {parts} images are in several splits; their metrics are unreliable: {names}"]


def _check_alike(train: LabelledImages, other: LabelledImages, name: str) -> None:
    """Raises DataError if the other images have a mean or spread that only another range of values explains."""
    mean, spread = _statistics(train)
    other_mean, other_spread = _statistics(other)
    spreads = sorted((spread, other_spread))
    if abs(mean - other_mean) > _FAR_MEANS or spreads[1] > _FAR_SPREADS * max(spreads[0], 1):
        raise DataError(
            f"The pixels of the {name} and training images differ: mean {other_mean:.0f} against {mean:.0f}, standard "
            f"deviation {other_spread:.0f} against {spread:.0f}, of 255. If this is intended, set the values of black "
            "and white, as in --set data.value_range=0,255; else convert one of the files."
        )


def _darkness(train: LabelledImages) -> list[str]:
    """Returns a sentence if the images look as if their values were divided by too large a number."""
    brightest = int(_sample(train).max(initial=0))
    if brightest >= _DARK:
        return []
    return [
        f"warning: the training images are nearly black: their brightest pixel is {brightest} of 255. If it should be "
        f"white, set the values of black and white of csv and npz, as in --set data.value_range=0,{brightest}; make "
        "photos brighter."
    ]


def _statistics(part: LabelledImages) -> tuple[float, float]:
    pixels = _sample(part)
    return float(pixels.mean(dtype=np.float32)), float(pixels.std(dtype=np.float32))


def _sample(part: LabelledImages) -> Pixels:
    step = -(-len(part) // _COMPARED_IMAGES)
    return part.images[:: max(step, 1)]


def _stratified(labels: Labels, shares: Sequence[float], rng: np.random.Generator) -> list[Rows]:
    """Returns the positions for each share, and last the rest. Each class has its share in each, and at least one.

    A class with too few images for that has its first image in every share.
    """
    parts: list[list[Rows]] = [[] for _ in range(len(shares) + 1)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        sizes = _sizes(len(members), shares)
        if sum(sizes) < len(members):
            chosen = np.split(members, np.cumsum(sizes))
        else:
            chosen = [*(members[:size] for size in sizes), members[-max(1, len(members) - 1) :]]
        for part, rows in zip(parts, chosen, strict=True):
            part.append(rows)
    return [np.sort(np.concatenate(part)) if part else np.empty(0, np.int64) for part in parts]


def _sizes(count: int, shares: Sequence[float]) -> list[int]:
    """Returns the shares of a class of `count` images, rounded; at least one, and one image is left if possible."""
    edges = np.round(np.cumsum([0, *shares]) * count).astype(np.int64)
    sizes = [max(int(size), 1) if share else 0 for size, share in zip(np.diff(edges), shares, strict=True)]
    while sum(sizes) >= count and max(sizes) > 1:
        sizes[sizes.index(max(sizes))] -= 1
    return sizes
