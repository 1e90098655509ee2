"""python -m trainer show: draws training images before and after augmentation."""

import argparse
from pathlib import Path

from trainer.cli.argument_types import new_file, positive
from trainer.cli.output import say
from trainer.cli.recipe_options import add_recipe_data_options, settings_of, source_of
from trainer.data.detect import check_data_option, recipe_for_path
from trainer.data.split import split
from trainer.recipe import is_recipe_file, with_settings
from trainer.recipes.registry import RECIPES, find_recipe


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="RECIPE|DATA", help="a recipe, a recipe file, or data whose kind is detected")
    add_recipe_data_options(parser)
    parser.add_argument(
        "--out", type=new_file, default="show.png", metavar="FILE", help="file for the picture (default: show.png)"
    )
    parser.add_argument("--count", type=positive, default=32, metavar="N", help="number of images (default: 32)")
    parser.add_argument("--seed", metavar="N", help="random seed for the choice and augmentation of images")


def run(options: argparse.Namespace) -> int:
    if options.what in RECIPES or is_recipe_file(options.what):
        recipe = find_recipe(options.what, options.preset)
    else:
        options.data = Path(options.what)
        recipe = recipe_for_path(options.data, options.preset)
    recipe = with_settings(recipe, settings_of(options))
    check_data_option(recipe.data.source, options.data)
    data = split(source_of(recipe, options).load(), recipe.data)
    say(*data.notes)
    from trainer.bundle.preview import write_show  # noqa: PLC0415 - PyTorch takes seconds; errors come without it

    shown = write_show(Path(options.out), recipe, data, options.count)
    print(
        f"{options.out}: {shown} of {len(data.train):,} training images of {data.name}, before and after augmentation."
    )
    return 0
