"""The trainer's ONNX Runtime session: metrics are measured on the file, not on the network it was exported from."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import onnxruntime

from schemas.bundle import INPUT_NAME, MAP_NAME, OUTPUT_NAMES, FloatArray, TensorInfo
from schemas.image import Pixels

BATCH = 32
# Pixels of a batch. More images of 224x224 would be no faster, and their activations take gigabytes.
_BATCH_PIXELS = 2**17
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


class ImageRows(Protocol):
    """uint8 [n, height, width, channels], in memory or on disk; a slice of it is in memory."""

    @property
    def shape(self) -> tuple[int, int, int, int]: ...
    def __getitem__(self, rows: slice, /) -> Pixels: ...


def batches(images: ImageRows) -> list[slice]:
    """Returns the rows of each batch: at most 32 images, fewer if they are large."""
    count, height, width, _ = images.shape
    size = max(1, min(BATCH, _BATCH_PIXELS // (height * width)))
    return [slice(start, start + size) for start in range(0, count, size)]


class OnnxModel:
    """A session for a model's bytes on an execution provider. On a CPU, a run takes one thread."""

    def __init__(self, model: bytes, provider: str = CPU) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        # TF32 would round fp32 to 10 bits; the service turns it off as well.
        providers = [(provider, {"use_tf32": "0"} if provider == CUDA else {})]
        # Without enable_fallback=0, ONNX Runtime would silently continue on the CPU after an error on the GPU.
        self._session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
        self.provider: str = self._session.get_providers()[0]
        self.inputs = [TensorInfo(tensor.name, tensor.type, tensor.shape) for tensor in self._session.get_inputs()]
        self.outputs = [TensorInfo(tensor.name, tensor.type, tensor.shape) for tensor in self._session.get_outputs()]

    def run(self, images: Pixels) -> tuple[FloatArray, FloatArray]:
        """Returns probabilities and logits, float32 [n, classes], of uint8 [n, height, width, channels]."""
        probabilities, logits = self._session.run(list(OUTPUT_NAMES), {INPUT_NAME: images})
        return probabilities, logits

    def explain(self, images: Pixels) -> tuple[FloatArray, FloatArray]:
        """Returns probabilities, and class activation maps, float32 [n, h, w]. The graph must have the output `cam`."""
        probabilities, maps = self.compute(images, (OUTPUT_NAMES[0], MAP_NAME))
        return probabilities, maps

    def answers(self, images: ImageRows) -> tuple[FloatArray, FloatArray]:
        """Like run, for any number of images."""
        probabilities, logits = self.compute(images, OUTPUT_NAMES)
        return probabilities, logits

    def compute(self, images: ImageRows, names: Sequence[str]) -> list[FloatArray]:
        """Returns these outputs of the graph, computed in batches, so that any number of images fits into memory.

        Each core runs batches of its own: cores that share a batch wait for each other at every layer.
        """
        with ThreadPoolExecutor(1 if self.provider == CUDA else os.cpu_count()) as cores:
            found = cores.map(lambda rows: self._session.run(names, {INPUT_NAME: images[rows]}), batches(images))
            return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def probabilities(self, images: ImageRows) -> FloatArray:
        return self.answers(images)[0]

    def logits(self, images: ImageRows) -> FloatArray:
        return self.answers(images)[1]
