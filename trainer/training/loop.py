"""The training loop: the only backward() in the repository, the same on CPU and CUDA, in one process or in many."""

import copy
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from trainer.data.split import Splits
from trainer.errors import NonFiniteError, RecipeError
from trainer.recipe import ClassWeights, Recipe
from trainer.training.augment import Augmenter, Mixed
from trainer.training.checkpoint import (
    Checkpoints,
    Tensors,
    TrainingState,
    load_optimizer_tensors,
    optimizer_tensors,
    tensors_below,
)
from trainer.training.device import autocast, computes_in_bf16
from trainer.training.distributed import ALONE, World
from trainer.training.loader import batches_on
from trainer.training.nan_check import advice, check_step, largest_gradients
from trainer.training.optimizers import body_parameters, build_optimizers, moving_average
from trainer.training.progress import Epoch, Reporter
from trainer.training.schedule import FORECAST_STEP, Pace

# Reading a figure back from a GPU waits for it; losses are looked at this many steps at a time.
STEPS_BETWEEN_LOOKS = 16
# Of each process's own random numbers, so that no two augment alike.
_SEEDS_APART = 1_000_003


@dataclass(frozen=True)
class Fitted:
    """The network with the weights of the best epoch, in eval mode on the CPU; the epochs as they went."""

    network: nn.Module
    history: tuple[Epoch, ...]
    best_epoch: int
    seconds: float
    processes: int


def fit(
    network: nn.Module,
    data: Splits,
    recipe: Recipe,
    device: torch.device,
    reporter: Reporter,
    *,
    checkpoints: Checkpoints | None = None,
    world: World = ALONE,
) -> Fitted:
    """Trains on data.train and keeps the epoch that is best on data.validation (accuracy, then loss).

    Goes on from the last of the checkpoints where there is one. Raises NonFiniteError at a loss or a gradient that is
    no number.
    """
    run = TrainingRun(network, data, recipe, device, world)
    with reporter:
        if checkpoints is not None:
            _resume(run, checkpoints, reporter)
        while not run.finished:
            run.epoch(reporter, checkpoints)
        if checkpoints is not None:
            run.save(checkpoints)
    chosen = copy.deepcopy(run.judged).cpu()
    chosen.load_state_dict(run.best)
    return Fitted(chosen.eval(), tuple(run.history), run.best_epoch, run.pace.elapsed, world.size)


def _resume(run: "TrainingRun", checkpoints: Checkpoints, reporter: Reporter) -> None:
    state, told = run.world.of_the_first(checkpoints.latest() if run.world.first else (None, []))
    for sentence in told:
        reporter.note(sentence)
    if state is not None:
        run.restore(state)
        reporter.note(f"going on after step {run.pace.step:,} of {run.pace.steps:,}, from {checkpoints.folder}")


@dataclass
class Pass:
    """An epoch as far as it is: sums over the images that this pass has seen."""

    batches: int = 0
    seen: int = 0
    loss: float = 0.0
    right: float = 0.0
    seconds: float = 0.0


class TrainingRun:
    """What changes from step to step."""

    def __init__(
        self, network: nn.Module, data: Splits, recipe: Recipe, device: torch.device, world: World = ALONE
    ) -> None:
        if recipe.batch_size < world.size:
            raise RecipeError(
                f"batch_size is {recipe.batch_size}, which cannot be divided among {world.size} processes."
            )
        self.recipe, self.device, self.world = recipe, device, world
        self.train = batches_on(device, data.train)
        self.validation = batches_on(device, data.validation)
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = build_optimizers(self.network, recipe.optimizer, recipe.transfer.body_rate)
        self.class_weights = _class_weights(recipe.class_weights, data, device)
        self.labels = data.train.labels
        self.body = body_parameters(self.network) if recipe.transfer.head_epochs else []
        self.average: AveragedModel | None = None
        if recipe.ema_decay:
            average = moving_average(recipe.ema_decay)
            self.average = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.bf16 = computes_in_bf16(recipe.precision, device)
        self.shuffling = torch.Generator().manual_seed(recipe.seed)
        self.augmenting = torch.Generator(device).manual_seed(recipe.seed + 1)
        self.augmenter = Augmenter(recipe.augment, len(self.train), self.augmenting)
        if world.rank:  # the first process draws what a process alone would draw
            self.augmenting.manual_seed(recipe.seed + 1 + world.rank * _SEEDS_APART)
            torch.manual_seed(recipe.seed + world.rank * _SEEDS_APART)
        # Batch norm cannot tell the variance of one image: a last batch of one a process is left out, which are others
        # in each epoch.
        last = len(self.train) % recipe.batch_size
        self.images_an_epoch = len(self.train) - (last if last < 2 * world.size and recipe.batch_size > 1 else 0)
        self.steps_an_epoch = -(-self.images_an_epoch // recipe.batch_size)
        self.pace = Pace(recipe, self.steps_an_epoch * recipe.epochs, world)
        self.learning_rate = 0.0
        self.drawn_from = self.shuffling.get_state()  # before the order of this pass was
        self.pass_ = Pass()
        self.history: list[Epoch] = []
        self.best_epoch = 0
        self.best: dict[str, Tensor] = {}
        self.saved = time.perf_counter()
        self.set_mode()

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the averaged one where there is one."""
        return self.network if self.average is None else self.average.module

    @property
    def finished(self) -> bool:
        done = len(self.history)
        impatient = bool(self.recipe.patience) and done - self.best_epoch >= self.recipe.patience
        return done >= self.recipe.epochs or (done > 0 and (self.pace.ended or impatient))

    def epoch(self, reporter: Reporter, checkpoints: Checkpoints | None = None) -> None:
        """From where the pass over the training images is to its end; then validation."""
        started = time.perf_counter() - self.pass_.seconds
        self._pass(reporter, checkpoints)
        done = self.pass_
        loss, accuracy = self._validate()
        self.pace.tick()
        epoch = Epoch(
            epoch=len(self.history) + 1,
            learning_rate=self.learning_rate,
            train_loss=done.loss / done.seen,
            train_accuracy=done.right / done.seen,
            validation_loss=loss,
            validation_accuracy=accuracy,
            seconds=time.perf_counter() - started,
            images_per_second=done.seen / done.seconds,
        )
        if not self.history or _score(epoch) > _score(self.history[self.best_epoch - 1]):
            self.best_epoch = epoch.epoch
            self.best = {name: value.detach().cpu().clone() for name, value in self.judged.state_dict().items()}
        self.history.append(epoch)
        self.pass_ = Pass()
        reporter.epoch(epoch, self.recipe.epochs)
        self._save_when_due(checkpoints)

    def _pass(self, reporter: Reporter, checkpoints: Checkpoints | None) -> None:
        """Over the training split, or as much of it as the time allows."""
        self.set_mode()
        now = self.pass_
        if now.batches:
            self.shuffling.set_state(self.drawn_from)
        self.drawn_from = self.shuffling.get_state()
        batches = torch.split(self.order(), self.recipe.batch_size)
        started = time.perf_counter() - now.seconds
        waiting: list[Tensor] = []
        for i, index in enumerate(batches[now.batches :], start=now.batches + 1):
            self.learning_rate = self.pace.learning_rate()
            waiting.append(self.update(index, self.learning_rate))
            self.pace.stepped()
            now.batches, now.seen = i, now.seen + len(index)
            each = checkpoints is not None and not checkpoints.every_seconds
            if each or i % STEPS_BETWEEN_LOOKS == 0 or i in {1, FORECAST_STEP, len(batches)} or self.pace.ended:
                self._look(waiting)
                now.seconds = time.perf_counter() - started
                reporter.step(
                    self.pace.step, self.pace.steps, now.loss / now.seen, now.right / now.seen, now.seen / now.seconds
                )
                self.pace.forecast(reporter)
                if i < len(batches) and not self.pace.ended:  # else validation is next
                    self._save_when_due(checkpoints)
            if self.pace.ended:
                break

    def order(self) -> Tensor:
        order = torch.randperm(len(self.train), generator=self.shuffling)
        return order[: self.images_an_epoch].to(self.train.index_device)

    def _look(self, waiting: list[Tensor]) -> None:
        """Takes in the figures of the steps since the last look; a number that is none ends the run."""
        rows = torch.stack(waiting)
        rows[:, :2] = self.world.sum(rows[:, :2].contiguous())
        first = self.pace.step - len(waiting) + 1
        for step, (loss, right, *gradients) in enumerate(rows.tolist(), start=first):
            check_step(step, loss, gradients, self.trained)
            self.pass_.loss += loss
            self.pass_.right += right
        waiting.clear()

    def set_mode(self) -> None:
        """Training, but for a body that is to be kept while the head trains alone: that is as at inference."""
        alone = len(self.history) < self.recipe.transfer.head_epochs
        self.network.train(not alone)
        for parameter in self.body:
            parameter.requires_grad_(not alone)
        self.trained = [(name, value) for name, value in self.network.named_parameters() if value.requires_grad]
        self.forward = self.world.averaging_gradients(self.network)

    def update(self, index: Tensor, learning_rate: float) -> Tensor:
        """One step on a batch: [sum of the cross-entropies, number right, largest gradients], on the device."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * group["rate"]
        mine = self.world.part(index)
        images, labels = self.train.batch(mine)
        images = self.augmenter(images, mine.to(self.device), len(self.history))
        mixed = self.augmenter.mix(images, labels)
        with autocast(self.device, bf16=self.bf16):
            logits = self.forward(images if mixed is None else mixed.images)
        logits = logits.float()
        loss = self._loss(logits, labels, mixed) * self._share(mine, index)
        # Reported without label smoothing, to be comparable with validation.
        plain = functional.cross_entropy(logits.detach(), labels, reduction="sum")
        self.network.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = largest_gradients(self.trained)
        if self.recipe.optimizer.gradient_clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.optimizer.gradient_clip)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return torch.cat([torch.stack([plain, (logits.argmax(1) == labels).sum()]), gradients])

    def _loss(self, logits: Tensor, labels: Tensor, mixed: Mixed | None) -> Tensor:
        """The mean over the images that are given."""
        smoothing = self.recipe.label_smoothing
        loss = functional.cross_entropy(logits, labels, self.class_weights, label_smoothing=smoothing)
        if mixed is None:
            return loss
        other = functional.cross_entropy(logits, mixed.others, self.class_weights, label_smoothing=smoothing)
        return loss * mixed.share + other * (1 - mixed.share)

    def _share(self, mine: Tensor, index: Tensor) -> float:
        """What makes the mean over processes of their means the mean over the whole batch."""
        if self.world.size == 1:
            return 1.0
        return self.world.size * self._weight(mine) / self._weight(index)

    def _weight(self, index: Tensor) -> float:
        if self.class_weights is None:
            return len(index)
        return float(self.class_weights[torch.from_numpy(self.labels[index.cpu().numpy()])].sum())

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Mean loss (without label smoothing) and accuracy on the validation split, each image counted once."""
        network = self.judged.eval()
        sums = torch.zeros(2, device=self.device)
        order = self.world.part(torch.arange(len(self.validation), device=self.validation.index_device))
        for index in torch.split(order, self.recipe.validation_batch_size):
            images, labels = self.validation.batch(index)
            with autocast(self.device, bf16=self.bf16):
                logits = network(images)
            loss = functional.cross_entropy(logits.float(), labels, reduction="sum")
            sums += torch.stack([loss, (logits.argmax(1) == labels).sum()])
        loss_sum, right = self.world.sum(sums).tolist()
        if not np.isfinite(loss_sum):
            raise NonFiniteError(advice(f"The validation loss is {loss_sum} after step {self.pace.step}"))
        return loss_sum / len(self.validation), right / len(self.validation)

    def _save_when_due(self, checkpoints: Checkpoints | None) -> None:
        if checkpoints is None:
            return
        if self.world.number_of_the_first(time.perf_counter() - self.saved) >= checkpoints.every_seconds:
            self.save(checkpoints)

    def save(self, checkpoints: Checkpoints) -> None:
        random = self.world.gathered(self.random_states())
        if self.world.first:
            checkpoints.save(self.capture(random))
        self.saved = time.perf_counter()

    def capture(self, random: Sequence[Tensors]) -> TrainingState:
        """random holds the random_states of each process of the run, in order."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        tensors |= {f"optimizer.{key}": value for key, value in optimizer_tensors(self.optimizers).items()}
        tensors |= {f"random.{i}.{name}": value for i, states in enumerate(random) for name, value in states.items()}
        facts: dict[str, Any] = {
            "pass": dataclasses.asdict(self.pass_),
            "history": [dataclasses.asdict(epoch) for epoch in self.history],
            "best_epoch": self.best_epoch,
            "elapsed": self.pace.elapsed,
        }
        return TrainingState(self.pace.step, tensors, self.best, facts)

    def restore(self, state: TrainingState) -> None:
        """Into a run that has taken no step."""
        facts: dict[str, Any] = state.facts
        self.network.load_state_dict(tensors_below("network.", state.tensors))
        if self.average is not None:
            self.average.load_state_dict(tensors_below("average.", state.tensors))
        load_optimizer_tensors(self.optimizers, tensors_below("optimizer.", state.tensors))
        self.best, self.best_epoch = state.best, facts["best_epoch"]
        self.history = [Epoch(**epoch) for epoch in facts["history"]]
        self.pace.resume(state.step, facts["elapsed"])
        self.pass_ = type(self.pass_)(**facts["pass"])
        random = tensors_below(f"random.{self.world.rank}.", state.tensors)
        self.drawn_from = random["drawn_from"]
        self.shuffling.set_state(random["shuffling"])
        self.augmenting.set_state(random["augmenting"])
        torch.set_rng_state(random["global"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], self.device)

    def random_states(self) -> Tensors:
        """Of this process's generators; dropout draws from the global ones."""
        states = {
            "drawn_from": self.drawn_from,
            "shuffling": self.shuffling.get_state(),
            "augmenting": self.augmenting.get_state(),
            "global": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states


def _score(epoch: Epoch) -> tuple[float, float]:
    return epoch.validation_accuracy, -epoch.validation_loss


def _class_weights(kind: ClassWeights, data: Splits, device: torch.device) -> Tensor | None:
    """float [classes]: balanced gives every class the same sum over the training images (King & Zeng, 2001)."""
    if kind is ClassWeights.OFF:
        return None
    counts = np.bincount(data.train.labels, minlength=len(data.labels))
    return torch.tensor(len(data.train) / (len(data.labels) * counts), dtype=torch.float32, device=device)
