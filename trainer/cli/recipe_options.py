"""The options that make a recipe out of a named one, alike for train and tune."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import RecipeError

if TYPE_CHECKING:
    from trainer.recipe import Recipe

DEFAULT_DATA = Path("data")
SHORT_FORMS = {
    "network": "network",
    "weights": "transfer.weights",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "max_seconds": "max_seconds",
    "target_accuracy": "target_accuracy",
    "seed": "seed",
}


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="see: python -m trainer recipes; or a file of tune's")
    parser.add_argument("--preset", default="default", help="a variation that the recipe offers")
    parser.add_argument(
        "--network", metavar="NAME", help="instead of the recipe's; settings by --set network.KEY=VALUE"
    )
    parser.add_argument(
        "--weights", metavar="FROM", help="start from: pretrained (torchvision's), a file of safetensors, or a bundle"
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="where data sets lie (data)")
    parser.add_argument("--skip-bad", action="store_true", help="leave out files that are no readable images")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where decoded images are kept (beside the data)")
    parser.add_argument("--epochs", metavar="N")
    parser.add_argument("--batch-size", metavar="N")
    parser.add_argument("--max-seconds", metavar="S", help="training time that the schedule anneals into")
    parser.add_argument("--seed", metavar="N")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting of the recipe")


def recipe_of(options: argparse.Namespace) -> "Recipe":
    """The recipe as asked for. A bundle to start from brings its network, unless a recipe file named it already.

    Raises RecipeError, and DataError for a bundle that cannot be read.
    """
    from trainer.models.pretrained import network_of_bundle  # noqa: PLC0415
    from trainer.recipe import is_recipe_file, with_settings  # noqa: PLC0415
    from trainer.recipes.registry import find_recipe  # noqa: PLC0415

    recipe, settings = find_recipe(options.recipe, options.preset), settings_of(options)
    own = None if is_recipe_file(options.recipe) else recipe.transfer.weights
    network = network_of_bundle(settings.get("transfer.weights", own))
    if network is not None:
        recipe = recipe.model_copy(update={"network": network})
    return with_settings(recipe, settings)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The options that are short for a setting, the network before its own settings; then those of --set."""
    given = vars(options)
    settings = {key: given[option] for option, key in SHORT_FORMS.items() if given.get(option) is not None}
    for assignment in options.set:
        key, separator, value = assignment.partition("=")
        if not separator:
            raise RecipeError(f"--set takes KEY=VALUE, not '{assignment}'.")
        settings[key.strip()] = value.strip()
    return settings
