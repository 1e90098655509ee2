"""DataSource: where labelled images are from. All give the same thing; nothing after them knows which it was."""

import hashlib
import os
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from schemas.image import Pixels
from schemas.manifest import InputSpec
from trainer.data.images import Images, Rows
from trainer.errors import DataError

Labels = npt.NDArray[np.int64]
Names = npt.NDArray[np.bytes_]


class LabelledImages:
    """images uint8 [n, height, width, channels], labels [n] as class indices, names [n] of their files, if any.

    The images may be a view of a file that is larger than memory.
    """

    def __init__(self, images: Images | Pixels, labels: Labels, names: Names | None = None) -> None:
        self.images = images if isinstance(images, Images) else Images(images)
        self.labels = labels
        self.names = names

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Rows) -> "LabelledImages":
        """A view; no pixel is copied."""
        names = self.names[positions] if self.names is not None else None
        return LabelledImages(self.images.take(positions), self.labels[positions], names)

    def name(self, position: int) -> str:
        """The image's file, else its row in its source, counted from 0."""
        if self.names is not None:
            return os.fsdecode(bytes(self.names[position]))
        return f"image {self.images.rows[position]:,}"


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

    def __len__(self) -> int:
        return len(self.train) + (len(self.test) if self.test is not None else 0)

    def take(self, positions: Rows) -> list[LabelledImages]:
        """Views of the images at these positions, the published test images counted after the others.

        One view for each of the two that positions are in, and of the other none.
        """
        first = len(self.train)
        parts = [self.train.take(positions[positions < first])]
        if self.test is not None:
            parts.append(self.test.take(positions[positions >= first] - first))
        return [part for part in parts if len(part)] or parts[:1]

    def content_hash(self) -> str:
        """sha256 over names, shapes, labels and the sha256 of each image: the same hash means the same data."""
        content = hashlib.sha256("\0".join(self.labels).encode())
        for part in (self.train, self.test):
            if part is not None:
                content.update(repr(part.images.shape).encode())
                content.update(part.images.digests.tobytes())
                content.update(part.labels.astype(np.int64).tobytes())
        return content.hexdigest()


def class_names(given: tuple[str, ...], *parts: LabelledImages) -> tuple[str, ...]:
    """The names of the classes, where images have indices: as given, else the indices themselves.

    Raises DataError where there are fewer names than classes.
    """
    classes = max(int(part.labels.max()) for part in parts) + 1
    names = given or tuple(str(i) for i in range(max(classes, 2)))
    if classes > len(names):
        raise DataError(
            f"The labels go up to {classes - 1}, but there are {len(names)} names ({', '.join(names)}); "
            "set data.labels to all of them, or to nothing."
        )
    return names


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
