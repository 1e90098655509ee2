"""Fine-tuning: continues from the last layer of the linear probe with more layers (Kumar et al., 2022)."""

import copy
import dataclasses

import torch
from torch import nn

from schemas.manifest import TrainingStep
from schemas.metrics import wilson_interval
from trainer.data.split import Splits
from trainer.recipe import FineTune, Precision, Recipe
from trainer.training.checkpoint import Checkpoints
from trainer.training.distributed import ALONE, World
from trainer.training.loop import Fitted, fit
from trainer.training.probe import Probe
from trainer.training.progress import Epoch, Reporter

AUTO_SHARE = 2.0  # of the probe's time


def fine_tune(
    network: nn.Module,
    probe: Probe,
    data: Splits,
    recipe: Recipe,
    device: torch.device,
    reporter: Reporter,
    *,
    checkpoints: Checkpoints | None = None,
    world: World = ALONE,
) -> Fitted:
    """Returns the fine-tuned network, or the probe's if that is better on validation. Raises what fit raises."""
    probed = Fitted(
        copy.deepcopy(network).cpu().eval(),
        (probe.epoch,),
        best_epoch=1,
        seconds=probe.seconds,
        processes=world.size,
        precision=Precision.FP32,
        steps=(probe.step,),
        held=probe.held if probe.folds else None,
        body=probe.body,
    )
    seconds = recipe.transfer.fine_tune
    if seconds == FineTune.AUTO:
        seconds = 0.0 if probe.folds else world.broadcast(AUTO_SHARE * probe.seconds)
        if probe.folds:
            reporter.note("fine-tuning skipped: the validation split is too small to measure an improvement")
    if seconds in {FineTune.OFF, 0.0}:
        return probed
    budgeted = recipe.model_copy(update={"max_seconds": float(seconds)})
    tuned = fit(network, data, budgeted, device, _AfterProbe(reporter), checkpoints=checkpoints, world=world)
    best = tuned.history[tuned.best_epoch - 1]
    kept = (best.score, -best.validation_loss) > (probe.epoch.score, -probe.epoch.validation_loss)
    count = len(data.validation)
    step = TrainingStep(
        name="fine-tuning",
        seconds=round(tuned.seconds, 1),
        validation_accuracy=best.validation_accuracy,
        validation_interval=wilson_interval(round(best.validation_accuracy * count), count),
        validation_images=count,
        kept=kept,
    )
    reporter.note(step.sentence)
    history = (probe.epoch, *map(_next, tuned.history))
    steps = (probe.step.model_copy(update={"kept": not kept}), step)
    found = dataclasses.replace(tuned, best_epoch=tuned.best_epoch + 1) if kept else probed
    return dataclasses.replace(found, history=history, seconds=probe.seconds + tuned.seconds, steps=steps)


class _AfterProbe(Reporter):
    """Forwards everything to another reporter. The linear probe is epoch 1, so fine-tuning begins with epoch 2."""

    def __init__(self, inner: Reporter) -> None:
        self._inner = inner

    def note(self, sentence: str) -> None:
        self._inner.note(sentence)

    def step(self, step: int, progress: float, loss: float, accuracy: float, images_per_second: float) -> None:
        self._inner.step(step, progress, loss, accuracy, images_per_second)

    def epoch(self, epoch: Epoch, epochs: int | None, progress: float) -> None:
        self._inner.epoch(_next(epoch), epochs, progress)


def _next(epoch: Epoch) -> Epoch:
    return dataclasses.replace(epoch, epoch=epoch.epoch + 1)
