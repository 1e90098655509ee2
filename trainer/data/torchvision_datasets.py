"""Published data sets through torchvision: read from the data folder, else downloaded to it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import JsonValue

from schemas.image import fit_pixels
from schemas.manifest import InputSpec
from trainer.data.dataset import LabelledImages, SourceData
from trainer.data.decode_cache import Decoded, Decoding, EntryWriter, decode_once
from trainer.data.progress_bar import tracked
from trainer.errors import DataError, one_line


@dataclass(frozen=True)
class PublishedSet:
    """The name of the class in torchvision, the place of the files below the data folder, labels, shape and counts."""

    name: str
    dataset: str
    place: str
    labels: tuple[str, ...]
    shape: tuple[int, int, int]
    train: int
    test: int


# LeCun, Cortes & Burges, 1998. torchvision calls the classes "7 - seven".
MNIST_SET = PublishedSet("mnist", "MNIST", "MNIST/raw", tuple("0123456789"), (28, 28, 1), 60_000, 10_000)

# Krizhevsky, 2009.
CIFAR10_SET = PublishedSet(
    "cifar10",
    "CIFAR10",
    "cifar-10-batches-py",
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    (32, 32, 3),
    50_000,
    10_000,
)


@dataclass(frozen=True)
class PublishedSource:
    """input is the size that images are resized to; None keeps their own. cache is the folder for resized images."""

    published: PublishedSet
    folder: Path
    input: InputSpec | None = None
    cache: Path | None = None

    def check(self) -> None:
        """Raises DataError if the data folder is a file."""
        if self.folder.exists() and not self.folder.is_dir():
            raise DataError(f"{self.published.name} could not be read from {self.folder}, which is not a folder.")

    def shape(self) -> tuple[int, int, int]:
        return self.input.shape if self.input is not None else self.published.shape

    def resized(self, size: InputSpec) -> Self:
        return replace(self, input=size)

    def load(self) -> SourceData:
        height, width, channels = self.published.shape
        own = InputSpec(height=height, width=width, channels=channels)
        parts = {
            "train": self._part(train=True, count=self.published.train),
            "test": self._part(train=False, count=self.published.test),
        }
        notes: tuple[str, ...] = ()
        if self.input is not None and self.input.shape != own.shape:
            parts, notes = self._resized(parts, self.input)
        spec = self.input or own
        return SourceData(self.published.name, self.published.labels, spec, parts["train"], parts["test"], notes)

    def _resized(
        self, parts: dict[str, LabelledImages], spec: InputSpec
    ) -> tuple[dict[str, LabelledImages], tuple[str, ...]]:
        """Returns images that stay on the disk: CIFAR-10 at 224x224 is 9 GB."""

        def decode(writer: EntryWriter) -> Decoded:
            for name, data in parts.items():
                with writer.part(name, spec.shape) as part:
                    part.append(fit_pixels(image, spec) for image in tracked(data.images, "resizing", len(data)))
                    part.label(data.labels.tolist())
            return Decoded()

        files = sorted(path for path in (self.folder / self.published.place).iterdir() if path.is_file())
        settings: dict[str, JsonValue] = {"input": spec.model_dump(mode="json")}
        entry = decode_once(
            Decoding(self.published.name, self.folder, files, settings, (__name__,)), self.cache, decode
        )
        return entry.parts, (f"images resized to {spec.height}x{spec.width} ({spec.resize})", *entry.notes)

    def _part(self, *, train: bool, count: int) -> LabelledImages:
        published, place = self.published, self.folder / self.published.place
        from torchvision import datasets  # noqa: PLC0415 - it imports PyTorch; errors are reported without it

        try:
            part = getattr(datasets, published.dataset)(root=str(self.folder), train=train, download=True)
            images = np.asarray(part.data).reshape(-1, *published.shape)
            labels = np.asarray(part.targets, dtype=np.int64)
        except Exception as error:  # torchvision raises RuntimeError, AssertionError, OSError, ValueError, zlib's, ...
            raise DataError(
                f"{published.name} could not be read from {place} nor downloaded there ({one_line(error)}). "
                "Put the published files there, or delete the damaged ones and run again with a network."
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
