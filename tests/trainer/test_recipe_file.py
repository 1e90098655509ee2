import json
from pathlib import Path

import pytest

from tests.trainer import colours
from trainer.errors import RecipeError, WriteError
from trainer.recipe import read_recipe, write_recipe
from trainer.recipes.registry import RECIPES, find_recipe, presets


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
    path.write_text(json.dumps(colours.recipe().model_dump(mode="json") | change))
    with pytest.raises(RecipeError, match=named):
        read_recipe(path)


def test_a_file_that_is_cut_short_or_not_there_is_refused(tmp_path: Path) -> None:
    write_recipe(tmp_path / "recipe.json", colours.recipe())
    (tmp_path / "cut.json").write_bytes((tmp_path / "recipe.json").read_bytes()[:-20])
    with pytest.raises(RecipeError, match=r"cut\.json is damaged or of another release: recipe: Invalid JSON"):
        read_recipe(tmp_path / "cut.json")
    with pytest.raises(RecipeError, match="cannot be read"):
        find_recipe(str(tmp_path / "nowhere.json"), "default")


def test_a_file_has_no_presets(tmp_path: Path) -> None:
    write_recipe(tmp_path / "recipe.json", colours.recipe())
    with pytest.raises(RecipeError, match="has no presets; leave out --preset tiny"):
        find_recipe(str(tmp_path / "recipe.json"), "tiny")


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="could not be written"):
        write_recipe(tmp_path / "file" / "recipe.json", colours.recipe())
