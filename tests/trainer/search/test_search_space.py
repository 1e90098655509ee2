import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tests.support import colour_images
from trainer.errors import RecipeError
from trainer.network_config import PlainConfig
from trainer.recipe import with_settings
from trainer.recipes.registry import RECIPES, find_recipe, presets
from trainer.search.search_space import default_space, format_distribution, own_values, parse_space


@pytest.mark.parametrize("name", RECIPES)
def test_the_default_space_of_every_recipe_contains_its_own_values_and_only_valid_ones(name: str) -> None:
    for recipe in presets(name).values():
        space = default_space(recipe)
        assert with_settings(recipe, own_values(space, recipe)) == recipe
        for key, distribution in space.items():
            assert isinstance(distribution, FloatDistribution | IntDistribution)
            for end in (distribution.low, distribution.high):
                with_settings(recipe, {key: end})
            assert parse_space([f"{key}={format_distribution(distribution)}"], recipe)


def test_the_default_space_follows_the_augmentations_that_are_on() -> None:
    space = default_space(find_recipe("digits", "default"))
    assert space["optimizer.learning_rate"] == FloatDistribution(4e-4, 4e-2, log=True)
    assert space["optimizer.weight_decay"] == FloatDistribution(0.002, 0.2, log=True)
    assert space["augment.rotate"] == FloatDistribution(0, 16)
    assert set(space) == {
        "optimizer.learning_rate",
        "optimizer.weight_decay",
        "label_smoothing",
        "augment.translate",
        "augment.rotate",
        "augment.scale",
        "network.dropout",
    }
    assert set(default_space(colour_images.recipe(network=PlainConfig(widths=(4,))))) == {
        "optimizer.learning_rate",
        "label_smoothing",
        "augment.translate",
        "network.dropout",
    }


def test_ranges_and_choices_are_parsed() -> None:
    recipe = colour_images.recipe()
    space = parse_space(["optimizer.learning_rate=1e-3:0.1:log", "epochs=1:9", "augment.flip=off,random"], recipe)
    assert space == {
        "optimizer.learning_rate": FloatDistribution(1e-3, 0.1, log=True),
        "epochs": IntDistribution(1, 9),
        "augment.flip": CategoricalDistribution(("off", "random")),
    }
    assert own_values(space, recipe) == {"optimizer.learning_rate": 0.02, "epochs": 3, "augment.flip": "off"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epochs", "KEY=LOW:HIGH"),
        ("optimizer.lr=1:2", "learning_rate"),
        ("optimizer.learning_rate=a:b", "is not a range of numbers"),
        ("optimizer.learning_rate=0.1:0.01", "LOW below HIGH"),
        ("optimizer.learning_rate=0:1:log", "LOW above 0"),
        ("optimizer.learning_rate=0.1:1:linear", "LOW:HIGH"),
        ("label_smoothing=0:1", "label_smoothing"),
        ("optimizer.learning_rate=0:nan", "is not a range"),
        ("optimizer.learning_rate=0.1:inf", "is not a range"),
        ("optimizer.learning_rate=1:2:3", "is not a range"),
        ("epochs=1:2.5", "not a range of whole numbers"),
        ("augment.flip=0:1", "Give choices"),
        ("augment.flip=off,sideways", "augment.flip"),
        ("data.validation=0.1:0.5", "cannot vary 'data.validation'"),
        ("seed=0:9", "cannot vary 'seed'"),
    ],
)
def test_a_wrong_space_raises_a_message_that_names_the_fault(text: str, named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        parse_space([text], colour_images.recipe())


@pytest.mark.parametrize("text", ["optimizer.learning_rate=0.1:1", "augment.flip=random,alternating"])
def test_a_space_without_the_own_value_of_the_recipe_is_refused(text: str) -> None:
    space = parse_space([text], colour_images.recipe())
    with pytest.raises(RecipeError, match="does not contain the recipe's value"):
        own_values(space, colour_images.recipe())
