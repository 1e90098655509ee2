import pytest

from trainer.cli.settings_help import claims, recipe_rows, setting_rows
from trainer.network_config import NETWORKS
from trainer.recipe import Recipe, _flat, with_settings
from trainer.recipes.registry import RECIPES, find_recipe, presets

VALUES = {key: values for key, values, _ in setting_rows()}


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_that_a_recipe_has_is_listed(name: str) -> None:
    for recipe in presets(name).values():
        assert set(_flat(recipe.model_dump(mode="json"))) - {"network.name", "data.input"} <= set(VALUES)


def test_every_setting_has_a_meaning() -> None:
    without = [key for key, _, meaning in setting_rows() if not meaning or meaning.endswith("None")]
    assert without == []


def test_every_choice_that_is_listed_can_be_set() -> None:
    recipe = find_recipe("photos", "default")
    choices = {key: values.removesuffix(",...").split("|") for key, values in VALUES.items() if "|" in values}
    assert {"network", "optimizer.name", "schedule.name", "augment.flip", "class_weights", "variants"} <= set(choices)
    for key, values in choices.items():
        for value in values:
            needs_others = key.startswith("network.") or (key, value) == ("transfer.weights", "null")
            if not needs_others and value.split(",")[0] not in {"int", "text", "number"}:
                assert isinstance(with_settings(recipe, {key: value}), Recipe)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_fits_every_recipe(network: str) -> None:
    for name in RECIPES:
        assert with_settings(find_recipe(name, "default"), {"network": network}).network.name == network


def test_every_recipe_and_preset_has_a_row_and_a_claim() -> None:
    assert [row[:2] for row in recipe_rows()] == [(name, preset) for name in RECIPES for preset in presets(name)]
    assert all(f"{name}: " in claims() for name in RECIPES)
    assert "\n    cifar10 quick: " in claims()
