"""The learning-rate range test: raises the rate from step to step until the loss explodes (Smith, 2017)."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn

from trainer.data.split import Splits
from trainer.errors import RunError
from trainer.recipe import OptimizerName, Recipe
from trainer.training.loop import TrainingRun
from trainer.training.precision import with_precision

# The range of the test, relative to the recipe's own rate.
_LOWEST, _HIGHEST = 1e-4, 1e3
_SMOOTHING = 0.9
_EXPLODED = 4.0
_LEAST_POINTS = 10


@dataclass(frozen=True)
class RangeTest:
    """The smoothed loss at each rate. The suggestion is a tenth of the rate with the lowest loss.

    `settings` holds the suggestion as settings of the recipe. Muon's rate is a setting of its own; the test scales it
    together with the learning rate.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float
    settings: dict[str, float]


def find_learning_rate(
    network: nn.Module,
    data: Splits,
    recipe: Recipe,
    device: torch.device,
    steps: int = 100,
    *,
    note: Callable[[str], None] = lambda _: None,
) -> RangeTest:
    """Trains all layers of the network for at most `steps` steps. Discard the network afterwards.

    Raises RunError if the loss explodes or becomes NaN within the first steps.
    """
    # The suggested rate applies to all layers, so the test must not freeze the body.
    transfer = recipe.transfer.model_copy(update={"head_epochs": 0})
    recipe = with_precision(recipe, network, data.train, device, note).model_copy(update={"transfer": transfer})
    run = TrainingRun(network, data, recipe, device)
    run.network.train()
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    own = recipe.optimizer.learning_rate
    batches = itertools.chain.from_iterable(map(run.batches, itertools.count()))
    for i, batch in enumerate(itertools.islice(batches, steps)):
        rate = own * _LOWEST * (_HIGHEST / _LOWEST) ** (i / max(steps - 1, 1))
        loss = run.step(batch, rate)[0].item() / len(batch)
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        smooth = average / (1 - _SMOOTHING ** (i + 1))
        if not math.isfinite(smooth) or (losses and smooth > _EXPLODED * min(losses)):
            break
        rates.append(rate)
        losses.append(smooth)
    if len(rates) < _LEAST_POINTS:
        raise RunError(
            f"The loss exploded after {len(rates)} steps. The test starts at optimizer.learning_rate / "
            f"{1 / _LOWEST:,.0f}; lower optimizer.learning_rate={own:g}."
        )
    suggestion = rates[losses.index(min(losses))] / 10
    settings = {"optimizer.learning_rate": suggestion}
    if recipe.optimizer.name is OptimizerName.MUON:
        settings["optimizer.muon_rate"] = recipe.optimizer.muon_rate / own * suggestion
    return RangeTest(tuple(rates), tuple(losses), suggestion, settings)


def write_plot(path: Path, test: RangeTest, recipe: Recipe) -> None:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(test.rates, test.losses, label="smoothed loss")
    axes.axvline(test.suggestion, color="tab:green", label=f"suggested: {test.suggestion:.2g}")
    own = recipe.optimizer.learning_rate
    axes.axvline(own, color="grey", linestyle=":", label=f"recipe: {own:g}")
    axes.set(xscale="log", xlabel="optimizer.learning_rate", ylabel="training loss", title=f"{recipe.name}: range test")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110, format="png")
