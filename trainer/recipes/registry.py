"""The recipes by name, one module each.

The module's docstring gives the command and its measured accuracy. PRESETS maps the names of the recipe's variants to
Recipe objects; `default` is always one of them.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trainer.errors import DataError, RecipeError
from trainer.files import open_newest_bundle
from trainer.network_config import PACKAGED, AnyNetwork, BackboneConfig, NetworkConfig, check_network
from trainer.recipe import PRETRAINED, Recipe, is_recipe_file, read_recipe, with_settings
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
    """Returns the recipe's presets by name. Raises RecipeError for an unknown recipe."""
    if name not in RECIPES:
        advice = f" To train on {name}: photos --data {name}." if Path(name).exists() else ""
        raise RecipeError(f"Unknown recipe '{name}'. Known recipes: {', '.join(RECIPES)}.{advice}")
    found: dict[str, Recipe] = RECIPES[name].PRESETS
    return found


def find_recipe(name: str, preset: str) -> Recipe:
    """Returns the recipe of that name, or in that file. Raises RecipeError for an unknown recipe or preset."""
    if is_recipe_file(name):
        if preset != "default":
            raise RecipeError(f"The recipe file {name} has no presets. Leave out --preset {preset}.")
        return read_recipe(Path(name))
    known = presets(name)
    if preset not in known:
        raise RecipeError(f"The recipe {name} has no preset '{preset}'. Its presets: {', '.join(known)}.")
    return known[preset]


def configure(name: str, preset: str, settings: dict[str, Any]) -> Recipe:
    """Returns the recipe with these settings. A bundle to start from brings its network, except to a recipe file.

    Raises RecipeError, and DataError for starting weights that do not exist or do not fit.
    """
    recipe = find_recipe(name, preset)
    own = None if is_recipe_file(name) else recipe.transfer.weights
    network = network_of_bundle(settings.get("transfer.weights", own))
    if network is not None:
        recipe = recipe.model_copy(update={"network": network})
    recipe = with_settings(recipe, settings)
    check_network(recipe.network)
    check_weights(recipe)
    return recipe


def check_weights(recipe: Recipe) -> None:
    """Raises DataError if the starting weights do not exist."""
    weights = recipe.transfer.weights
    if weights == PRETRAINED and not isinstance(recipe.network, BackboneConfig):
        raise DataError(
            f"There are no pretrained weights for the network {recipe.network.name}. Choose a "
            f"--network of timm's, such as {PACKAGED}, or give --weights a file of safetensors or a bundle."
        )
    if weights not in {None, PRETRAINED} and not Path(str(weights)).exists():
        raise DataError(
            f"The weights {weights} do not exist. Give 'pretrained', a file of safetensors, or the folder of a bundle."
        )


def network_of_bundle(weights: str | None) -> AnyNetwork | None:
    """Returns the network of a bundle's weights; None if the weights are not a folder.

    Raises DataError, or what open_bundle raises.
    """
    if weights in {None, PRETRAINED} or not Path(str(weights)).is_dir():
        return None
    manifest = open_newest_bundle(Path(str(weights))).manifest
    try:
        network: AnyNetwork = TypeAdapter(NetworkConfig).validate_python(manifest.provenance.recipe.get("network"))
    except ValidationError as error:
        raise DataError(f"The network of the bundle {weights} is unknown to this release.") from error
    return network


def claim(name: str) -> str:
    """Returns the first line of the recipe's docstring, and its measurements."""
    lines = (RECIPES[name].__doc__ or "").strip().splitlines()
    measured = [
        line for i, line in enumerate(lines) if any(above.startswith("Measured") for above in lines[:i]) and line
    ]
    return "\n".join([lines[0], *measured])
