import json
from pathlib import Path

import pytest

from tests.support import colour_images
from trainer.errors import RecipeError, WriteError
from trainer.models.build import build
from trainer.models.layers import Shape
from trainer.models.summary import parameter_count
from trainer.network_config import BackboneConfig, InceptionConfig
from trainer.recipe import AUGMENT_POLICIES, OptimizerName, Recipe, read_recipe, with_settings, write_recipe
from trainer.recipes.registry import RECIPES, claim, find_recipe, presets

DIGITS = find_recipe("digits", "default")


def test_a_setting_typed_as_text_takes_its_type() -> None:
    recipe = with_settings(DIGITS, {"optimizer.learning_rate": "0.25", "epochs": "3", "network.widths": "8,16"})
    assert recipe.optimizer.learning_rate == 0.25
    assert recipe.epochs == 3
    assert recipe.network.model_dump()["widths"] == (8, 16)


def test_settings_leave_the_recipe_as_it_was() -> None:
    with_settings(DIGITS, {"epochs": 1})
    assert find_recipe("digits", "default").epochs == DIGITS.epochs != 1


@pytest.mark.parametrize("key", ["network", "network.name"])
def test_setting_the_network_brings_its_own_defaults(key: str) -> None:
    recipe = with_settings(DIGITS, {key: "inception", "network.stem": "4"})
    assert recipe.network == InceptionConfig(stem=4)


@pytest.mark.parametrize("policy", AUGMENT_POLICIES)
def test_an_augmentation_policy_sets_the_group_and_later_settings_change_it(policy: str) -> None:
    recipe = with_settings(DIGITS, {"augment.policy": policy, "augment.rotate": "7"})
    assert recipe.augment == AUGMENT_POLICIES[policy].model_copy(update={"rotate": 7.0})


def test_an_unknown_augmentation_policy_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="choose one of none, light, strong, trivial"):
        with_settings(DIGITS, {"augment.policy": "heavy"})


def test_balancing_twice_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^These settings of recipe disagree: .* would balance twice; choose one\.$"):
        with_settings(DIGITS, {"sampling": "balanced", "class_weights": "balanced"})


def test_any_other_name_is_a_network_of_timm() -> None:
    assert with_settings(DIGITS, {"network": "resnet18"}).network == BackboneConfig(name="resnet18")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"epoch": "3"}, "epochs"),
        ({"optimizer.lr": "3"}, "learning_rate"),
        ({"nonsense.deep": "3"}, "nonsense.deep"),
        ({"optimizer": "sgd"}, "optimizer.name"),
        ({"epochs": "many"}, "epochs"),
        ({"epochs": "0"}, "epochs"),
        ({"transfer.fine_tune": "long"}, "transfer.fine_tune = 'long': it must be a number of seconds above 0, 'auto'"),
        ({"variants": "int4"}, r"variants.0 = 'int4': it must be 'int8' or 'fp16'\."),
        ({"transfer.probe": "true"}, "without starting weights"),
        ({"transfer.fine_tune": "5"}, "fine_tune limits the training after a linear probe; .* set max_seconds"),
        ({"transfer.keep_head": "true", "transfer.fine_tune": "off"}, "would train nothing; leave one of them out"),
        ({"network.widths": "a"}, "network.widths"),
        ({"optimizer.name": "sgdd"}, "optimizer.name"),
        ({"data.validation": "0.95"}, "no images to train on"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, str], named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        with_settings(DIGITS, settings)


def test_a_recipe_survives_json() -> None:
    for name in RECIPES:
        for recipe in presets(name).values():
            assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_every_recipe_has_a_default_and_a_claim() -> None:
    for name in RECIPES:
        assert "default" in presets(name)
        assert claim(name)


def test_an_unknown_recipe_or_preset_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Known recipes: digits, mnist, cifar10, cifar10-94, cats-dogs"):
        find_recipe("digitz", "default")
    with pytest.raises(RecipeError, match=rf"Known recipes: .* To train on {tmp_path}: photos --data {tmp_path}\."):
        find_recipe(str(tmp_path), "default")
    with pytest.raises(RecipeError, match="default, sprint, tiny, published"):
        find_recipe("mnist", "best")


def test_tiny_mnist_has_under_ten_thousand_parameters() -> None:
    mnist = Shape(height=28, width=28, channels=1, classes=10)
    assert parameter_count(build(find_recipe("mnist", "tiny").network, mnist)) < 10_000


def test_the_published_mnist_run_is_as_published() -> None:
    published = find_recipe("mnist", "published")
    assert (published.epochs, published.batch_size, published.validation_batch_size) == (20, 60, 50)
    assert published.network.name == "inception"
    assert published.optimizer.name is OptimizerName.ADAM


def test_every_recipe_survives_its_file_and_is_found_by_it(tmp_path: Path) -> None:
    for name in RECIPES:
        for preset, recipe in presets(name).items():
            path = tmp_path / f"{name}-{preset}.json"
            write_recipe(path, recipe)
            assert find_recipe(str(path), "default") == recipe


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 0}, "epochs: Input should be greater than or equal to 1"),
        ({"optimiser": {}}, "optimiser: Extra inputs"),
        ({"network": {"name": "plain", "widths": ["wide"]}}, "network.widths.0: "),
        ({"optimizer": {"name": "adam"}}, "optimizer.learning_rate: Field required"),
    ],
)
def test_a_file_with_a_wrong_or_unknown_field_is_refused_naming_it(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(colour_images.recipe().model_dump(mode="json") | change))
    with pytest.raises(RecipeError, match=named):
        read_recipe(path)


def test_a_file_that_is_cut_short_or_not_there_is_refused(tmp_path: Path) -> None:
    write_recipe(tmp_path / "recipe.json", colour_images.recipe())
    (tmp_path / "cut.json").write_bytes((tmp_path / "recipe.json").read_bytes()[:-20])
    with pytest.raises(RecipeError, match=r"cut\.json is damaged or from another release: recipe: Invalid JSON"):
        read_recipe(tmp_path / "cut.json")
    with pytest.raises(RecipeError, match="cannot be read"):
        find_recipe(str(tmp_path / "nowhere.json"), "default")


def test_a_file_has_no_presets(tmp_path: Path) -> None:
    write_recipe(tmp_path / "recipe.json", colour_images.recipe())
    with pytest.raises(RecipeError, match=r"has no presets\. Leave out --preset tiny"):
        find_recipe(str(tmp_path / "recipe.json"), "tiny")


def test_names_the_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="could not be written"):
        write_recipe(tmp_path / "file" / "recipe.json", colour_images.recipe())
