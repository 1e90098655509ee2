"""Compares the speed of a variant with fp32, through ONNX Runtime, in about half a second.

One thread runs a batch: a service for many requests has one worker per core.
"""

import time
from collections.abc import Sequence

import numpy as np

from schemas.image import Pixels
from schemas.manifest import BatchSpeed
from trainer.evaluation.onnx_session import OnnxModel

LARGE_BATCH = 32  # the service's default limit of images per inference
_SECONDS, _MIN_ROUNDS = 0.2, 3  # per batch size
_LONGEST_RUN = 0.2  # seconds; a slower network gets a smaller large batch


def measure_speed(model: OnnxModel, fp32: OnnxModel, images: Pixels) -> tuple[BatchSpeed, ...]:
    """Measures batch size 1 and a larger one. Images are repeated if there are too few."""
    one = _measure(model, fp32, images, 1)
    large = max(2, min(LARGE_BATCH, int(_LONGEST_RUN * one.fp32_images_per_second)))
    return one, _measure(model, fp32, images, large)


def _measure(model: OnnxModel, fp32: OnnxModel, images: Pixels, batch: int) -> BatchSpeed:
    seconds = _fastest((model, fp32), np.resize(images, (batch, *images.shape[1:])))
    return BatchSpeed(batch=batch, images_per_second=batch / seconds[0], fp32_images_per_second=batch / seconds[1])


def _fastest(models: Sequence[OnnxModel], images: Pixels) -> list[float]:
    """Returns the seconds of each model's fastest run; models take turns, as other processes only slow a run."""
    for model in models:
        model.run(images)
    fastest, rounds, started = [float("inf")] * len(models), 0, time.perf_counter()
    while rounds < _MIN_ROUNDS or time.perf_counter() - started < _SECONDS:
        for i, model in enumerate(models):
            before = time.perf_counter()
            model.run(images)
            fastest[i] = min(fastest[i], time.perf_counter() - before)
        rounds += 1
    return fastest
