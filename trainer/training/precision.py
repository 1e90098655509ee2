"""The precision of a run: fp32, or bf16 under autocast, whichever trains the network faster on the device."""

import copy
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.nn import functional

from trainer.data.dataset import LabelledImages
from trainer.recipe import Precision, Recipe
from trainer.training.distributed import ALONE, World
from trainer.training.loader import GatheredImages

_ROUNDS = 3
_ENOUGH_SECONDS = 1.0
# Pixels of a batch that is timed on a CPU, so that even a slow network takes about a second.
_CPU_PIXELS = 2**16


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision is Precision.BF16)


def with_precision(
    recipe: Recipe,
    network: nn.Module,
    data: LabelledImages,
    device: torch.device,
    note: Callable[[str], None],
    *,
    world: World = ALONE,
    clock: Callable[[], float] = time.perf_counter,
) -> Recipe:
    """Returns the recipe with precision fp32 or bf16; for auto, the faster one by a measurement that it reports.

    CPU flags do not show which one is faster: a processor may run bf16 instructions at half the speed of fp32.
    """
    if recipe.precision is not Precision.AUTO:
        return recipe
    if not _has_bf16(device):
        note("Precision fp32: PyTorch only emulates bf16 on this device.")
        return recipe.model_copy(update={"precision": Precision.FP32})
    seconds = world.broadcast(_step_seconds(recipe.batch_size // world.size, network, data, device, clock))
    fastest = min(seconds, key=lambda precision: seconds[precision])
    figures = " and ".join(f"{value * 1000:.3g} ms in {precision}" for precision, value in seconds.items())
    note(f"Precision {fastest}: a training step takes {figures}.")
    return recipe.model_copy(update={"precision": fastest})


def _has_bf16(device: torch.device) -> bool:
    """Whether PyTorch has bf16 kernels for the device. Emulation is so slow that measuring it could take minutes."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _step_seconds(
    count: int, network: nn.Module, data: LabelledImages, device: torch.device, clock: Callable[[], float]
) -> dict[Precision, float]:
    """Returns the seconds of forward and backward of `count` images in each precision: the shortest of some.

    It uses a copy of the network and leaves the state of the random generators as it was.
    """
    _, height, width, _ = data.images.shape
    count = min(count, len(data))
    if device.type == "cpu":
        count = min(count, max(2, _CPU_PIXELS // (height * width)))
    images, labels = GatheredImages(data, device).batch(torch.arange(count))
    network = copy.deepcopy(network).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    seconds = dict.fromkeys((Precision.FP32, Precision.BF16), math.inf)
    began = clock()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for i in range(1 + _ROUNDS):
            for precision in seconds:
                started = clock()
                with autocast(device, precision):
                    logits = network(images)
                functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if i:  # the first round compiles kernels and lays out weights
                    seconds[precision] = min(seconds[precision], clock() - started)
            if i and clock() - began > _ENOUGH_SECONDS:
                break
    return seconds
