"""MNIST (LeCun, Cortes & Burges, 1998) through torchvision: found below the data folder, else downloaded there."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torchvision.datasets import MNIST

from schemas.manifest import InputSpec
from trainer.data.source import LabelledImages, SourceData
from trainer.errors import DataError


@dataclass(frozen=True)
class MnistSource:
    folder: Path

    def load(self) -> SourceData:
        return SourceData(
            name="mnist",
            labels=tuple(str(digit) for digit in range(10)),  # torchvision calls them "7 - seven"
            input=InputSpec(height=28, width=28, channels=1),
            train=self._part(train=True, count=60_000),
            test=self._part(train=False, count=10_000),
        )

    def _part(self, *, train: bool, count: int) -> LabelledImages:
        try:
            part = MNIST(root=str(self.folder), train=train, download=True)
            images = part.data.numpy()[..., np.newaxis]
            labels = part.targets.numpy().astype(np.int64)
        except Exception as error:  # torchvision raises RuntimeError, AssertionError, OSError, ValueError, zlib's, ...
            raise DataError(
                f"MNIST could not be read from {self.folder / 'MNIST' / 'raw'} nor downloaded there; "
                f"put its four idx files there, whole ({_reason(error)})."
            ) from error
        if images.shape != (count, 28, 28, 1) or labels.shape != (count,) or labels.max() > 9:  # noqa: PLR2004 - digits
            raise DataError(
                f"The MNIST files in {self.folder / 'MNIST' / 'raw'} are damaged "
                f"({len(images):,} images, {len(labels):,} labels, not {count:,}); delete them and run again."
            )
        return LabelledImages(images, labels)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
