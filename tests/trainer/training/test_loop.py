import contextlib
import io
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from schemas.image import Pixels
from tests.support import colour_images
from tests.support.recorder import CPU, Recorder
from trainer.data.dataset import LabelledImages
from trainer.errors import NonFiniteError, RecipeError
from trainer.models.build import build_network
from trainer.network_config import FastConfig
from trainer.recipe import (
    AugmentConfig,
    Flip,
    Monitor,
    OptimizerConfig,
    OptimizerName,
    Precision,
    Recipe,
    TransferConfig,
)
from trainer.training.distributed import World
from trainer.training.loop import Fitted, TrainingRun, fit
from trainer.training.progress import Epoch, LineReporter, Reporter


def run(recipe: Recipe, reporter: Reporter | None = None, *, wrong: bool = False) -> Fitted:
    """With wrong labels, training makes validation worse from epoch to epoch."""
    data = colour_images.splits(recipe)
    if wrong:
        data = replace(data, train=LabelledImages(data.train.images, (data.train.labels + 1) % 3))
    torch.manual_seed(recipe.seed)
    return fit(build_network(recipe, data), data, recipe, CPU, reporter or Recorder())


def logits(fitted: Fitted, images: Pixels) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = fitted.network(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    return output


def test_a_run_learns_colours() -> None:
    fitted = run(colour_images.recipe(epochs=6))
    fresh = colour_images.colours(30, seed=9).train
    assert logits(fitted, fresh.images[:]).argmax(dim=1).tolist() == fresh.labels.tolist()
    assert fitted.history[-1].train_loss < fitted.history[0].train_loss


@pytest.mark.parametrize("precision", Precision)
def test_a_run_trains_in_every_precision(precision: Precision) -> None:
    assert np.isfinite(run(colour_images.recipe(precision=precision, epochs=1)).history[0].train_loss)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(ema_decay: float) -> None:
    recipe = colour_images.recipe(epochs=2, ema_decay=ema_decay)
    first, again, other = (run(recipe.model_copy(update={"seed": seed})).network.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_epoch_with_the_best_validation_is_kept() -> None:
    recipe = colour_images.recipe(epochs=6)
    data, fitted = colour_images.splits(recipe), run(recipe, wrong=True)
    scores = [(epoch.validation_accuracy, -epoch.validation_loss) for epoch in fitted.history]
    assert scores[-1] < max(scores)
    assert scores[fitted.best_epoch - 1] == max(scores)
    kept = logits(fitted, data.validation.images[:])
    loss = torch.nn.functional.cross_entropy(kept, torch.from_numpy(data.validation.labels)).item()
    assert loss == pytest.approx(-max(scores)[1], rel=1e-4)
    assert loss < 0.9 * fitted.history[-1].validation_loss


@pytest.mark.parametrize("monitor", Monitor)
def test_the_monitored_figure_chooses_the_epoch(monitor: Monitor) -> None:
    fitted = run(colour_images.recipe(monitor=monitor, epochs=5, label_smoothing=0.3))
    scores = [epoch.score for epoch in fitted.history]
    assert scores[fitted.best_epoch - 1] == max(scores)
    figures = {
        Monitor.LOG_LOSS: [-epoch.validation_loss for epoch in fitted.history],
        Monitor.ACCURACY: [epoch.validation_accuracy for epoch in fitted.history],
    }
    assert scores == pytest.approx(figures.get(monitor, scores))


def test_balanced_sampling_draws_each_class_equally_often() -> None:
    recipe = colour_images.recipe(sampling="balanced")
    data = colour_images.splits(recipe, count=900)
    rare = replace(data, train=data.train.take(np.flatnonzero((data.train.labels != 2) | (np.arange(540) % 60 < 3))))
    images = TrainingRun(build_network(recipe, rare), rare, recipe, CPU)
    drawn = rare.train.labels[torch.cat([*images.batches(0), *images.batches(1)]).numpy()]
    assert len(drawn) == 2 * images.images_per_epoch
    assert np.bincount(drawn) / len(drawn) == pytest.approx([1 / 3] * 3, abs=0.06)
    assert np.bincount(rare.train.labels)[2] < 0.1 * len(rare.train)


def test_averaged_weights_are_validated_and_kept() -> None:
    plain, averaged = (run(colour_images.recipe(epochs=2, ema_decay=decay)) for decay in (0.0, 0.95))
    assert plain.history[0].train_loss == averaged.history[0].train_loss
    assert plain.history[1].validation_loss != averaged.history[1].validation_loss
    assert not torch.equal(plain.network.state_dict()["1.0.0.weight"], averaged.network.state_dict()["1.0.0.weight"])


def test_a_gradient_clip_changes_the_steps() -> None:
    free, clipped = (
        run(
            colour_images.recipe(
                epochs=1,
                optimizer=OptimizerConfig(name=OptimizerName.SGD, learning_rate=0.02, gradient_clip=clip),
            )
        )
        for clip in (0.0, 1e-3)
    )
    assert not torch.equal(free.network.state_dict()["1.0.0.weight"], clipped.network.state_dict()["1.0.0.weight"])


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step() -> None:
    recorder = Recorder()
    wild = colour_images.recipe(optimizer=OptimizerConfig(name=OptimizerName.SGD, learning_rate=1e30))
    with pytest.raises(
        NonFiniteError,
        match=r"training loss is (nan|inf) at step [1-9]\d*, and so is the gradient of 1.0.0.weight. Lower optimizer",
    ):
        run(wild, recorder)
    assert recorder.left


def test_progress_counts_every_step_of_the_run() -> None:
    recorder = Recorder()
    recipe = colour_images.recipe(epochs=2)
    fitted = run(recipe, recorder)
    steps = 2 * -(-len(colour_images.splits(recipe).train) // recipe.batch_size)
    assert (recorder.steps[-1], recorder.progress[-1]) == (steps, 1)
    assert tuple(recorder.epochs) == fitted.history
    assert recorder.left


def test_without_a_terminal_a_run_prints_one_line_per_epoch() -> None:
    stream = io.StringIO()
    run(colour_images.recipe(), LineReporter(stream))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert all(word in lines[0] for word in ("epoch 1/3", "train loss", "validation loss", "accuracy", "images/s"))


def test_a_time_budget_ends_the_run_with_the_progress_at_1_and_the_rate_near_0() -> None:
    recorder = Recorder()
    fitted = run(colour_images.recipe(epochs=1_000_000, max_seconds=1.5), recorder)
    assert recorder.progress == sorted(recorder.progress)
    assert any(0.2 < progress < 0.8 for progress in recorder.progress)  # it counts seconds, not steps
    assert recorder.progress[-1] == 1
    assert len(fitted.history) < 1_000_000
    assert fitted.history[-1].learning_rate < 0.1 * max(epoch.learning_rate for epoch in fitted.history)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_run_learns_from_mixed_images(kind: str) -> None:
    fitted = run(colour_images.recipe(epochs=8, augment=AugmentConfig.model_validate({kind: 0.4})))
    fresh = colour_images.colours(30, seed=9).train
    assert (logits(fitted, fresh.images[:]).argmax(dim=1) == torch.from_numpy(fresh.labels)).float().mean() > 0.9


def training_run(**changes: object) -> TrainingRun:
    recipe = colour_images.recipe(**changes)
    data = colour_images.splits(recipe)
    torch.manual_seed(0)
    return TrainingRun(build_network(recipe, data), data, recipe, CPU)


def test_the_loss_of_a_mixture_is_shared_between_its_two_labels() -> None:
    output, labels, others = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0]), torch.tensor([2])
    first, second = (torch.nn.functional.cross_entropy(output, target) for target in (labels, others))
    loss = training_run().loss
    assert torch.isclose(
        loss(output, ((labels, torch.tensor(0.75)), (others, torch.tensor(0.25)))), 0.75 * first + 0.25 * second
    )
    assert torch.isclose(loss(output, ((labels, 1.0),)), first)


class KnowsTheMixture(torch.nn.Module):
    """Predicts the colour that has the larger part of an image, which a mixture is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)) * self.scale


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_training_accuracy_counts_both_labels_of_a_mixture(kind: str) -> None:
    recipe = colour_images.recipe(augment=AugmentConfig.model_validate({kind: 1.0}), epochs=1, batch_size=54)
    data = colour_images.splits(recipe)
    run = TrainingRun(KnowsTheMixture(), data, recipe, CPU)
    accuracies, shares = [], []
    for _ in range(40):
        images, labels = run.train.batch(torch.arange(54))
        run._seed_step()
        run.augmenter(images, torch.arange(54), 0)
        _, targets = run.augmenter.mix(images, labels)
        (first, share), (second, other) = targets
        shares.append(torch.where(first == second, 1.0, torch.maximum(torch.as_tensor(share), torch.as_tensor(other))))
        accuracies.append(run.step(torch.arange(54), 1e-9)[1] / 54)
    assert torch.stack(accuracies).mean().item() == pytest.approx(torch.stack(shares).mean().item(), abs=0.03)


class RefusesToReadTheDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises at operations that make the host wait for a GPU: a tensor's value, or a shape that depends on values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in {"_local_scalar_dense", "equal", "nonzero", "masked_select"}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", OptimizerName)
def test_a_step_reads_nothing_back_from_the_device(optimizer: OptimizerName) -> None:
    run = training_run(
        network=FastConfig(widths=(4, 4), whitening_stride=1, dropout=0.2),
        augment=AugmentConfig(flip=Flip.ALTERNATING, translate=1, crop=0.2, colour=0.2, cutout=3, mixup=1, cutmix=1),
        optimizer=OptimizerConfig(name=optimizer, learning_rate=0.02, weight_decay=0.1, gradient_clip=1),
        ema_decay=0.9,
        class_weights="balanced",
        label_smoothing=0.1,
    )
    run.network.train()
    with RefusesToReadTheDevice():  # type: ignore[no-untyped-call]
        for batch in run.batches(0):
            run.step(batch, 0.01)
        with pytest.raises(AssertionError):
            int(torch.ones(1))


def test_a_run_that_does_not_improve_ends_after_its_patience() -> None:
    fitted = run(colour_images.recipe(epochs=50, patience=3), wrong=True)
    assert len(fitted.history) == fitted.best_epoch + 3


def test_only_a_long_run_without_a_time_budget_reports_its_duration() -> None:
    def notes(**changes: object) -> list[str]:
        recorder = Recorder()
        recorder.epoch = _stop  # type: ignore[method-assign]
        recipe = colour_images.recipe(batch_size=8, **changes)
        with contextlib.suppress(KeyboardInterrupt):
            run(recipe, recorder)
        return recorder.notes

    def _stop(epoch: Epoch, epochs: int | None, progress: float) -> None:
        raise KeyboardInterrupt

    (note,) = notes(epochs=1_000_000)
    assert re.fullmatch(r"Training will take about (\d+ h )?\d+ min: 6,999,996 steps of [\d.e-]+ s\.", note)
    assert notes(epochs=1_000_000, patience=2)[0].startswith("Training will take at most about")
    assert notes(epochs=2) == notes(epochs=1_000_000, max_seconds=3600) == []


def test_balanced_class_weights_give_each_class_the_same_sum() -> None:
    data = colour_images.splits(colour_images.recipe())
    rare = np.flatnonzero((data.train.labels != 2) | (np.cumsum(data.train.labels == 2) <= 2))
    few = replace(data, train=data.train.take(rare))
    counts = np.bincount(few.train.labels)
    recipe = colour_images.recipe(class_weights="balanced")
    weights = TrainingRun(build_network(recipe, few), few, recipe, CPU).class_weights
    assert weights is not None
    assert (weights.numpy() * counts).tolist() == pytest.approx([len(few.train) / 3] * 3)
    loss = TrainingRun(build_network(recipe, few), few, recipe, CPU).loss
    output, labels = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([0, 2])
    each = [torch.nn.functional.cross_entropy(output[i], labels[i]) for i in range(2)]
    expected = (weights[0] * each[0] + weights[2] * each[1]) / (weights[0] + weights[2])
    assert torch.isclose(loss(output, ((labels, 1.0),)), expected)
    crossed = [torch.nn.functional.cross_entropy(output[i], labels[1 - i]) for i in range(2)]
    others = (weights[2] * crossed[0] + weights[0] * crossed[1]) / (weights[0] + weights[2])
    assert torch.isclose(loss(output, ((labels, 0.75), (labels.flip(0), 0.25))), 0.75 * expected + 0.25 * others)


def test_biases_learn_at_their_own_rate() -> None:
    still, quick = (
        run(
            colour_images.recipe(
                epochs=1,
                optimizer=OptimizerConfig(name=OptimizerName.SGD, learning_rate=0.01, bias_rate=rate),
            )
        ).network.state_dict()["1.0.1.bias"]
        for rate in (1e-9, 64)
    )
    assert still.abs().max() < 1e-6
    assert quick.abs().max() > 1e-3


def changed(recipe: Recipe) -> dict[str, bool]:
    """Returns by name whether a run changed a tensor of the network."""
    data = colour_images.splits(recipe)
    network = build_network(recipe, data)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    after = fit(network, data, recipe, CPU, Recorder()).network.state_dict()
    return {name: not torch.equal(before[name], after[name]) for name in before if "num_batches" not in name}


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_while_the_head_trains_alone_nothing_else_changes(ema_decay: float) -> None:
    transfer = TransferConfig(weights="unused", head_epochs=2)
    alone = changed(colour_images.recipe(epochs=2, transfer=transfer, ema_decay=ema_decay))
    assert {name for name, is_other in alone.items() if is_other} == {"1.8.weight", "1.8.bias"}


def test_after_the_head_the_whole_network_trains() -> None:
    data = colour_images.splits(colour_images.recipe())
    recipe = colour_images.recipe(epochs=2, transfer=TransferConfig(weights="unused", head_epochs=1))
    network = build_network(recipe, data)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fit(network, data, recipe, CPU, Recorder())
    same = {name for name, value in network.state_dict().items() if torch.equal(before[name], value)}
    assert same == {"0.scale", "0.shift"}


def test_the_body_learns_at_its_own_rate() -> None:
    def moved(rate: float) -> tuple[float, float]:
        optimizer = OptimizerConfig(name=OptimizerName.SGD, learning_rate=0.01)
        recipe = colour_images.recipe(epochs=1, optimizer=optimizer, transfer={"weights": "unused", "body_rate": rate})
        data = colour_images.splits(recipe)
        torch.manual_seed(0)
        network = build_network(recipe, data)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        fit(network, data, recipe, CPU, Recorder())
        body, head = ((network.state_dict()[f"1.{i}.weight"] - before[f"1.{i}.weight"]).norm() for i in (5, 8))
        return body.item(), head.item()

    (slow, head_beside_slow), (quick, head_beside_quick) = moved(0.01), moved(1.0)
    assert slow == pytest.approx(0.01 * quick, rel=0.5)
    assert head_beside_slow == pytest.approx(head_beside_quick, rel=0.5)


def test_a_last_batch_of_one_image_is_dropped_because_of_batch_norm() -> None:
    recipe = colour_images.recipe(batch_size=53, epochs=1, network=FastConfig(widths=(4, 4), whitening_stride=1))
    assert len(colour_images.splits(recipe).train) == 54
    recorder = Recorder()
    run(recipe, recorder)
    assert recorder.steps[-1] == 1


def test_a_batch_smaller_than_the_number_of_processes_is_refused() -> None:
    recipe = colour_images.recipe(batch_size=1)
    data = colour_images.splits(recipe)
    with pytest.raises(RecipeError, match=r"batch_size=1 is less than the number of processes. Set it to 2 or more"):
        TrainingRun(build_network(recipe, data), data, recipe, CPU, World(0, 2))
