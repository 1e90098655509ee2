"""The training loop: the only backward() in the repository, the same on CPU and CUDA."""

import copy
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from trainer.augment import Augmenter, Mixed
from trainer.batches import batches_on
from trainer.data.split import Splits
from trainer.device import autocast, computes_in_bf16
from trainer.errors import NonFiniteError
from trainer.head import body_parameters
from trainer.optimizers import build_optimizers, learning_rate_factor, moving_average
from trainer.progress import Epoch, Reporter
from trainer.recipe import ClassWeights, Recipe

# Reading a figure back from a GPU waits for it; losses are looked at this many steps at a time.
STEPS_BETWEEN_LOOKS = 16
# The first step is slower than the others; from it to this one is enough to say how long the run will take.
FORECAST_STEP = 4
_LONG_SECONDS = 60


@dataclass(frozen=True)
class Fitted:
    """The network with the weights of the best epoch, in eval mode on the CPU; the epochs as they went."""

    network: nn.Module
    history: tuple[Epoch, ...]
    best_epoch: int
    seconds: float


def fit(network: nn.Module, data: Splits, recipe: Recipe, device: torch.device, reporter: Reporter) -> Fitted:
    """Trains on data.train and keeps the epoch that is best on data.validation (accuracy, then loss).

    Raises NonFiniteError at a loss that is no number.
    """
    started = time.perf_counter()
    run = _Run(network, data, recipe, device)
    history: list[Epoch] = []
    best: tuple[float, float] | None = None
    weights: dict[str, Tensor] = {}
    with reporter:
        for number in range(1, recipe.epochs + 1):
            epoch = run.epoch(number, reporter)
            history.append(epoch)
            score = (epoch.validation_accuracy, -epoch.validation_loss)
            if best is None or score > best:
                best, best_epoch = score, number
                weights = {name: value.detach().cpu().clone() for name, value in run.judged.state_dict().items()}
            reporter.epoch(epoch, recipe.epochs)
            if run.ended or (recipe.patience and number - best_epoch >= recipe.patience):
                break
    chosen = copy.deepcopy(run.judged).cpu()
    chosen.load_state_dict(weights)
    return Fitted(chosen.eval(), tuple(history), best_epoch, time.perf_counter() - started)


class _Run:
    """What changes from step to step."""

    def __init__(self, network: nn.Module, data: Splits, recipe: Recipe, device: torch.device) -> None:
        self.recipe = recipe
        self.device = device
        self.train = batches_on(device, data.train)
        self.validation = batches_on(device, data.validation)
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = build_optimizers(self.network, recipe.optimizer, recipe.transfer.body_rate)
        self.class_weights = _class_weights(recipe.class_weights, data, device)
        self.body = body_parameters(self.network) if recipe.transfer.head_epochs else []
        self.average: AveragedModel | None = None
        if recipe.ema_decay:
            average = moving_average(recipe.ema_decay)
            self.average = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.bf16 = computes_in_bf16(recipe.precision, device)
        self.shuffling = torch.Generator().manual_seed(recipe.seed)
        augmenting = torch.Generator(device).manual_seed(recipe.seed + 1)
        self.augmenter = Augmenter(recipe.augment, len(self.train), augmenting)
        # Batch norm cannot tell the variance of one image: a last batch of one is left out, another each epoch.
        self.images_an_epoch = len(self.train) - (recipe.batch_size > 1 and len(self.train) % recipe.batch_size == 1)
        self.steps_an_epoch = -(-self.images_an_epoch // recipe.batch_size)
        self.steps = self.steps_an_epoch * recipe.epochs
        self.step = 0
        self.learning_rate = 0.0
        self.started = self.second_step = time.perf_counter()

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the averaged one where there is one."""
        return self.network if self.average is None else self.average.module

    def epoch(self, number: int, reporter: Reporter) -> Epoch:
        started = time.perf_counter()
        loss, accuracy, seen = self._train(reporter)
        seconds = time.perf_counter() - started
        validation_loss, validation_accuracy = self._validate()
        return Epoch(
            epoch=number,
            learning_rate=self.learning_rate,
            train_loss=loss,
            train_accuracy=accuracy,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            seconds=time.perf_counter() - started,
            images_per_second=seen / seconds,
        )

    def _train(self, reporter: Reporter) -> tuple[float, float, int]:
        """One pass over the training split: mean loss, accuracy, and the images of it that the time allowed."""
        self._set_mode()
        order = torch.randperm(len(self.train), generator=self.shuffling)[: self.images_an_epoch]
        order = order.to(self.train.index_device)
        started, total, right, seen = time.perf_counter(), 0.0, 0.0, 0
        waiting: list[Tensor] = []
        batches = torch.split(order, self.recipe.batch_size)
        for i, index in enumerate(batches, start=1):
            waiting.append(self._step(index))
            seen += len(index)
            if i % STEPS_BETWEEN_LOOKS == 0 or i in {1, FORECAST_STEP, len(batches)} or self.ended:
                figures = torch.stack(waiting).tolist()
                self._check_finite([loss for loss, _ in figures])
                total += sum(loss for loss, _ in figures)
                right += sum(correct for _, correct in figures)
                speed = seen / (time.perf_counter() - started)
                reporter.step(self.step, self.steps, total / seen, right / seen, speed)
                self._forecast(reporter)
                waiting.clear()
            if self.ended:
                break
        return total / seen, right / seen, seen

    def _set_mode(self) -> None:
        """Training, but for a body that is to be kept while the head trains alone: that is as at inference."""
        alone = self.step < self.recipe.transfer.head_epochs * self.steps_an_epoch
        self.network.train(not alone)
        for parameter in self.body:
            parameter.requires_grad_(not alone)

    def _step(self, index: Tensor) -> Tensor:
        """One update: [sum of the cross-entropies, number right], still on the device."""
        self.learning_rate = self._learning_rate()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * group["rate"]
        images, labels = self.train.batch(index)
        images = self.augmenter(images, index.to(self.device), self.step // self.steps_an_epoch)
        mixed = self.augmenter.mix(images, labels)
        with autocast(self.device, bf16=self.bf16):
            logits = self.network(images if mixed is None else mixed.images)
        logits = logits.float()
        loss = self._loss(logits, labels, mixed)
        # Reported without label smoothing, to be comparable with validation.
        plain = functional.cross_entropy(logits.detach(), labels, reduction="sum")
        self.network.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.optimizer.gradient_clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.optimizer.gradient_clip)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        self.step += 1
        return torch.stack([plain, (logits.argmax(1) == labels).sum()])

    def _loss(self, logits: Tensor, labels: Tensor, mixed: Mixed | None) -> Tensor:
        smoothing = self.recipe.label_smoothing
        loss = functional.cross_entropy(logits, labels, self.class_weights, label_smoothing=smoothing)
        if mixed is None:
            return loss
        other = functional.cross_entropy(logits, mixed.others, self.class_weights, label_smoothing=smoothing)
        return loss * mixed.share + other * (1 - mixed.share)

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Mean loss (without label smoothing) and accuracy on the validation split."""
        network = self.judged.eval()
        sums = torch.zeros(2, device=self.device)
        order = torch.arange(len(self.validation), device=self.validation.index_device)
        for index in torch.split(order, self.recipe.validation_batch_size):
            images, labels = self.validation.batch(index)
            with autocast(self.device, bf16=self.bf16):
                logits = network(images)
            loss = functional.cross_entropy(logits.float(), labels, reduction="sum")
            sums += torch.stack([loss, (logits.argmax(1) == labels).sum()])
        loss_sum, right = sums.tolist()
        if not np.isfinite(loss_sum):
            raise NonFiniteError(_advice(f"The validation loss is {loss_sum} after step {self.step}"))
        return loss_sum / len(self.validation), right / len(self.validation)

    @property
    def ended(self) -> bool:
        """Whether the budget of time is spent."""
        budget = self.recipe.max_seconds
        return bool(budget) and time.perf_counter() - self.started >= budget

    def _learning_rate(self) -> float:
        """Of the next step; the schedule is read at the step's middle, so no step is taken at exactly 0.

        With a budget of time the run is as far as the budget is spent, if that is further.
        """
        progress = (self.step + 0.5) / self.steps
        if self.recipe.max_seconds:
            progress = max(progress, (time.perf_counter() - self.started) / self.recipe.max_seconds)
        return self.recipe.optimizer.learning_rate * learning_rate_factor(self.recipe.schedule, min(progress, 1.0))

    def _forecast(self, reporter: Reporter) -> None:
        """Says once, early, how long a run will take that a person has to wait for and that no budget ends."""
        if self.step == 1:
            self.second_step = time.perf_counter()
        elif self.step == FORECAST_STEP and not self.recipe.max_seconds:
            step = (time.perf_counter() - self.second_step) / (FORECAST_STEP - 1)
            seconds = step * (self.steps - self.step)
            if seconds >= _LONG_SECONDS:
                most = "at most " if self.recipe.patience else ""
                reporter.note(
                    f"training will take {most}about {_spoken(seconds)}: {self.steps:,} steps of {step:.2g} s"
                )

    def _check_finite(self, losses: list[float]) -> None:
        for i, loss in enumerate(losses):
            if not np.isfinite(loss):
                step = self.step - len(losses) + i + 1
                raise NonFiniteError(_advice(f"The training loss is {loss} at step {step}"))


def _class_weights(kind: ClassWeights, data: Splits, device: torch.device) -> Tensor | None:
    """float [classes]: balanced gives every class the same sum over the training images (King & Zeng, 2001)."""
    if kind is ClassWeights.OFF:
        return None
    counts = np.bincount(data.train.labels, minlength=len(data.labels))
    return torch.tensor(len(data.train) / (len(data.labels) * counts), dtype=torch.float32, device=device)


def _spoken(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _advice(what: str) -> str:
    return f"{what}; lower optimizer.learning_rate, or set optimizer.gradient_clip or precision=fp32."
