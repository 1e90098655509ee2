"""Dividing a source into training, validation and test images, stratified by class."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from schemas.manifest import InputSpec
from trainer.data.source import LabelledImages, Labels, SourceData
from trainer.errors import DataError

IMBALANCE = 2.0  # times as many images in the largest class as in the smallest, from which on it is said


@dataclass(frozen=True)
class Splits:
    """The training split is learnt from, validation chooses, test is measured once, at the end."""

    name: str
    labels: tuple[str, ...]
    input: InputSpec
    content_hash: str
    told: tuple[str, ...]
    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages


def split(data: SourceData, validation: float, test: float, seed: int) -> Splits:
    """Shares are of all images; where the source publishes a test split that one is used and `test` is not.

    Raises DataError naming a class that one of the splits would have no image of.
    """
    rng = np.random.default_rng(seed)
    shares = [validation] if data.test is not None else [test, validation]
    *held_out, rest = _stratified(data.train.labels, shares, rng)
    parts = Splits(
        name=data.name,
        labels=data.labels,
        input=data.input,
        content_hash=data.content_hash(),
        told=data.told,
        train=data.train.take(rest),
        validation=data.train.take(held_out[-1]),
        test=data.test if data.test is not None else data.train.take(held_out[0]),
    )
    for name, part in (("training", parts.train), ("validation", parts.validation), ("test", parts.test)):
        empty = np.flatnonzero(np.bincount(part.labels, minlength=len(data.labels)) == 0)
        if len(empty):
            raise DataError(
                f"The {name} split of {data.name} has no image of class '{data.labels[empty[0]]}'; "
                "add images of it, leave the class out, or give the split a larger share."
            )
    counts = np.bincount(parts.train.labels, minlength=len(data.labels))
    if counts.max() > IMBALANCE * counts.min():
        shown = ", ".join(f"{name} {count:,}" for name, count in zip(data.labels, counts, strict=True))
        parts = replace(parts, told=(*parts.told, f"the classes differ much in size: {shown} training images"))
    return parts


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
