"""The UCI digits inside scikit-learn: 1,797 handwritten digits, 8x8, grey (Alpaydin & Kaynak, 1998). No download."""

from dataclasses import dataclass

import numpy as np

from schemas.image import fit_pixels
from schemas.manifest import InputSpec
from trainer.data.dataset import LabelledImages, SourceData


@dataclass(frozen=True)
class DigitsSource:
    """input is the size that images are resized to; None keeps their 8x8."""

    input: InputSpec | None = None

    def load(self) -> SourceData:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - it takes a second, and other data does without

        bunch = load_digits()
        pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
        spec = self.input or InputSpec(height=8, width=8, channels=1)
        pixels = np.stack([fit_pixels(image, spec) for image in pixels])
        return SourceData(
            name="digits",
            labels=tuple(str(name) for name in bunch.target_names),
            input=spec,
            train=LabelledImages(pixels, bunch.target.astype(np.int64)),
            test=None,
        )
