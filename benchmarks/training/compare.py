"""Trains the tutorial's network and then Convoy's, in ever larger parts of the time that the tutorial's needed."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch._dynamo  # the first optimizer of a process imports it

from benchmarks.training.results import Case, Comparison, ConvoyRun, Epoch
from trainer.data.detect import open_source
from trainer.data.split import Splits, split
from trainer.export.onnx import network_logits
from trainer.models.build import build_network
from trainer.recipe import Recipe
from trainer.recipes.registry import find_recipe
from trainer.training.loop import fit
from trainer.training.precision import with_precision
from trainer.training.progress import Reporter

CPU = torch.device("cpu")
SEEDS = (0, 1, 2)
PARTS = (16, 12, 10, 8, 7, 6, 5, 4)  # of the tutorial's seconds


def compare(case: Case, data: Path, keras: Path) -> Comparison:
    recipe = find_recipe(case.name, case.preset)
    source = open_source(recipe.data, data).load()
    assert source.test is not None
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "arrays.npz"
        train, test = source.train, source.test
        np.savez(
            arrays, images=train.images[:], labels=train.labels, test_images=test.images[:], test_labels=test.labels
        )
        tutorial = train_tutorial(case, arrays, keras)
    splits, runs = split(source, recipe.data), list[ConvoyRun]()
    for part in PARTS:
        found = [run(recipe, splits, tutorial[-1].seconds / part, seed) for seed in SEEDS]
        runs += found
        if median(each.accuracy for each in found) >= case.accuracy:
            break
    return Comparison(keras=tuple(tutorial), convoy=tuple(runs))


def train_tutorial(case: Case, arrays: Path, keras: Path) -> list[Epoch]:
    script = Path(__file__).parent / "keras_tutorial.py"
    command = [str(part) for part in (keras, script, case.name, arrays, case.accuracy, case.max_seconds)]
    epochs = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        for line in process.stdout:
            epochs.append(Epoch.model_validate_json(line))
            print(case.title, "Keras", epochs[-1], file=sys.stderr)
    if process.returncode:
        sys.exit(f"The tutorial's training ended with status {process.returncode}.")
    return epochs


def run(recipe: Recipe, data: Splits, limit: float, seed: int) -> ConvoyRun:
    """Trains within the limit. The preparation of the network and the measurement of the precision count."""
    started = time.perf_counter()
    torch.manual_seed(seed)
    recipe = recipe.model_copy(update={"seed": seed})
    network = build_network(recipe, data)
    recipe = with_precision(recipe, network, data.train, CPU, Reporter().note)
    left = limit - (time.perf_counter() - started)
    fitted = fit(network, data, recipe.model_copy(update={"max_seconds": left}), CPU, Reporter())
    seconds = time.perf_counter() - started
    correct = network_logits(fitted.network, data.test.images).argmax(axis=1) == data.test.labels
    result = ConvoyRun(seed=seed, limit=limit, seconds=seconds, accuracy=float(correct.mean()))
    print("Convoy", result, file=sys.stderr)
    return result
