import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.support import colour_images
from tests.support.recorder import CPU, Recorder
from trainer.errors import RunError
from trainer.models.build import build_network
from trainer.recipe import OptimizerConfig, OptimizerName, Recipe, TransferConfig, with_settings
from trainer.training.loop import fit
from trainer.training.lr_find import RangeTest, find_learning_rate, write_plot
from trainer.training.optimizers import build_optimizers, set_learning_rate


def recipe(learning_rate: float = 0.02, name: OptimizerName = OptimizerName.ADAMW) -> Recipe:
    return colour_images.recipe(optimizer=OptimizerConfig(name=name, learning_rate=learning_rate), epochs=8)


def range_test(recipe: Recipe, steps: int = 100) -> RangeTest:
    data = colour_images.splits(recipe)
    torch.manual_seed(0)
    return find_learning_rate(build_network(recipe, data), data, recipe, CPU, steps)


@pytest.mark.parametrize("name", OptimizerName)
def test_the_suggested_rate_learns_for_any_rate_of_the_recipe(name: OptimizerName) -> None:
    for own in (0.001, 0.3):
        suggested = with_settings(recipe(own, name), range_test(recipe(own, name)).settings)
        data = colour_images.splits(suggested)
        torch.manual_seed(0)
        history = fit(build_network(suggested, data), data, suggested, CPU, Recorder()).history
        assert history[-1].train_loss < 0.7 * history[0].train_loss, own


def test_rates_rise_by_a_constant_factor_and_the_test_ends_where_the_loss_explodes() -> None:
    test = range_test(recipe(1.0, OptimizerName.SGD))
    ratios = {round(second / first, 6) for first, second in zip(test.rates, test.rates[1:], strict=False)}
    assert len(ratios) == 1
    assert math.isclose(test.rates[0], 1e-4)
    assert len(test.rates) < 100
    assert test.suggestion == test.rates[test.losses.index(min(test.losses))] / 10


def rates_of(recipe: Recipe) -> list[float]:
    """Returns the learning rate of each parameter group at the peak of the schedule."""
    network = build_network(recipe, colour_images.splits(recipe))
    optimizers = build_optimizers(network, recipe.optimizer, recipe.transfer.body_rate)
    set_learning_rate(optimizers, recipe.optimizer.learning_rate)
    return [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]


@pytest.mark.parametrize("name", OptimizerName)
def test_the_suggested_settings_give_every_group_the_rate_that_was_tested(name: OptimizerName) -> None:
    own = recipe(0.3, name)
    test = range_test(own)
    factor = test.suggestion / own.optimizer.learning_rate
    assert rates_of(with_settings(own, test.settings)) == pytest.approx([rate * factor for rate in rates_of(own)])


def test_the_range_test_trains_the_body_from_the_first_step_on() -> None:
    transfer = TransferConfig(weights="unused", head_epochs=100)
    own = recipe().model_copy(update={"transfer": transfer})
    data = colour_images.splits(own)
    network = build_network(own, data)
    before = {name: value.clone() for name, value in network.named_parameters()}
    find_learning_rate(network, data, own, CPU, 20)
    assert [name for name, value in network.named_parameters() if torch.equal(value, before[name])] == []


def test_a_loss_that_explodes_at_once_raises_one_message() -> None:
    with pytest.raises(RunError, match=r"exploded after \d+ steps"):
        range_test(recipe(1e30, OptimizerName.SGD))


def test_the_plot_is_an_image(tmp_path: Path) -> None:
    write_plot(tmp_path / "lr.png", range_test(recipe()), recipe())
    with Image.open(tmp_path / "lr.png") as picture:
        assert picture.size[0] > 500
