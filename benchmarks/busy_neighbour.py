"""`python -m benchmarks.busy_neighbour`: the training speed beside a busy process, relative to training alone.

Trains the network of `cifar10 --preset quick` on random images with all cores, alone and beside a process that keeps
one core busy, in turns. The exit status is 1 if the median of the rounds is below 45%.
"""

import json
import multiprocessing
import os
import statistics
import sys

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as python -m trainer does, before PyTorch is imported

import numpy as np
import torch

from schemas.manifest import InputSpec
from trainer.data.dataset import LabelledImages, SourceData
from trainer.data.split import Splits, split
from trainer.models.build import build_network
from trainer.recipe import DataConfig, Precision, Recipe, Source
from trainer.recipes.registry import find_recipe
from trainer.training.loop import fit
from trainer.training.progress import Reporter

ROUNDS = 3
SECONDS = 8.0
LEAST = 0.45
IMAGES = 5000


def random_images(recipe: Recipe) -> Splits:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    train = LabelledImages(images, np.arange(IMAGES) % 10)
    size, labels = InputSpec(height=32, width=32, channels=3), tuple("0123456789")
    return split(SourceData("random", labels, size, train, None), recipe.data)


def images_per_second(recipe: Recipe, data: Splits) -> float:
    fitted = fit(build_network(recipe, data), data, recipe, torch.device("cpu"), Reporter())
    return statistics.median(epoch.images_per_second for epoch in fitted.history)


def keep_busy() -> None:
    while True:
        pass


def main() -> int:
    quick = find_recipe("cifar10", "quick")
    data = DataConfig(source=Source.DIGITS, validation=0.04, test=0.04)  # the source is not read
    recipe = quick.model_copy(update={"data": data, "max_seconds": SECONDS, "precision": Precision.FP32})
    images, kept = random_images(recipe), []
    for _ in range(ROUNDS):
        alone = images_per_second(recipe, images)
        busy = multiprocessing.get_context("spawn").Process(target=keep_busy, daemon=True)
        busy.start()
        beside = images_per_second(recipe, images)
        busy.kill()
        busy.join()
        kept.append(beside / alone)
        print(json.dumps({"images_per_second": alone, "beside_a_busy_process": beside, "kept": kept[-1]}))
    median = statistics.median(kept)
    print(f"Training keeps {median:.0%} of its speed on {os.cpu_count()} cores; it must keep {LEAST:.0%}.")
    return int(median < LEAST)


if __name__ == "__main__":
    sys.exit(main())
