"""Dividing a source into training, validation and test images, stratified by class."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.manifest import Duplicates, InputSpec
from trainer.data.dataset import LabelledImages, Labels, Rows, SourceData
from trainer.data.duplicates import find_duplicates
from trainer.errors import DataError

_FEW_CLASSES = 20  # each of which is counted in what a person is told


@dataclass(frozen=True)
class Splits:
    """The training split is learnt from, validation chooses, test is measured once, at the end."""

    name: str
    labels: tuple[str, ...]
    input: InputSpec
    content_hash: str
    duplicates: Duplicates
    told: tuple[str, ...]
    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages


class Division(NamedTuple):
    """Positions of each split's images among all of a source, as SourceData.take counts them."""

    train: Rows
    validation: Rows
    test: Rows


def divide(data: SourceData, validation: float, test: float, seed: int) -> Division:
    """Shares are of all images; where the source publishes a test split that one is used and `test` is not.

    Raises DataError where there is neither.
    """
    if data.test is None and not test:
        raise DataError(f"{data.name} has no test split of its own; give it a share, as in --set data.test=0.2.")
    rng = np.random.default_rng(seed)
    if data.test is None:
        tested, chosen, learnt = _stratified(data.train.labels, [test, validation], rng)
    else:
        chosen, learnt = _stratified(data.train.labels, [validation], rng)
        tested = np.arange(len(data.train), len(data))
    return Division(learnt, chosen, tested)


def split(data: SourceData, validation: float, test: float, seed: int) -> Splits:
    """As divide. Raises DataError naming a class that one of the splits would have no image of."""
    learnt, chosen, tested = (_only(data.take(part)) for part in divide(data, validation, test, seed))
    for name, part in (("training", learnt), ("validation", chosen), ("test", tested)):
        empty = np.flatnonzero(np.bincount(part.labels, minlength=len(data.labels)) == 0)
        if len(empty):
            raise DataError(
                f"The {name} split of {data.name} has no image of class '{data.labels[empty[0]]}'; "
                "add images of it, leave the class out, or give the split a larger share."
            )
    found = find_duplicates(learnt, chosen, tested)
    return Splits(
        name=data.name,
        labels=data.labels,
        input=data.input,
        content_hash=data.content_hash(),
        duplicates=found.duplicates,
        told=(*data.told, _class_sizes(learnt, data.labels), *found.told),
        train=learnt,
        validation=chosen,
        test=tested,
    )


def _only(parts: list[LabelledImages]) -> LabelledImages:
    (part,) = parts
    return part


def _class_sizes(train: LabelledImages, labels: tuple[str, ...]) -> str:
    """How many training images each class has, and by how much the classes differ."""
    counts = np.bincount(train.labels, minlength=len(labels))
    smallest, largest = int(counts.argmin()), int(counts.argmax())
    shown = range(len(labels)) if len(labels) <= _FEW_CLASSES else (smallest, largest)
    ratio = counts[largest] / counts[smallest]
    return (
        f"training images a class: {', '.join(f'{labels[i]}: {counts[i]:,}' for i in shown)} "
        f"(the largest is {ratio:.1f} times the smallest)"
    )


def _stratified(labels: Labels, shares: list[float], rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """Index sets, one a share and last the rest; in each, every class has its share, rounded."""
    parts: list[list[npt.NDArray[np.int64]]] = [[] for _ in range(len(shares) + 1)]
    edges = np.cumsum(shares)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.round(edges * len(members)).astype(np.int64)
        for part, chosen in zip(parts, np.split(members, cuts), strict=True):
            part.append(chosen)
    return [np.sort(np.concatenate(part)) if part else np.empty(0, np.int64) for part in parts]
