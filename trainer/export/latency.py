"""How fast one file is beside another, through ONNX Runtime, in a second or two."""

import time
from collections.abc import Sequence

import numpy as np

from schemas.image import Pixels
from schemas.manifest import BatchSpeed
from trainer.evaluation.onnx_session import OnnxModel

LARGE_BATCH = 32  # as many as the service puts into an inference at most, unless told otherwise
_SECONDS, _LEAST_ROUNDS = 0.7, 3  # a batch size
_LONGEST_RUN = 0.2  # seconds; a network that is slower than that gets a smaller large batch


def measure_speed(model: OnnxModel, fp32: OnnxModel, images: Pixels) -> tuple[BatchSpeed, ...]:
    """At batch 1 and at a larger one; images are repeated where there are fewer."""
    one = _measure(model, fp32, images, 1)
    return one, _measure(model, fp32, images, _large(one.fp32_images_per_second))


def _large(images_per_second: float) -> int:
    return max(2, min(LARGE_BATCH, int(_LONGEST_RUN * images_per_second)))


def _measure(model: OnnxModel, fp32: OnnxModel, images: Pixels, batch: int) -> BatchSpeed:
    seconds = _fastest((model, fp32), np.resize(images, (batch, *images.shape[1:])))
    return BatchSpeed(batch=batch, images_per_second=batch / seconds[0], fp32_images_per_second=batch / seconds[1])


def _fastest(models: Sequence[OnnxModel], images: Pixels) -> list[float]:
    """Seconds of each model's fastest run. They run in turns, and what else the machine does only ever slows a run."""
    for model in models:
        model.run(images)
    fastest, rounds, started = [float("inf")] * len(models), 0, time.perf_counter()
    while rounds < _LEAST_ROUNDS or time.perf_counter() - started < _SECONDS:
        for i, model in enumerate(models):
            before = time.perf_counter()
            model.run(images)
            fastest[i] = min(fastest[i], time.perf_counter() - before)
        rounds += 1
    return fastest
