"""`python -m benchmarks.map_output`: what an answer without a map would cost if the graph had the output `cam`.

Prints the CPU time of one run that requests the probabilities alone, of a small network without the output and with it
(docs/decisions/0019-class-activation-maps.md).
"""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from schemas.bundle import FloatArray
from schemas.manifest import InputSpec
from service.backends.onnx import OnnxRuntime
from service.settings import Device
from trainer.export.onnx import export_with_map
from trainer.models.build import build
from trainer.models.layers import Normalise, Shape
from trainer.network_config import FastConfig

_SPEC = InputSpec(height=28, width=28, channels=1)
_NETWORK = FastConfig(widths=(16, 32))
_ROUNDS, _RUNS = 400, 20


def main() -> None:
    shape = Shape(height=_SPEC.height, width=_SPEC.width, channels=_SPEC.channels, classes=10)
    torch.manual_seed(0)
    network = nn.Sequential(Normalise(torch.tensor([0.5]), torch.tensor([0.25])), build(_NETWORK, shape)).eval()
    image = np.random.default_rng(0).integers(0, 256, (1, *_SPEC.shape), np.uint8)
    graph, _ = export_with_map(network, _SPEC, 1.0, image)
    runtime = OnnxRuntime(Device.CPU, threads=1, spin=False)
    sessions = {"without the output": runtime.open(graph.main), "with the output": runtime.open(graph.whole)}
    fastest = dict.fromkeys(sessions, math.inf)
    for _ in range(_ROUNDS):  # in turns, since other processes slow down the machine for a while
        for name, session in sessions.items():
            fastest[name] = min(fastest[name], _seconds(lambda run=session.run: run(image)))  # type: ignore[misc]
    for name, seconds in fastest.items():
        print(f"{name:20} {seconds * 1e6:6.1f} µs of CPU time per image")


def _seconds(run: Callable[[], FloatArray]) -> float:
    started = time.thread_time()
    for _ in range(_RUNS):
        run()
    return (time.thread_time() - started) / _RUNS


if __name__ == "__main__":
    main()
