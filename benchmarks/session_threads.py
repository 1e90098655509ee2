"""`python -m benchmarks.session_threads`: ResNet-18 at 224 by threads per session and processes at a time.

Each process runs batches of one image without a pause. Threads that do not help a lone process, or that slow down as
many processes as there are cores, are not worth having.
"""

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import onnxruntime

SECONDS = 3.0
ROUNDS = 3


def network() -> bytes:
    """Returns ResNet-18 as ONNX. Its weights are random, which does not affect its speed."""
    import torch  # noqa: PLC0415 - the processes that are measured do not need it
    from torchvision.models import resnet18  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        torch.onnx.export(resnet18().eval(), (torch.zeros(1, 3, 224, 224),), path, external_data=False)
        return path.read_bytes()


def run(model: bytes, threads: int, start: Barrier, results: "multiprocessing.Queue[tuple[float, float]]") -> None:
    """Puts the median of milliseconds per image, and the milliseconds of CPU time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: np.zeros((1, 3, 224, 224), np.float32)}
    session.run(None, inputs)
    start.wait()
    end, cpu, took = time.perf_counter() + SECONDS, time.process_time(), []
    while (began := time.perf_counter()) < end:
        session.run(None, inputs)
        took.append(1000 * (time.perf_counter() - began))
    results.put((statistics.median(took), 1000 * (time.process_time() - cpu) / len(took)))


def measure(model: bytes, threads: int, processes: int) -> tuple[float, float]:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(processes), context.Queue()
    children = [context.Process(target=run, args=(model, threads, start, results)) for _ in range(processes)]
    for child in children:
        child.start()
    found = [results.get() for _ in children]
    for child in children:
        child.join()
    latency, cpu = (statistics.mean(values) for values in zip(*found, strict=True))
    return latency, cpu


def main() -> None:
    model, cores = network(), len(os.sched_getaffinity(0))
    cases = [(threads, processes) for processes in (1, cores) for threads in (1, cores)]
    rounds = [{case: measure(model, *case) for case in cases} for _ in range(ROUNDS)]
    for threads, processes in cases:
        latency, cpu = (
            statistics.median(values) for values in zip(*(one[threads, processes] for one in rounds), strict=True)
        )
        row = {"threads": threads, "processes": processes, "ms_per_image": latency, "cpu_ms_per_image": cpu}
        sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
