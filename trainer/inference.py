"""The trainer's own ONNX Runtime session: what it measures is the file, not the network the file came from."""

from typing import Protocol

import numpy as np
import onnxruntime

from schemas.bundle import INPUT_NAME, OUTPUT_NAMES, FloatArray, TensorInfo
from schemas.image import Pixels

BATCH = 256


class ImageRows(Protocol):
    """uint8 [n, height, width, channels], in memory or on disk; a slice of it is in memory."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice, /) -> Pixels: ...


class OnnxModel:
    """A model's bytes on the CPU execution provider."""

    def __init__(self, model: bytes) -> None:
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.inputs = [TensorInfo(tensor.name, tensor.type, tensor.shape) for tensor in self._session.get_inputs()]
        self.outputs = [TensorInfo(tensor.name, tensor.type, tensor.shape) for tensor in self._session.get_outputs()]

    def run(self, images: Pixels) -> tuple[FloatArray, FloatArray]:
        """uint8 [n, height, width, channels] -> probabilities and logits, float32 [n, classes], in one inference."""
        probabilities, logits = self._session.run(list(OUTPUT_NAMES), {INPUT_NAME: images})
        return probabilities, logits

    def probabilities(self, images: ImageRows) -> FloatArray:
        """As run, in batches of a fixed size, so that any number of images fits into memory."""
        return np.concatenate([self.run(images[i : i + BATCH])[0] for i in range(0, len(images), BATCH)])

    def logits(self, images: ImageRows) -> FloatArray:
        return np.concatenate([self.run(images[i : i + BATCH])[1] for i in range(0, len(images), BATCH)])
