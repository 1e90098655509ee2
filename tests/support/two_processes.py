"""Run by torchrun: each process takes one step, validates, and writes the results to a file of its own."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.support import colour_images
from trainer.models.build import build_network
from trainer.network_config import PlainConfig
from trainer.recipe import AugmentConfig, OptimizerConfig, OptimizerName, Recipe
from trainer.training.distributed import ALONE, World, join
from trainer.training.loop import TrainingRun

CPU = torch.device("cpu")
IMAGES = 96  # validation and the last batch are odd


def recipe() -> Recipe:
    """Nothing in it is random, so one process and two must compute the same."""
    return colour_images.recipe(
        network=PlainConfig(widths=(4,), batch_norm=False, dense=8, dropout=0),
        augment=AugmentConfig(),
        optimizer=OptimizerConfig(name=OptimizerName.SGD, learning_rate=0.05),
        class_weights="balanced",
        label_smoothing=0.1,
        ema_decay=0.5,
        batch_size=15,
    )


def prepare(world: World = ALONE) -> TrainingRun:
    data = colour_images.splits(recipe(), IMAGES)
    torch.manual_seed(0)
    return TrainingRun(build_network(recipe(), data), data, recipe(), CPU, world)


def take_step(run: TrainingRun) -> dict[str, torch.Tensor]:
    """Returns the gradients of a step, and the weights and the validation figures after it."""
    run.step(torch.arange(15), 0.05)
    gradients = {f"gradient.{name}": value.grad.contiguous() for name, value in run.trained if value.grad is not None}
    weights = {name: value.contiguous().clone() for name, value in run.validated.state_dict().items()}
    return gradients | weights | {"validation": torch.tensor(run.validate(), dtype=torch.float64)}


if __name__ == "__main__":
    with join(CPU) as world:
        save_file(take_step(prepare(world)), Path(sys.argv[1]) / f"{world.rank}.safetensors")
