"""python -m trainer show: what the network will see, as a picture."""

import argparse
import sys
from pathlib import Path

from trainer.cli.argument_types import new_file, positive
from trainer.cli.recipe_options import DEFAULT_DATA, settings_of


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        metavar="RECIPE|DATA",
        help="a recipe or a file of one, or a folder or file whose kind shows by its content",
    )
    parser.add_argument("--preset", default="default", help="a variation that the recipe offers")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where a recipe's data sets lie (data)")
    parser.add_argument("--skip-bad", action="store_true", help="leave out files that are no readable images")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where decoded images are kept (beside the data)")
    parser.add_argument("--out", type=new_file, default=Path("show.png"), metavar="FILE", help="the picture (show.png)")
    parser.add_argument("--count", type=positive, default=32, metavar="N", help="images (32)")
    parser.add_argument("--seed", metavar="N", help="which images, and how they are changed")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting of the recipe")


def run(options: argparse.Namespace) -> int:
    from trainer.bundle.preview import write_show  # noqa: PLC0415
    from trainer.data.detect import open_source, recipe_for  # noqa: PLC0415
    from trainer.models.build import load_splits  # noqa: PLC0415
    from trainer.recipe import is_recipe_file, with_settings  # noqa: PLC0415
    from trainer.recipes.registry import RECIPES, find_recipe  # noqa: PLC0415

    what, folder = options.what, options.data or DEFAULT_DATA
    if what in RECIPES or is_recipe_file(what):
        recipe = find_recipe(what, options.preset)
    else:
        folder, recipe = Path(what), recipe_for(Path(what), options.preset)
    recipe = with_settings(recipe, settings_of(options))
    source = open_source(recipe.data, folder, skip_bad=options.skip_bad, cache=options.cache)
    data = load_splits(recipe, source)
    for sentence in data.told:
        print(sentence, file=sys.stderr)
    shown = write_show(options.out, recipe, data, options.count)
    print(
        f"{options.out}: {shown} of {len(data.train):,} training images of {data.name}, before and after augmentation."
    )
    return 0
