"""DataSource: where labelled images are from. All give the same thing; nothing after them knows which it was."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from schemas.image import Pixels
from schemas.manifest import InputSpec

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelledImages:
    """images uint8 [n, height, width, channels], labels [n] as class indices."""

    images: Pixels
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: npt.NDArray[np.int64]) -> "LabelledImages":
        return LabelledImages(self.images[index], self.labels[index])


@dataclass(frozen=True)
class SourceData:
    """All of a source's images. test is None where the source publishes no test split of its own.

    told is what a person should know of how the data was read, a sentence each.
    """

    name: str
    labels: tuple[str, ...]
    input: InputSpec
    train: LabelledImages
    test: LabelledImages | None
    told: tuple[str, ...] = ()

    def content_hash(self) -> str:
        """sha256 over names, labels and pixels: the same hash means the same data."""
        digest = hashlib.sha256("\0".join(self.labels).encode())
        for part in (self.train, self.test):
            if part is not None:
                digest.update(repr(part.images.shape).encode())
                digest.update(part.images.tobytes())
                digest.update(part.labels.tobytes())
        return digest.hexdigest()


class DataSource(Protocol):
    def load(self) -> SourceData:
        """Raises DataError for data that is missing, damaged or unfit."""
        ...


@dataclass(frozen=True)
class FakeSource:
    """A source for tests: gives what it was given."""

    data: SourceData

    def load(self) -> SourceData:
        return self.data
