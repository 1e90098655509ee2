import contextlib
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from schemas.image import Pixels
from tests.support import colour_images
from tests.support.recorder import CPU, Recorder
from trainer.data.dataset import LabelledImages
from trainer.data.split import split
from trainer.errors import NonFiniteError, RecipeError
from trainer.models.build import build_network
from trainer.network_config import FastConfig
from trainer.recipe import AugmentConfig, OptimizerConfig, OptimizerName, Precision, Recipe, TransferConfig
from trainer.training.augment import Mixed
from trainer.training.distributed import World
from trainer.training.loop import Fitted, TrainingRun, fit
from trainer.training.progress import Epoch, LineReporter


def run(recipe: Recipe, recorder: Recorder | None = None) -> Fitted:
    data = split(colour_images.source().load(), recipe.data)
    torch.manual_seed(recipe.seed)
    return fit(build_network(recipe, data), data, recipe, CPU, recorder or Recorder())


def logits(fitted: Fitted, images: Pixels) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = fitted.network(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    return output


def test_it_learns_colours() -> None:
    fitted = run(colour_images.recipe(epochs=6))
    fresh = colour_images.colours(30, seed=9).train
    assert logits(fitted, fresh.images[:]).argmax(dim=1).tolist() == fresh.labels.tolist()
    assert fitted.history[-1].train_loss < fitted.history[0].train_loss


@pytest.mark.parametrize("precision", Precision)
def test_it_runs_in_either_precision(precision: Precision) -> None:
    assert np.isfinite(run(colour_images.recipe(precision=precision, epochs=1)).history[0].train_loss)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(ema_decay: float) -> None:
    recipe = colour_images.recipe(epochs=2, ema_decay=ema_decay)
    first, again, other = (run(recipe.model_copy(update={"seed": seed})).network.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_epoch_that_is_best_on_validation_is_the_one_kept() -> None:
    # Training on wrong labels makes every epoch worse on validation than the one before: the last must not be kept.
    recipe = colour_images.recipe(epochs=6)
    data = split(colour_images.source().load(), recipe.data)
    wrong = replace(data, train=LabelledImages(data.train.images, (data.train.labels + 1) % 3))
    torch.manual_seed(0)
    fitted = fit(build_network(recipe, wrong), wrong, recipe, CPU, Recorder())
    scores = [(epoch.validation_accuracy, -epoch.validation_loss) for epoch in fitted.history]
    assert scores[-1] < max(scores)
    assert scores[fitted.best_epoch - 1] == max(scores)
    kept = logits(fitted, data.validation.images[:])
    loss = torch.nn.functional.cross_entropy(kept, torch.from_numpy(data.validation.labels)).item()
    assert loss == pytest.approx(-max(scores)[1], rel=0.02)  # validation may have computed in bf16
    assert loss < 0.9 * fitted.history[-1].validation_loss


def test_averaged_weights_are_the_ones_validated_and_kept() -> None:
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


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step() -> None:
    recorder = Recorder()
    wild = colour_images.recipe(optimizer=OptimizerConfig(name=OptimizerName.SGD, learning_rate=1e30))
    with pytest.raises(
        NonFiniteError,
        match=r"training loss is (nan|inf) at step [1-9]\d*, and so is the gradient of 1.0.0.weight; lower optimizer",
    ):
        run(wild, recorder)
    assert recorder.left


def test_progress_counts_every_step_of_the_run() -> None:
    recorder = Recorder()
    recipe = colour_images.recipe(epochs=2)
    fitted = run(recipe, recorder)
    steps = 2 * -(-len(split(colour_images.source().load(), recipe.data).train) // recipe.batch_size)
    assert recorder.steps[-1] == (steps, steps)
    assert tuple(recorder.epochs) == fitted.history
    assert recorder.left


def test_without_a_terminal_there_is_one_line_an_epoch() -> None:
    stream = io.StringIO()
    data = split(colour_images.source().load(), colour_images.recipe().data)
    fit(build_network(colour_images.recipe(), data), data, colour_images.recipe(), CPU, LineReporter(stream))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert all(word in lines[0] for word in ("epoch 1/3", "train loss", "validation loss", "accuracy", "images/s"))


def test_a_budget_of_time_ends_the_run_with_its_schedule_run_down() -> None:
    fitted = run(colour_images.recipe(epochs=1_000_000, max_seconds=1.5))
    assert len(fitted.history) < 1_000_000
    assert fitted.history[-1].learning_rate < 0.1 * max(epoch.learning_rate for epoch in fitted.history)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_images_are_learnt_from(kind: str) -> None:
    fitted = run(colour_images.recipe(epochs=8, augment=AugmentConfig.model_validate({kind: 0.4})))
    fresh = colour_images.colours(30, seed=9).train
    assert (logits(fitted, fresh.images[:]).argmax(dim=1) == torch.from_numpy(fresh.labels)).float().mean() > 0.9


def test_the_loss_of_a_mixture_is_shared_between_its_two_labels() -> None:
    """CutMix of a batch of two: where both halves were judged by one label alone, the other would not be learnt."""
    run_of = TrainingRun(
        torch.nn.Identity(),
        split(colour_images.source().load(), colour_images.recipe().data),
        colour_images.recipe(),
        CPU,
    )
    logits_, labels, others = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0]), torch.tensor([2])
    mixed = Mixed(torch.empty(0), labels, others, torch.tensor(0.75))
    first, second = (torch.nn.functional.cross_entropy(logits_, target) for target in (labels, others))
    assert torch.isclose(run_of._loss(logits_, labels, mixed), 0.75 * first + 0.25 * second)
    assert torch.isclose(run_of._loss(logits_, labels, None), first)


def test_a_run_without_progress_on_validation_ends_when_patience_does() -> None:
    recipe = colour_images.recipe(epochs=50, patience=3)
    data = split(colour_images.source().load(), recipe.data)
    wrong = replace(data, train=LabelledImages(data.train.images, (data.train.labels + 1) % 3))
    torch.manual_seed(0)
    fitted = fit(build_network(recipe, wrong), wrong, recipe, CPU, Recorder())
    assert len(fitted.history) == fitted.best_epoch + 3


def test_a_long_run_says_early_how_long_it_will_take_and_a_short_or_limited_one_does_not() -> None:
    def told(**changes: object) -> list[str]:
        recorder = Recorder()
        recorder.epoch = _stop  # type: ignore[method-assign]
        recipe = colour_images.recipe(batch_size=8, **changes)
        with contextlib.suppress(KeyboardInterrupt):
            run(recipe, recorder)
        return recorder.notes

    def _stop(epoch: Epoch, epochs: int) -> None:
        raise KeyboardInterrupt

    (sentence,) = told(epochs=1_000_000)
    assert re.fullmatch(r"training will take about (\d+ h )?\d+ min: 6,999,996 steps of [\d.e-]+ s", sentence)
    assert told(epochs=1_000_000, patience=2)[0].startswith("training will take at most about")
    assert told(epochs=2) == told(epochs=1_000_000, max_seconds=3600) == []


def test_balanced_class_weights_make_up_for_a_rare_class() -> None:
    data = split(colour_images.source().load(), colour_images.recipe().data)
    rare = np.flatnonzero((data.train.labels != 2) | (np.cumsum(data.train.labels == 2) <= 2))
    few = replace(data, train=data.train.take(rare))
    counts = np.bincount(few.train.labels)
    recipe = colour_images.recipe(class_weights="balanced")
    weights = TrainingRun(build_network(recipe, few), few, recipe, CPU).class_weights
    assert weights is not None
    assert (weights.numpy() * counts).tolist() == pytest.approx([len(few.train) / 3] * 3)
    plain = TrainingRun(build_network(recipe, few), few, recipe, CPU)._loss
    logits_, labels = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([0, 2])
    each = [torch.nn.functional.cross_entropy(logits_[i], labels[i]) for i in range(2)]
    expected = (weights[0] * each[0] + weights[2] * each[1]) / (weights[0] + weights[2])
    assert torch.isclose(plain(logits_, labels, None), expected)
    mixed = Mixed(torch.empty(0), labels, labels.flip(0), torch.tensor(0.75))
    crossed = [torch.nn.functional.cross_entropy(logits_[i], labels[1 - i]) for i in range(2)]
    others = (weights[2] * crossed[0] + weights[0] * crossed[1]) / (weights[0] + weights[2])
    assert torch.isclose(plain(logits_, labels, mixed), 0.75 * expected + 0.25 * others)


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
    """Which tensors of the network a run leaves other than they were."""
    data = split(colour_images.source().load(), recipe.data)
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
    data = split(colour_images.source().load(), colour_images.recipe().data)
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
        data = split(colour_images.source().load(), recipe.data)
        torch.manual_seed(0)
        network = build_network(recipe, data)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        fit(network, data, recipe, CPU, Recorder())
        body, head = ((network.state_dict()[f"1.{i}.weight"] - before[f"1.{i}.weight"]).norm() for i in (5, 8))
        return body.item(), head.item()

    (slow, head_beside_slow), (quick, head_beside_quick) = moved(0.01), moved(1.0)
    assert slow == pytest.approx(0.01 * quick, rel=0.5)
    assert head_beside_slow == pytest.approx(head_beside_quick, rel=0.5)


def test_a_last_batch_of_one_image_is_left_out_for_batch_norm_cannot_take_it() -> None:
    recipe = colour_images.recipe(batch_size=53, epochs=1, network=FastConfig(widths=(4, 4), whitening_stride=1))
    data = split(colour_images.source().load(), recipe.data)
    assert len(data.train) == 54
    recorder = Recorder()
    fit(build_network(recipe, data), data, recipe, CPU, recorder)
    assert recorder.steps[-1] == (1, 1)


def test_a_batch_that_the_processes_cannot_share_is_refused() -> None:
    recipe = colour_images.recipe(batch_size=1)
    data = split(colour_images.source().load(), recipe.data)
    with pytest.raises(RecipeError, match="cannot be divided among 2 processes"):
        TrainingRun(build_network(recipe, data), data, recipe, CPU, World(0, 2))
