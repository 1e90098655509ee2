import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.support import colour_images
from tests.support.recorder import CPU, Recorder
from trainer.data.split import split
from trainer.errors import RunError
from trainer.models.build import build_network
from trainer.recipe import OptimizerConfig, OptimizerName, Recipe
from trainer.training.loop import fit
from trainer.training.lr_find import RangeTest, find_learning_rate, write_plot


def recipe(learning_rate: float = 0.02, name: OptimizerName = OptimizerName.ADAMW) -> Recipe:
    return colour_images.recipe(optimizer=OptimizerConfig(name=name, learning_rate=learning_rate), epochs=8)


def range_test(recipe: Recipe, steps: int = 100) -> RangeTest:
    data = split(colour_images.source().load(), recipe.data)
    torch.manual_seed(0)
    return find_learning_rate(build_network(recipe, data), data, recipe, CPU, steps)


@pytest.mark.parametrize("name", OptimizerName)
def test_the_suggested_rate_learns_whatever_the_recipe_s_own_was(name: OptimizerName) -> None:
    for own in (0.001, 0.3):
        suggested = recipe(range_test(recipe(own, name)).suggestion, name)
        data = split(colour_images.source().load(), suggested.data)
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


def test_a_loss_that_explodes_at_once_is_one_sentence() -> None:
    with pytest.raises(RunError, match=r"exploded after \d+ steps"):
        range_test(recipe(1e30, OptimizerName.SGD))


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    write_plot(tmp_path / "lr.png", range_test(recipe()), recipe())
    with Image.open(tmp_path / "lr.png") as picture:
        assert picture.size[0] > 500
