"""Finds images that a person should look at before training: doubted labels, copies, and unreadable files."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from schemas.bundle import FloatArray
from trainer.data.dataset import LabelledImages

_NEARLY_EQUAL = 0.9  # the share of equal bits of two difference hashes
_HASH_SIDE, _AREA = 16, Image.Resampling.BOX
_BLOCK = 2048  # images whose similarities are in memory at a time


class Kind(StrEnum):
    LABEL = "doubted label"
    EQUAL = "equal"
    NEARLY_EQUAL = "nearly equal"
    UNREADABLE = "unreadable"


class Finding(NamedTuple):
    """detail is the label that the model expects, the other file, or why the file is unreadable.

    certainty is the probability of that label, or the similarity of the files, 0..1. positions are those of the image,
    and of the other one if there is one.
    """

    kind: Kind
    file: str
    label: str
    detail: str
    certainty: float
    positions: tuple[int, ...] = ()


def doubted_labels(images: LabelledImages, names: Sequence[str], probabilities: FloatArray) -> list[Finding]:
    """Returns the images whose labels are probably wrong, the most doubtful first (Northcutt et al., 2021).

    probabilities [n, classes] must be of models that have not seen the image.
    """
    from cleanlab.filter import find_label_issues  # noqa: PLC0415 - an optional package

    found = find_label_issues(images.labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [
        Finding(
            Kind.LABEL,
            images.name(i),
            names[images.labels[i]],
            names[probabilities[i].argmax()],
            float(probabilities[i].max()),
            (i,),
        )
        for i in map(int, found)
    ]


def copies(images: LabelledImages, names: Sequence[str]) -> list[Finding]:
    """Returns the images that are equal to an earlier one, or nearly: resized, or compressed again."""
    hashes = [digest.tobytes() for digest in images.images.digests]
    first: dict[bytes, int] = {}
    equal = {i: j for i, each in enumerate(hashes) if (j := first.setdefault(each, i)) != i}
    found = [_copy(Kind.EQUAL, images, names, i, j, 1.0) for i, j in equal.items()]
    for i, j, similarity in _similar_pairs(_difference_hashes(images)):
        if i not in equal and j not in equal:
            found.append(_copy(Kind.NEARLY_EQUAL, images, names, i, j, similarity))
    return found


def _copy(kind: Kind, images: LabelledImages, names: Sequence[str], i: int, j: int, similarity: float) -> Finding:
    return Finding(kind, images.name(i), names[images.labels[i]], images.name(j), similarity, (i, j))


def _difference_hashes(images: LabelledImages) -> npt.NDArray[np.float32]:
    """Returns [n, 256] of 1 and -1: whether a pixel of the image at 17x16 is brighter than its right neighbour."""
    small = [
        np.asarray(Image.fromarray(pixels.mean(axis=2).astype(np.uint8)).resize((_HASH_SIDE + 1, _HASH_SIDE), _AREA))
        for pixels in images.images
    ]
    brightness = np.stack(small).astype(np.int16)
    brighter = brightness[:, :, 1:] > brightness[:, :, :-1]
    return np.where(brighter, 1, -1).astype(np.float32).reshape(len(small), -1)


def _similar_pairs(hashes: npt.NDArray[np.float32]) -> Iterator[tuple[int, int, float]]:
    """Yields each image that resembles an earlier one, with the most similar of these and the share of equal signs."""
    for start in range(0, len(hashes), _BLOCK):
        block = (1 + hashes[start : start + _BLOCK] @ hashes[: start + _BLOCK].T / hashes.shape[1]) / 2
        block[np.arange(len(block))[:, None] + start <= np.arange(block.shape[1])] = -1  # only earlier images count
        for row in np.flatnonzero(block.max(axis=1) >= _NEARLY_EQUAL):
            nearest = int(block[row].argmax())
            yield start + int(row), nearest, float(block[row, nearest])
