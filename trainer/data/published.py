"""Published sets through torchvision: found below the data folder, else downloaded there."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, MNIST

from schemas.manifest import InputSpec
from trainer.data.source import LabelledImages, SourceData
from trainer.errors import DataError


@dataclass(frozen=True)
class PublishedSet:
    """What is known of a set: its files' place below the data folder, its classes, shape and counts."""

    name: str
    dataset: type[MNIST] | type[CIFAR10]
    place: str
    labels: tuple[str, ...]
    shape: tuple[int, int, int]
    train: int
    test: int


# LeCun, Cortes & Burges, 1998. torchvision calls the classes "7 - seven".
MNIST_SET = PublishedSet("mnist", MNIST, "MNIST/raw", tuple("0123456789"), (28, 28, 1), 60_000, 10_000)

# Krizhevsky, 2009.
CIFAR10_SET = PublishedSet(
    "cifar10",
    CIFAR10,
    "cifar-10-batches-py",
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    (32, 32, 3),
    50_000,
    10_000,
)


@dataclass(frozen=True)
class PublishedSource:
    published: PublishedSet
    folder: Path

    def load(self) -> SourceData:
        height, width, channels = self.published.shape
        return SourceData(
            name=self.published.name,
            labels=self.published.labels,
            input=InputSpec(height=height, width=width, channels=channels),
            train=self._part(train=True, count=self.published.train),
            test=self._part(train=False, count=self.published.test),
        )

    def _part(self, *, train: bool, count: int) -> LabelledImages:
        published, place = self.published, self.folder / self.published.place
        try:
            part = published.dataset(root=str(self.folder), train=train, download=True)
            images = np.asarray(part.data).reshape(-1, *published.shape)
            labels = np.asarray(part.targets, dtype=np.int64)
        except Exception as error:  # torchvision raises RuntimeError, AssertionError, OSError, ValueError, zlib's, ...
            raise DataError(
                f"{published.name} could not be read from {place} nor downloaded there ({_reason(error)}); "
                "put its published files there, or delete those that are damaged and run again with a network."
            ) from error
        wrong = None
        if len(images) != count or labels.shape != (count,):
            wrong = f"{len(images):,} images and {len(labels):,} labels instead of {count:,}"
        elif labels.min() < 0 or labels.max() >= len(published.labels):
            wrong = f"labels up to {labels.max()} instead of {len(published.labels) - 1}"
        if wrong:
            which = "training" if train else "test"
            raise DataError(
                f"The {which} files of {published.name} in {place} hold {wrong}; delete them and run again."
            )
        return LabelledImages(images, labels)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
