"""`python -m benchmarks.batch_scoring BUNDLE --data DIR`: the rate of `trainer score` next to the bare loop.

Both score the same PNG files of CIFAR-10, with one process per core. The bare loop reads, decodes and runs batches, and
writes nothing; its rate leaves out the start of its processes. The rate of the command is that which it prints, and
includes the start. DIR contains cifar-10-batches-py. The 60,000 images repeat if more are requested.
"""

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.processes import ROOT
from benchmarks.scaling import BATCH_RESULTS, BatchScoring
from schemas.image import decode_image
from trainer.evaluation.onnx_session import BATCH, OnnxModel
from trainer.files import open_newest_bundle


def write_images(data: Path, folder: Path, count: int) -> list[Path]:
    from torchvision.datasets import CIFAR10  # noqa: PLC0415 - the processes that are measured do not need it

    pixels = np.concatenate([CIFAR10(data, train=train).data for train in (True, False)])
    files = []
    for i, image in enumerate(islice(cycle(pixels), count)):
        files.append(folder / f"{i // 1000:03d}" / f"{i % 1000:03d}.png")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(files[-1])
    return files


def loop(bundle_path: Path, files: Sequence[Path], ready: Barrier, done: Barrier) -> None:
    bundle = open_newest_bundle(bundle_path)
    model = OnnxModel(bundle.read(bundle.manifest.fp32))
    ready.wait()
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        model.run(np.stack([decode_image(file.read_bytes(), bundle.manifest.input) for file in batch]))[0].argmax(1)
    done.wait()


def bare_loop(bundle: Path, files: Sequence[Path]) -> float:
    """Returns images per second."""
    context, cores = multiprocessing.get_context("spawn"), os.cpu_count() or 1
    ready, done = context.Barrier(cores + 1), context.Barrier(cores + 1)
    processes = [context.Process(target=loop, args=(bundle, files[i::cores], ready, done)) for i in range(cores)]
    for process in processes:
        process.start()
    ready.wait()
    began = time.perf_counter()
    done.wait()
    seconds = time.perf_counter() - began
    for process in processes:
        process.join()
    return len(files) / seconds


def command(bundle: Path, images: Path, out: Path, *options: str) -> float:
    """Returns images per second."""
    line = [sys.executable, "-m", "trainer", "score", str(bundle), str(images), str(out), *options]
    ended = subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603
    found = re.search(r"scored ([\d,]+) images in ([\d.]+) s", ended.stdout)
    assert found, ended.stdout
    return int(found[1].replace(",", "")) / float(found[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--ray", action="store_true", help="also measure --ray")
    parser.add_argument("--save", action="store_true", help="write docs/batch-scoring.json, for benchmarks.scaling")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        files = write_images(options.data, images, options.images)
        rates = {
            "bare loop": bare_loop(options.bundle, files),
            "score": command(options.bundle, images, Path(folder, "a")),
        }
        if options.ray:
            rates["score --ray"] = command(options.bundle, images, Path(folder, "b"), "--ray")
    result = BatchScoring(images=len(files), cores=os.cpu_count() or 1, images_per_second=rates)
    print(result.model_dump_json())
    if options.save:
        BATCH_RESULTS.write_text(result.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main()
