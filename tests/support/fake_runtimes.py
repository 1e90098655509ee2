"""Runtimes that answer without ONNX Runtime."""

import threading
from collections.abc import Callable

import numpy as np

from schemas.bundle import FloatArray
from schemas.image import Pixels
from service.backends.fake import FakeRuntime, FakeSession
from tests.support.bundles import COLOURS


def probabilities_of(images: Pixels) -> FloatArray:
    """Returns the answers of the colours model."""
    logits = images.mean(axis=(1, 2)) * 20 / 255
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: FloatArray = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


def colours(before: Callable[[Pixels], None]) -> FakeRuntime:
    """Answers as the colours model does, after a call of before(images)."""

    def answer(images: Pixels) -> FloatArray:
        before(images)
        return probabilities_of(images)

    return FakeRuntime(lambda _: FakeSession((8, 8, 3), len(COLOURS), answer))


class Gate:
    """For colours: stops a batch with an image of 77s until go_on is set."""

    def __init__(self) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()

    def __call__(self, images: Pixels) -> None:
        if (images == 77).any():
            self.entered.set()
            assert self.go_on.wait(60)
