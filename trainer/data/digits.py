"""The UCI digits inside scikit-learn: 1,797 handwritten digits, 8x8, grey (Alpaydin & Kaynak, 1998). No download."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import numpy as np

from schemas.image import fit_pixels
from schemas.manifest import InputSpec
from trainer.data.dataset import LabelledImages, SourceData


@dataclass(frozen=True)
class DigitsSource:
    """input is the size that images are resized to; None keeps their 8x8."""

    input: InputSpec | None = None

    def shape(self) -> tuple[int, int, int]:
        return self.input.shape if self.input is not None else (8, 8, 1)

    def resized(self, size: InputSpec) -> Self:
        return replace(self, input=size)

    def load(self) -> SourceData:
        # Reads the file in place: importing scikit-learn takes longer than training on it for an epoch.
        package = find_spec("sklearn")
        if package is None or package.origin is None:
            raise ModuleNotFoundError("scikit-learn is not installed.", name="scikit-learn")
        table = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", np.int64, delimiter=",")
        pixels = np.round(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
        spec = self.input or InputSpec(height=8, width=8, channels=1)
        pixels = np.stack([fit_pixels(image, spec) for image in pixels])
        return SourceData(
            name="digits",
            labels=tuple("0123456789"),
            input=spec,
            train=LabelledImages(pixels, table[:, -1]),
            test=None,
        )
