"""The recipes, by name: one file each.

Its docstring is a measured claim and the command that shows it, or says that nothing has been measured yet. A recipe
file holds PRESETS: name -> Recipe, of which `default` is always there.
"""

from pathlib import Path
from types import ModuleType

from trainer.errors import RecipeError
from trainer.recipe import Recipe, is_recipe_file, read_recipe
from trainer.recipes import cats_dogs, cifar10, cifar10_94, digits, mnist, photos, transfer

RECIPES: dict[str, ModuleType] = {
    "digits": digits,
    "mnist": mnist,
    "cifar10": cifar10,
    "cifar10-94": cifar10_94,
    "cats-dogs": cats_dogs,
    "photos": photos,
    "transfer": transfer,
}


def presets(name: str) -> dict[str, Recipe]:
    """Raises RecipeError naming the known recipes."""
    if name not in RECIPES:
        raise RecipeError(f"There is no recipe '{name}'; known are {', '.join(RECIPES)}.")
    found: dict[str, Recipe] = RECIPES[name].PRESETS
    return found


def find_recipe(name: str, preset: str) -> Recipe:
    """The recipe of that name, or in that file. Raises RecipeError naming the known recipes or presets."""
    if is_recipe_file(name):
        if preset != "default":
            raise RecipeError(f"The recipe file {name} has no presets; leave out --preset {preset}.")
        return read_recipe(Path(name))
    known = presets(name)
    if preset not in known:
        raise RecipeError(f"The recipe {name} has no preset '{preset}'; it has {', '.join(known)}.")
    return known[preset]


def claim(name: str) -> str:
    """The first line of the recipe's docstring, and what it says was measured."""
    lines = (RECIPES[name].__doc__ or "").strip().splitlines()
    measured = [line for i, line in enumerate(lines) if any(said.startswith("Measured") for said in lines[:i]) and line]
    return "\n".join([lines[0], *measured])
