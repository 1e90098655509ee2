"""Decodes and runs batches in a loop, in one process per core and without a server: the upper bound of the machine.

    python -m benchmarks.serving.peers.bare_loop MODEL.onnx BUNDLE FILE BATCH SECONDS

FILE is an image, or an .npy of pixels. Prints images per second over all processes, and the microseconds of one core
per image for decode and for run.
"""

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

from schemas.bundle import open_bundle
from schemas.image import decode_image


def work(model: str, bundle: str, file: str, batch: int, seconds: float) -> tuple[int, float, float]:
    """Returns images, and CPU seconds of decode and of run."""
    spec = open_bundle(Path(bundle)).manifest.input
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    data = Path(file).read_bytes()
    ready = np.load(file)[:batch] if file.endswith(".npy") else None
    images, decode, run, end = 0, 0.0, 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.process_time()
        pixels = np.stack([decode_image(data, spec) for _ in range(batch)]) if ready is None else ready
        decoded = time.process_time()
        session.run(["probabilities"], {"images": pixels})
        run += time.process_time() - decoded
        decode += decoded - began
        images += batch
    return images, decode, run


def main() -> None:
    model, bundle, file, batch, seconds = sys.argv[1:]
    cores = os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        pool.starmap(work, [(model, bundle, file, int(batch), 0.5)] * cores)  # warm up
        found = pool.starmap(work, [(model, bundle, file, int(batch), float(seconds))] * cores)
    images = sum(one[0] for one in found)
    decode, run = (sum(one[part] for one in found) / images * 1e6 for part in (1, 2))
    print(json.dumps({"images_per_second": images / float(seconds), "decode_us": decode, "run_us": run}))


if __name__ == "__main__":
    main()
