"""The options that choose a recipe, its settings and its data, for train, tune, lr-find and show."""

import argparse
import csv
from pathlib import Path
from typing import Any

from schemas.manifest import InputSpec
from trainer.cli.data_options import add_decoding_options
from trainer.cli.output import say
from trainer.data.dataset import DataSource
from trainer.data.detect import check_data_option, model_name, open_source
from trainer.errors import DataError, RecipeError
from trainer.network_config import NETWORKS, BackboneConfig
from trainer.recipe import Recipe, is_recipe_file
from trainer.recipes.registry import configure
from trainer.training.nvidia_driver import check_device

DEFAULT_DATA = Path("data")
ANY_SIZE = InputSpec(height=1, width=1, channels=3)
SHORT_FORMS = {
    "name": "name",
    "network": "network",
    "weights": "transfer.weights",
    "keep_head": "transfer.keep_head",
    "fine_tune": "transfer.fine_tune",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "max_seconds": "max_seconds",
    "target_accuracy": "target_accuracy",
    "seed": "seed",
}


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a name that `recipes` lists, or a recipe file (.json)")
    parser.add_argument(
        "--name", help="model name (default: the recipe's name; for folders, CSV and npz, the name of the data)"
    )
    parser.add_argument(
        "--network", metavar="NAME", help=f"{', '.join(NETWORKS)}, or a timm model (default: the recipe's network)"
    )
    parser.add_argument(
        "--weights",
        metavar="FROM",
        help="starting weights: pretrained (on ImageNet), a safetensors file, or a bundle",
    )
    parser.add_argument(
        "--keep-head",
        action="store_const",
        const="true",
        help="keep the last layer of the bundle in --weights; it must have the labels of the data",
    )
    parser.add_argument(
        "--fine-tune",
        metavar="SECONDS|off|auto",
        help="seconds of fine-tuning after the linear probe; auto (default): at most twice the probe's time; off: none",
    )
    add_recipe_data_options(parser)
    parser.add_argument("--epochs", metavar="N", help="number of epochs")
    parser.add_argument("--batch-size", metavar="N", help="images per training step, in all processes together")
    parser.add_argument(
        "--max-seconds", metavar="S", help="limit of the training time, in seconds; the schedule is fitted to it"
    )
    parser.add_argument("--seed", metavar="N", help="random seed of the run (default: 0)")
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="auto (default): CUDA if it works, else the CPU",
    )


def add_recipe_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="default", help="preset of the recipe, as `recipes` lists them")
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder or file of the data set (default: data)")
    parser.add_argument("--exclude", type=Path, metavar="CSV", help="photo files to leave out, as `clean` lists them")
    add_decoding_options(parser)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set any setting of the recipe")


def recipe_of(options: argparse.Namespace) -> Recipe:
    """Returns the recipe with its settings and the name of its model.

    Raises RecipeError, DataError for a bundle or --data that does not fit, and DeviceError for a missing GPU.
    """
    check_device(options.device)
    settings = settings_of(options)
    recipe = configure(options.recipe, options.preset, settings)
    check_data_option(recipe.data.source, options.data)
    if "name" not in settings and not is_recipe_file(options.recipe):
        name = model_name(recipe, options.data or DEFAULT_DATA, options.preset)
        recipe = recipe.model_copy(update={"name": name})
    return recipe


def source_of(recipe: Recipe, options: argparse.Namespace) -> DataSource:
    """Returns the recipe's data, checked but not read."""
    place, config = options.data or DEFAULT_DATA, recipe.data
    if config.input.spec is not None:
        recipe.augment.check_size(config.input.spec.height, config.input.spec.width)
    if isinstance(recipe.network, BackboneConfig):
        if "network" not in settings_of(options):  # the default network needs no check, and the data comes first
            if not place.exists():
                raise DataError(f"{place} is not a folder or file. Give the data with --data.")
            open_source(config.with_input(config.input.spec or ANY_SIZE), place)
        from trainer.models.input_size import with_size  # noqa: PLC0415 - PyTorch takes seconds

        config, reasons = with_size(recipe, place)
        say(*reasons)
    exclude = frozenset[str]() if options.exclude is None else _excluded(options.exclude)
    source = open_source(config, place, skip_bad=options.skip_bad, cache=options.cache, exclude=exclude)
    if recipe.augment.translate:
        recipe.augment.check_size(*source.shape()[:2])
    return source


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings of the short options, then those of --set."""
    given = vars(options)
    settings = {key: given[option] for option, key in SHORT_FORMS.items() if given.get(option) is not None}
    for assignment in options.set:
        key, separator, value = assignment.partition("=")
        if not separator:
            raise RecipeError(f"--set takes KEY=VALUE, not '{assignment}'.")
        settings[key.strip()] = value.strip()
    return settings


def _excluded(path: Path) -> frozenset[str]:
    """Returns the column `file` of a list that `clean` has written. Raises DataError."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"The list {path} cannot be read ({error.strerror}).") from error
    if any("file" not in row or not row["file"] for row in rows):
        raise DataError(f"{path} must have a column named file, with a name in every row.")
    return frozenset(row["file"] for row in rows)
