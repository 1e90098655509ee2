"""The training loop: the only backward pass of a run, the same on CPU and CUDA, in one process or several."""

import copy
import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from schemas.bundle import FloatArray
from schemas.manifest import TrainingStep
from schemas.metrics import Labels
from trainer.data.split import Splits
from trainer.data.suspects import Suspect
from trainer.errors import NonFiniteError, RecipeError
from trainer.recipe import ClassWeights, Precision, Recipe, Sampling
from trainer.training.augment import Augmenter, Targets
from trainer.training.checkpoint import (
    Checkpoints,
    TrainingState,
    load_optimizer_tensors,
    optimizer_tensors,
    tensors_below,
)
from trainer.training.distributed import ALONE, World
from trainer.training.loader import batches_on
from trainer.training.monitor import ClassCounts, score
from trainer.training.nan_check import check_step, largest_gradients, with_advice
from trainer.training.optimizers import MovingAverage, body_parameters, build_optimizers, set_learning_rate
from trainer.training.precision import autocast, with_precision
from trainer.training.progress import Epoch, Reporter
from trainer.training.schedule import FORECAST_STEP, Schedule

# Reading a figure from a GPU waits for it, so figures are read only once in this number of steps.
STEPS_BETWEEN_READS = 16


@dataclass(frozen=True)
class Fitted:
    """The network with the weights of the best epoch, in eval mode on the CPU, and the history of the run."""

    network: nn.Module
    history: tuple[Epoch, ...]
    best_epoch: int
    seconds: float
    processes: int
    precision: Precision
    steps: tuple[TrainingStep, ...] = ()  # of the linear probe and of fine-tuning
    unlike: Sequence[Suspect] | None = None  # images unlike all others, if there were features to compare
    held: tuple[Labels, FloatArray] | None = None  # labels and logits by cross-validation, instead of validation's
    body: bytes | None = None  # the ONNX file of a backbone whose body was not trained, if it was exported


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
    """Trains on data.train and keeps the epoch with the best monitored figure, then the lowest validation loss.

    Resumes from the latest checkpoint, if there is one. Raises NonFiniteError at a loss or gradient that is not finite.
    """
    with reporter:
        state = _latest_state(checkpoints, world, reporter)
        if state is None:
            recipe = with_precision(recipe, network, data.train, device, reporter.note, world=world)
        else:
            recipe = recipe.model_copy(update={"precision": Precision(str(state.facts["precision"]))})
        run = TrainingRun(network, data, recipe, device, world)
        if state is not None:
            run.restore(state)
        while not run.finished:
            run.train_epoch(reporter, checkpoints)
        if checkpoints is not None:
            run.save(checkpoints)
    best = copy.deepcopy(run.validated).cpu()
    best.load_state_dict(run.best)
    seconds = run.schedule.elapsed
    return Fitted(best.eval(), tuple(run.history), run.best_epoch, seconds, world.size, recipe.precision)


def _latest_state(checkpoints: Checkpoints | None, world: World, reporter: Reporter) -> TrainingState | None:
    if checkpoints is None:
        return None
    state, notes = world.broadcast(checkpoints.latest() if world.is_main else (None, []))
    if state is not None:
        notes = [*notes, f"Resuming after step {state.step:,} from {checkpoints.folder}."]
    for note in notes:
        reporter.note(note)
    return state


@dataclass
class EpochSums:
    """Sums over the training images of the current epoch so far."""

    batches: int = 0
    images: int = 0
    loss: float = 0.0
    correct: float = 0.0
    seconds: float = 0.0


class TrainingRun:
    """Everything that changes from step to step. The recipe's precision is fp32 or bf16 (see with_precision)."""

    def __init__(
        self, network: nn.Module, data: Splits, recipe: Recipe, device: torch.device, world: World = ALONE
    ) -> None:
        if recipe.batch_size < world.size:
            raise RecipeError(
                f"batch_size={recipe.batch_size} is less than the number of processes. Set it to {world.size} or more."
            )
        self.recipe, self.device, self.world = recipe, device, world
        self.train = batches_on(device, data.train)
        self.validation = batches_on(device, data.validation)
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = build_optimizers(self.network, recipe.optimizer, recipe.transfer.body_rate)
        self.average = MovingAverage(self.network, recipe.ema_decay) if recipe.ema_decay else None
        self.classes = len(data.labels)
        balanced, off = _balanced(data), recipe.class_weights is ClassWeights.OFF
        weights = np.ones_like(balanced) if off else balanced
        self.image_weights = weights[data.train.labels]
        self.class_weights = None if off else torch.from_numpy(weights).to(device)
        self.shares = torch.from_numpy(balanced[data.train.labels])  # of a balanced epoch
        self.random = torch.Generator(device).manual_seed(recipe.seed)
        self.augmenter = Augmenter(recipe.augment, len(self.train), self.random)
        # Batch norm cannot compute the variance of one image, so a last batch that would leave one process with a
        # single image is dropped. Each epoch drops other images.
        last = len(self.train) % recipe.batch_size
        self.images_per_epoch = len(self.train) - (last if last < 2 * world.size and recipe.batch_size > 1 else 0)
        self.schedule = Schedule(recipe, -(-self.images_per_epoch // recipe.batch_size) * recipe.epochs, world)
        self.learning_rate = 0.0
        self.sums = EpochSums()
        self.history: list[Epoch] = []
        self.best_epoch = 0
        self.best: dict[str, Tensor] = {}
        self.saved = time.perf_counter()
        self.body = body_parameters(self.network) if recipe.transfer.head_epochs else []
        self.set_head_only(bool(self.body))

    @property
    def validated(self) -> nn.Module:
        """The network that is validated and kept: the moving average, if the recipe has one."""
        return self.network if self.average is None else self.average.network

    @property
    def finished(self) -> bool:
        done = len(self.history)
        out_of_patience = bool(self.recipe.patience) and done - self.best_epoch >= self.recipe.patience
        return done >= self.recipe.epochs or (done > 0 and (self.schedule.out_of_time or out_of_patience))

    def set_head_only(self, head_only: bool) -> None:
        """Trains the last layer alone, or all layers."""
        self.head_only = head_only
        for parameter in self.body:
            parameter.requires_grad_(not head_only)
        self.trained = [(name, value) for name, value in self.network.named_parameters() if value.requires_grad]
        self.forward = self.world.data_parallel(self.network)

    def train_epoch(self, reporter: Reporter, checkpoints: Checkpoints | None = None) -> None:
        """Trains to the end of the current epoch, then validates."""
        if self.head_only and len(self.history) >= self.recipe.transfer.head_epochs:
            self.set_head_only(False)
        started = time.perf_counter() - self.sums.seconds
        self._train_batches(reporter, checkpoints)
        sums, self.sums = self.sums, EpochSums()
        loss, accuracy, monitored = self.validate()
        self.schedule.tick()
        epoch = Epoch(
            epoch=len(self.history) + 1,
            learning_rate=self.learning_rate,
            train_loss=sums.loss / sums.images,
            train_accuracy=sums.correct / sums.images,
            validation_loss=loss,
            validation_accuracy=accuracy,
            score=monitored,
            seconds=time.perf_counter() - started,
            images_per_second=sums.images / sums.seconds,
        )
        if not self.history or _rank(epoch) > _rank(self.history[self.best_epoch - 1]):
            self.best_epoch = epoch.epoch
            self.best = {name: value.detach().cpu().clone() for name, value in self.validated.state_dict().items()}
        self.history.append(epoch)
        reporter.epoch(epoch, None if self.recipe.max_seconds else self.recipe.epochs, self.schedule.progress)
        self._save_if_due(checkpoints)

    def _train_batches(self, reporter: Reporter, checkpoints: Checkpoints | None) -> None:
        """Trains on the rest of the epoch's batches, or on as many as the time budget allows."""
        # A frozen body computes as at inference: no dropout, and batch norm keeps its statistics.
        self.network.train(not self.head_only)
        sums, schedule = self.sums, self.schedule
        batches = self.batches(len(self.history))
        started = time.perf_counter() - sums.seconds
        read_each = checkpoints is not None and not checkpoints.every_seconds
        unread: list[Tensor] = []
        for i, batch in enumerate(batches[sums.batches :], start=sums.batches + 1):
            self.learning_rate = schedule.learning_rate()
            unread.append(self.step(batch, self.learning_rate))
            sums.batches, sums.images = i, sums.images + len(batch)
            milestone = i in {1, FORECAST_STEP, len(batches)} or schedule.out_of_time
            if read_each or milestone or i % STEPS_BETWEEN_READS == 0:
                self._read(unread)
                sums.seconds = time.perf_counter() - started
                loss, accuracy = sums.loss / sums.images, sums.correct / sums.images
                reporter.step(schedule.step, schedule.progress, loss, accuracy, sums.images / sums.seconds)
                schedule.forecast(reporter)
                if i < len(batches) and not schedule.out_of_time:  # otherwise validation comes next
                    self._save_if_due(checkpoints)
            if schedule.out_of_time:
                break

    def batches(self, epoch: int) -> tuple[Tensor, ...]:
        """Returns the positions of the training images of each batch, drawn by the seed and the epoch."""
        drawing = torch.Generator().manual_seed(_seed(self.recipe.seed, epoch))
        if self.recipe.sampling is Sampling.BALANCED:
            order = torch.multinomial(self.shares, self.images_per_epoch, replacement=True, generator=drawing)
        else:
            order = torch.randperm(len(self.train), generator=drawing)[: self.images_per_epoch]
        return torch.split(order, self.recipe.batch_size)

    def step(self, batch: Tensor, learning_rate: float) -> Tensor:
        """Takes one step on the training images at the positions `batch`, int64 [images] on the CPU.

        Returns float32 [2 + parameters] on the device: the summed loss, the number of correct predictions, and the
        largest gradient of each parameter. Nothing in a step reads from the device, so the host never waits for it.
        """
        self._seed_step()
        set_learning_rate(self.optimizers, learning_rate)
        mine = self.world.shard(batch)
        images, labels = self.train.batch(mine)
        images = self.augmenter(images, mine.to(self.device, non_blocking=True), len(self.history))
        images, targets = self.augmenter.mix(images, labels)
        with autocast(self.device, self.recipe.precision):
            logits = self.forward(images)
        logits = logits.float()
        loss = self.loss(logits, targets) * self._share(mine, batch)
        self.network.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = largest_gradients(self.trained)
        if self.recipe.optimizer.gradient_clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.optimizer.gradient_clip)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average is not None:
            self.average.update()
        self.schedule.advance()
        return torch.cat([_figures(logits.detach(), targets), gradients])

    def loss(self, logits: Tensor, targets: Targets) -> Tensor:
        """Returns the mean cross-entropy with the recipe's class weights and label smoothing."""
        weights, smoothing = self.class_weights, self.recipe.label_smoothing
        losses = [
            functional.cross_entropy(logits, labels, weights, label_smoothing=smoothing) * share
            for labels, share in targets
        ]
        return torch.stack(losses).sum()

    def _seed_step(self) -> None:
        """Seeds augmentation and dropout by the run's seed, the process and the step: a resumed run repeats them."""
        augmentation, dropout = (_seed(self.recipe.seed, self.world.rank, self.schedule.step, i) for i in (1, 2))
        self.random.manual_seed(augmentation)
        torch.manual_seed(dropout)

    def _share(self, mine: Tensor, batch: Tensor) -> float:
        """Returns the factor that makes the mean of the processes' mean losses the mean over the whole batch."""
        weight, total = (float(self.image_weights[index.numpy()].sum()) for index in (mine, batch))
        return self.world.size * weight / total

    def _read(self, unread: list[Tensor]) -> None:
        """Reads the figures of the last steps from the device. Raises NonFiniteError for one that is not finite."""
        rows = torch.stack(unread)
        rows[:, :2] = self.world.sum(rows[:, :2].contiguous())
        first = self.schedule.step - len(unread) + 1
        for step, (loss, correct, *gradients) in enumerate(rows.tolist(), start=first):
            check_step(step, loss, gradients, self.trained)
            self.sums.loss += loss
            self.sums.correct += correct
        unread.clear()
        self.schedule.tick()

    @torch.no_grad()
    def validate(self) -> tuple[float, float, float]:
        """Returns mean loss (without label smoothing), accuracy and the monitored figure on the validation split.

        Each image counts once.
        """
        network = self.validated.eval()
        sums, counts = torch.zeros(2, device=self.device), ClassCounts(self.classes, self.device)
        for index in torch.split(
            self.world.shard(torch.arange(len(self.validation))), self.recipe.validation_batch_size
        ):
            images, labels = self.validation.batch(index)
            with autocast(self.device, self.recipe.precision):
                logits = network(images)
            sums += _figures(logits.float(), ((labels, 1.0),))
            counts.add(logits.argmax(dim=1), labels)
        loss, correct = self.world.sum(sums).tolist()
        if not math.isfinite(loss):
            raise NonFiniteError(with_advice(f"The validation loss is {loss} after step {self.schedule.step}"))
        loss, accuracy = loss / len(self.validation), correct / len(self.validation)
        return loss, accuracy, score(self.recipe.monitor, self.world.sum(counts.tensor), loss)

    def _save_if_due(self, checkpoints: Checkpoints | None) -> None:
        if checkpoints is None:
            return
        if self.world.broadcast(time.perf_counter() - self.saved) >= checkpoints.every_seconds:
            self.save(checkpoints)

    def save(self, checkpoints: Checkpoints) -> None:
        if self.world.is_main:
            checkpoints.save(self.capture())
        self.saved = time.perf_counter()

    def capture(self) -> TrainingState:
        """Returns everything that the next step depends on. It is the same in every process."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.network.state_dict().items()}
        tensors |= {f"optimizer.{key}": value for key, value in optimizer_tensors(self.optimizers).items()}
        facts: dict[str, Any] = {
            "precision": self.recipe.precision,
            "epoch_sums": dataclasses.asdict(self.sums),
            "history": [dataclasses.asdict(epoch) for epoch in self.history],
            "best_epoch": self.best_epoch,
            "elapsed": self.schedule.elapsed,
        }
        return TrainingState(self.schedule.step, tensors, self.best, facts)

    def restore(self, state: TrainingState) -> None:
        """Continues from a captured state; this run must not have taken a step."""
        facts: dict[str, Any] = state.facts
        self.network.load_state_dict(tensors_below("network.", state.tensors))
        if self.average is not None:
            self.average.network.load_state_dict(tensors_below("average.", state.tensors))
            self.average.updates = state.step
        load_optimizer_tensors(self.optimizers, tensors_below("optimizer.", state.tensors))
        self.best, self.best_epoch = state.best, facts["best_epoch"]
        self.history = [Epoch(**epoch) for epoch in facts["history"]]
        self.sums = EpochSums(**facts["epoch_sums"])
        self.schedule.resume(state.step, facts["elapsed"])


def _rank(epoch: Epoch) -> tuple[float, float]:
    return epoch.score, -epoch.validation_loss


def _figures(logits: Tensor, targets: Targets) -> Tensor:
    """Returns float32 [2]: the summed cross-entropy, and the sum of the shares of the predicted labels.

    Both are without class weights and label smoothing, so that training and validation are comparable.
    """
    predicted = logits.argmax(dim=1)
    figures = [
        torch.stack([functional.cross_entropy(logits, labels, reduction="sum"), (predicted == labels).sum()]) * share
        for labels, share in targets
    ]
    return torch.stack(figures).sum(dim=0)


def _seed(*parts: int) -> int:
    """Returns a seed that is independent of the seeds for other parts."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _balanced(data: Splits) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Returns float32 [classes] that give each class the same sum over the training images (King & Zeng, 2001)."""
    counts = np.bincount(data.train.labels, minlength=len(data.labels))
    return (len(data.train) / (len(data.labels) * counts)).astype(np.float32)
