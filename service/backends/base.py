"""The seam of what runs a model."""

from collections.abc import Sequence
from typing import Protocol

from schemas.bundle import FloatArray, TensorInfo
from schemas.image import Pixels


class Session(Protocol):
    """One loaded graph. run is called from one thread at a time."""

    @property
    def provider(self) -> str:
        """The execution provider that really runs it."""

    @property
    def inputs(self) -> Sequence[TensorInfo]: ...

    @property
    def outputs(self) -> Sequence[TensorInfo]: ...

    @property
    def warm_batches(self) -> Sequence[int]:
        """The batch sizes to run before it is ready: memory is taken and kernels are chosen then, not at a request."""

    def run(self, images: Pixels) -> FloatArray:
        """uint8 [batch, height, width, channels] -> probabilities float32 [batch, classes].

        Raises InferenceError, or DeviceMemoryError where there is no memory for a single image.
        """


class Runtime(Protocol):
    """Opens sessions, all on one device. provider is what they are to run on, reason why."""

    @property
    def provider(self) -> str: ...

    @property
    def reason(self) -> str: ...

    def open(self, model: bytes) -> Session:
        """Raises InferenceError for bytes that are no usable graph."""
