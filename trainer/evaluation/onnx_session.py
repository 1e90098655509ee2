"""The trainer's ONNX Runtime session: metrics are measured on the file, not on the network it was exported from."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import onnxruntime

from schemas.bundle import INPUT_NAME, MAP_NAME, OUTPUT_NAMES, FloatArray, TensorInfo
from schemas.image import Pixels

BATCH = 32  # whose activations fit into the cache of a core
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


class ImageRows(Protocol):
    """uint8 [n, height, width, channels], in memory or on disk; a slice of it is in memory."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice, /) -> Pixels: ...


class OnnxModel:
    """A session for a model's bytes on an execution provider. threads are those of one run; 0 is one per core."""

    def __init__(self, model: bytes, provider: str = CPU, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
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
        names = [OUTPUT_NAMES[0], MAP_NAME]
        batches = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
        found = [self._session.run(names, {INPUT_NAME: batch}) for batch in batches]
        probabilities, maps = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return probabilities, maps

    def answers(self, images: ImageRows) -> tuple[FloatArray, FloatArray]:
        """Like run, in batches of a fixed size, so that any number of images fits into memory.

        Each core runs batches of its own: cores that share a batch wait for each other at every layer.
        """
        with ThreadPoolExecutor(1 if self.provider == CUDA else os.cpu_count()) as cores:
            batches = list(cores.map(lambda i: self.run(images[i : i + BATCH]), range(0, len(images), BATCH)))
        probabilities, logits = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        return probabilities, logits

    def probabilities(self, images: ImageRows) -> FloatArray:
        return self.answers(images)[0]

    def logits(self, images: ImageRows) -> FloatArray:
        return self.answers(images)[1]
