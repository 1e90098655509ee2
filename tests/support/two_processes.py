"""Run by torchrun: one step and one validation in each process, written to a file for each."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.support import colour_images
from trainer.data.split import split
from trainer.models.build import build_network
from trainer.network_config import PlainConfig
from trainer.recipe import AugmentConfig, OptimizerConfig, OptimizerName, Recipe
from trainer.training.distributed import join
from trainer.training.loop import TrainingRun

CPU = torch.device("cpu")
IMAGES = 96  # validation and the last batch are odd


def recipe() -> Recipe:
    """Nothing in it is drawn anew for each process, so that one process and two must do the same."""
    return colour_images.recipe(
        network=PlainConfig(widths=(4,), batch_norm=False, dense=8, dropout=0),
        augment=AugmentConfig(),
        optimizer=OptimizerConfig(name=OptimizerName.SGD, learning_rate=0.05),
        class_weights="balanced",
        label_smoothing=0.1,
        precision="fp32",
        ema_decay=0.5,
        batch_size=15,
    )


def prepared(**world: object) -> TrainingRun:
    data = split(colour_images.source(IMAGES).load(), recipe().data)
    torch.manual_seed(0)
    return TrainingRun(build_network(recipe(), data), data, recipe(), CPU, **world)  # type: ignore[arg-type]


def stepped(run: TrainingRun) -> dict[str, torch.Tensor]:
    """Gradients of a step, weights after it, and what validation says then."""
    run.update(torch.arange(15), 0.05)
    gradients = {f"gradient.{name}": value.grad.contiguous() for name, value in run.trained if value.grad is not None}
    validation = torch.tensor(run._validate(), dtype=torch.float64)
    return (
        gradients
        | {name: value.contiguous().clone() for name, value in run.judged.state_dict().items()}
        | {"said": validation}
    )


if __name__ == "__main__":
    with join(CPU) as world:
        save_file(stepped(prepared(world=world)), Path(sys.argv[1]) / f"{world.rank}.safetensors")
