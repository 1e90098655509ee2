"""python -m trainer train | tune | show | recipes | predict | evaluate | compare.

Reads the command line and says the outcome.

Exit status: 0 done, 1 the run failed, 2 the caller can mend it, 130 interrupted.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import SchemaError
from trainer.commands import compare, evaluate, tune
from trainer.commands.recipe_options import DEFAULT_DATA, add_recipe_options, recipe_of, settings_of
from trainer.commands.values import positive
from trainer.errors import TrainerError, UsageError

if TYPE_CHECKING:
    from trainer.recipe import Recipe

INTERRUPTED = 130
DEFAULT_ARTIFACTS = Path("artifacts")


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except TrainerError as error:
        return _fail(str(error), error.exit_status)
    except SchemaError as error:
        return _fail(str(error), UsageError.exit_status)
    except KeyboardInterrupt:
        return _fail("Interrupted; no bundle was written.", INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer", description="Trains image classifiers into ONNX bundles."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a recipe and write its bundle")
    add_recipe_options(train)
    train.add_argument("--artifacts", type=Path, default=DEFAULT_ARTIFACTS, metavar="DIR", help="where bundles go")
    train.set_defaults(command=_train)

    show = commands.add_parser("show", help="draw training images before and after augmentation")
    show.add_argument(
        "what",
        metavar="RECIPE|DATA",
        help="a recipe or a file of tune's, or a folder or file of data whose kind shows by its content",
    )
    show.add_argument("--preset", default="default", help="a variation that the recipe offers")
    show.add_argument("--data", type=Path, metavar="DIR", help="where a recipe's data sets lie (data)")
    show.add_argument("--skip-bad", action="store_true", help="leave out files that are no readable images")
    show.add_argument("--cache", type=Path, metavar="DIR", help="where decoded images are kept (beside the data)")
    show.add_argument("--out", type=Path, default=Path("show.png"), metavar="FILE", help="the picture (show.png)")
    show.add_argument("--count", type=positive, default=32, metavar="N", help="images (32)")
    show.add_argument("--seed", metavar="N", help="which images, and how they are changed")
    show.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting of the recipe")
    show.set_defaults(command=_show)

    recipes = commands.add_parser("recipes", help="list the recipes, and every setting that they take")
    recipes.set_defaults(command=_recipes)

    predict = commands.add_parser("predict", help="classify image files with a bundle")
    predict.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="artifacts/<model>/<version>, or artifacts/<model>"
    )
    predict.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="image files, and folders of them")
    predict.add_argument("--json", action="store_true", help="print JSON instead of a table")
    predict.set_defaults(command=_predict)

    scored = commands.add_parser("evaluate", help="score a bundle on labelled data")
    evaluate.add_options(scored)
    scored.set_defaults(command=evaluate.run)

    tuned = commands.add_parser("tune", help="search for better settings of a recipe, judged on validation")
    tune.add_options(tuned)
    tuned.set_defaults(command=tune.run)

    compared = commands.add_parser("compare", help="say which of two bundles is better, and if by more than chance")
    compare.add_options(compared)
    compared.set_defaults(command=compare.run)
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    return _parser().parse_args(arguments)


def _train(options: argparse.Namespace) -> int:
    from trainer.data.sources import open_source  # noqa: PLC0415
    from trainer.device import choose_device, describe  # noqa: PLC0415
    from trainer.progress import reporter_for  # noqa: PLC0415
    from trainer.train import train  # noqa: PLC0415

    started = time.perf_counter()
    recipe = recipe_of(options)
    device = choose_device(options.device)
    print(f"Training {recipe.name} on {describe(device)}, seed {recipe.seed}.", file=sys.stderr)
    source = open_source(recipe.data, options.data, skip_bad=options.skip_bad, cache=options.cache)
    trained = train(recipe, source, device, options.artifacts, reporter_for(sys.stderr))
    test, data = trained.manifest.metrics.test, trained.manifest.provenance.data
    interval = test.accuracy_interval
    print(
        f"{trained.path}: test accuracy {test.accuracy:.2%} (95% {interval.lower:.2%} to {interval.upper:.2%}), "
        f"macro F1 {test.macro.f1:.4f}, on {test.n:,} images{_views(recipe)}; "
        f"trained on {data.train:,}, chosen on {data.validation:,}; "
        f"{trained.manifest.provenance.duration_seconds:.1f} s training, {time.perf_counter() - started:.1f} s in all."
    )
    return 0


def _views(recipe: "Recipe") -> str:
    return "" if recipe.test_views == "one" else f", averaged over test-time views ({recipe.test_views})"


def _show(options: argparse.Namespace) -> int:
    from trainer.data.sources import open_source, recipe_for  # noqa: PLC0415
    from trainer.recipe import with_settings  # noqa: PLC0415
    from trainer.recipe_file import is_recipe_file  # noqa: PLC0415
    from trainer.recipes import RECIPES, find_recipe  # noqa: PLC0415
    from trainer.show import write_show  # noqa: PLC0415
    from trainer.train import load_splits  # noqa: PLC0415

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


def _recipes(_: argparse.Namespace) -> int:
    from trainer.listing import claims, recipe_table, settings_table  # noqa: PLC0415

    print(recipe_table(), claims(), "Each of them takes each of these by --set KEY=VALUE:", sep="\n\n", end="\n\n")
    print(settings_table())
    return 0


def _predict(options: argparse.Namespace) -> int:
    from trainer.predict import as_json, as_table, predict_files  # noqa: PLC0415

    answers = predict_files(options.bundle, options.paths)
    print(as_json(answers) if options.json else as_table(answers))
    bad = [answer for answer in answers if answer.error is not None]
    if bad:
        return _fail(f"{len(bad)} of {len(answers)} images could not be read.", UsageError.exit_status)
    return 0


def _fail(sentence: str, status: int) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return status
