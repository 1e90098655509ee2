"""The learning-rate range test: the rate rises from step to step until the loss explodes (Smith, 2017)."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from trainer.data.split import Splits
from trainer.errors import RunError
from trainer.recipe import Recipe
from trainer.training.loop import TrainingRun

# Around the recipe's own rate: from where nothing moves to where everything explodes.
_LOWEST, _HIGHEST = 1e-4, 1e3
_SMOOTHING = 0.9
_EXPLODED = 4.0
LEAST_STEPS = 10


@dataclass(frozen=True)
class RangeTest:
    """losses are smoothed; suggestion is a tenth of the rate at which they were lowest."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float


def find_learning_rate(
    network: nn.Module, data: Splits, recipe: Recipe, device: torch.device, steps: int = 100
) -> RangeTest:
    """Trains the network for at most so many steps; it is of no use afterwards.

    Raises RunError where the loss explodes at once or is no number.
    """
    run = TrainingRun(network, data, recipe, device)
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    lowest = recipe.optimizer.learning_rate * _LOWEST
    for i, index in enumerate(itertools.islice(_batches(run), steps)):
        rate = lowest * (_HIGHEST / _LOWEST) ** (i / max(steps - 1, 1))
        loss = run.update(index, rate)[0].item() / len(index)
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        smooth = average / (1 - _SMOOTHING ** (i + 1))
        if not math.isfinite(smooth) or (losses and smooth > _EXPLODED * min(losses)):
            break
        rates.append(rate)
        losses.append(smooth)
    if len(rates) < LEAST_STEPS:
        raise RunError(
            f"The loss exploded after {len(rates)} steps; the range begins at a {1 / _LOWEST:,.0f}th of "
            "optimizer.learning_rate: set that lower."
        )
    return RangeTest(tuple(rates), tuple(losses), rates[losses.index(min(losses))] / 10)


def write_plot(path: Path, test: RangeTest, recipe: Recipe) -> None:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(test.rates, test.losses, label="loss, smoothed")
    axes.axvline(test.suggestion, color="tab:green", label=f"suggested: {test.suggestion:.2g}")
    own = recipe.optimizer.learning_rate
    axes.axvline(own, color="grey", linestyle=":", label=f"the recipe's: {own:g}")
    axes.set(xscale="log", xlabel="optimizer.learning_rate", ylabel="training loss", title=f"{recipe.name}: range test")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110, format="png")


def _batches(run: TrainingRun) -> Iterator[Tensor]:
    """Epoch after epoch, without end."""
    while True:
        yield from torch.split(run.order(), run.recipe.batch_size)
