"""A session and a runtime for tests."""

from collections.abc import Callable

import numpy as np

from schemas.bundle import INPUT_NAME, OUTPUT_NAMES, FloatArray, TensorInfo
from schemas.image import Pixels
from service.backends.base import Session

FAKE = "FakeExecutionProvider"


class FakeSession:
    """Returns answer(images), with the signature of a graph of this input shape and number of classes."""

    def __init__(
        self, shape: tuple[int, int, int], classes: int, answer: Callable[[Pixels], FloatArray], provider: str = FAKE
    ) -> None:
        self.provider = provider
        self.inputs = [TensorInfo(INPUT_NAME, "tensor(uint8)", ["batch", *shape])]
        self.outputs = [TensorInfo(name, "tensor(float)", ["batch", classes]) for name in OUTPUT_NAMES]
        self.warm_batches = (1,)
        self._answer = answer

    def run(self, images: Pixels) -> FloatArray:
        return self._answer(images)

    def explain(self, images: Pixels) -> tuple[FloatArray, FloatArray]:
        """The map is the mean over the channels."""
        return self._answer(images), images.mean(axis=3, dtype=np.float32)


class FakeRuntime:
    """Opens the session that session_of returns for the model's bytes."""

    provider = FAKE
    reason = "It is a fake, for tests."
    wide = None

    def __init__(self, session_of: Callable[[bytes], Session]) -> None:
        self._session_of = session_of

    def open(self, model: bytes) -> Session:
        return self._session_of(model)
