"""Finds images that are equal in two splits: test accuracy on training images is too optimistic."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.manifest import Duplicates
from trainer.data.dataset import LabelledImages, Rows

REMEDY = (
    "`python -m trainer clean DATA` lists all copies in clean/exclude.csv, and `train --exclude clean/exclude.csv` "
    "leaves these files out. From a CSV or .npz file, remove their rows. Add images to classes of fewer than three."
)
_SHOWN = 3


@dataclass(frozen=True)
class Found:
    """notes has one sentence per finding; it is empty if all images differ."""

    duplicates: Duplicates
    notes: tuple[str, ...]


def find_duplicates(train: LabelledImages, validation: LabelledImages, test: LabelledImages) -> Found:
    """Compares the sha256 of the images."""
    counts, notes = {}, []
    for name, part in (("validation", validation), ("test", test)):
        pairs = _in_both(part, train)
        counts[name] = len(pairs)
        if pairs:
            examples = ", ".join(f"{part.name(here)} = {train.name(there)}" for here, there in pairs[:_SHOWN])
            notes.append(
                f"{len(pairs):,} of {len(part):,} {name} images are training images too: {examples}{_more(pairs)}"
            )
    both = len(_in_both(test, validation))
    if both:
        notes.append(f"{both:,} of {len(test):,} test images are validation images too")
    contradictions = _contradictions([train, validation, test])
    if contradictions:
        examples = ", ".join(f"{first} = {second}" for first, second in contradictions[:_SHOWN])
        notes.append(
            f"{len(contradictions):,} images occur twice with different labels: {examples}{_more(contradictions)}"
        )
    return Found(Duplicates(validation=counts["validation"], test=counts["test"]), tuple(notes))


def count_known(part: LabelledImages, *others: LabelledImages) -> int:
    """Returns how many images of the part are also in one of the others."""
    known = np.concatenate([short_hashes(other) for other in others])
    return int(np.isin(short_hashes(part), known).sum())


def _in_both(part: LabelledImages, other: LabelledImages) -> list[tuple[int, int]]:
    """Returns the positions in part of the images that are also in other, each with a position there."""
    known = short_hashes(other)
    order = np.argsort(known, kind="stable")
    wanted = short_hashes(part)
    at = np.searchsorted(known[order], wanted)
    same = np.flatnonzero(known[order[np.minimum(at, len(known) - 1)]] == wanted)
    return [(int(i), int(order[at[i]])) for i in same]


def _contradictions(parts: list[LabelledImages]) -> list[tuple[str, str]]:
    """Returns the names of equal images with different labels."""
    numbers = np.concatenate([short_hashes(part) for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    order: Rows = np.lexsort((labels, numbers))
    wrong = (numbers[order][1:] == numbers[order][:-1]) & (labels[order][1:] != labels[order][:-1])
    starts = np.cumsum([0] + [len(part) for part in parts])

    def name(row: np.int64) -> str:
        which = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[which].name(int(row - starts[which]))

    return [(name(order[i]), name(order[i + 1])) for i in sorted(np.flatnonzero(wrong), key=lambda i: order[i])]


def short_hashes(part: LabelledImages) -> npt.NDArray[np.uint64]:
    """Returns the first 64 bits of each hash; a collision among a billion images has a chance of 3%."""
    return np.ascontiguousarray(part.images.digests[:, :8]).view(np.uint64)[:, 0]


def _more(found: list[tuple[int, int]] | list[tuple[str, str]]) -> str:
    return ", ..." if len(found) > _SHOWN else ""
