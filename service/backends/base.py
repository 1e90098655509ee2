"""The interface between the service and whatever runs a model."""

from collections.abc import Sequence
from typing import Protocol

from schemas.bundle import FloatArray, TensorInfo
from schemas.image import Pixels

# ONNX Runtime's names of its execution providers.
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


class Session(Protocol):
    """One loaded graph. run is called from one thread at a time."""

    @property
    def provider(self) -> str:
        """The execution provider that runs the graph, whatever was requested."""

    @property
    def inputs(self) -> Sequence[TensorInfo]: ...

    @property
    def outputs(self) -> Sequence[TensorInfo]: ...

    @property
    def warm_batches(self) -> Sequence[int]:
        """The batch sizes to run at load, so that no request waits for memory or for the choice of kernels."""

    def run(self, images: Pixels) -> FloatArray:
        """Returns probabilities float32 [batch, classes] for images uint8 [batch, height, width, channels].

        Raises InferenceError; DeviceMemoryError if the device has no memory for a single image.
        """

    def explain(self, images: Pixels) -> tuple[FloatArray, FloatArray]:
        """Like run, and returns the class activation maps float32 [batch, h, w] of a graph that has them."""


class Runtime(Protocol):
    """Opens sessions on one device."""

    @property
    def provider(self) -> str:
        """The execution provider on which sessions are to run."""

    @property
    def reason(self) -> str:
        """Why it is this provider."""

    @property
    def wide(self) -> "Runtime | None":
        """Opens sessions with more threads, for an image that runs alone. None if more threads would not help."""

    def open(self, model: bytes) -> Session:
        """Raises InferenceError if the bytes are not a graph that this runtime can use."""
