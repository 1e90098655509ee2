"""python -m trainer train | show | recipes | predict | evaluate | compare. Reads the command line and says the outcome.

Exit status: 0 done, 1 the run failed, 2 the caller can mend it, 130 interrupted.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import SchemaError
from trainer.commands import compare, evaluate
from trainer.errors import RecipeError, TrainerError, UsageError

if TYPE_CHECKING:
    from trainer.recipe import Recipe

INTERRUPTED = 130
DEFAULT_ARTIFACTS = Path("artifacts")
DEFAULT_DATA = Path("data")
DEFAULT_RUNS = Path("runs")
SHORT_FORMS = {
    "network": "network",
    "weights": "transfer.weights",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "max_seconds": "max_seconds",
    "target_accuracy": "target_accuracy",
    "seed": "seed",
}


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
        return _fail(_interrupted(), INTERRUPTED)


def _interrupted() -> str:
    by = " (by torchrun, as it does where another process of the run has ended)" * ("TORCHELASTIC_RUN_ID" in os.environ)
    return f"Interrupted{by}; no bundle was written. A training goes on from its last checkpoint with --resume."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer", description="Trains image classifiers into ONNX bundles."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a recipe and write its bundle")
    train.add_argument("recipe", metavar="RECIPE", help="see: python -m trainer recipes")
    train.add_argument("--preset", default="default", help="a variation that the recipe offers")
    train.add_argument("--network", metavar="NAME", help="instead of the recipe's; settings by --set network.KEY=VALUE")
    train.add_argument(
        "--weights", metavar="FROM", help="start from: pretrained (torchvision's), a file of safetensors, or a bundle"
    )
    train.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="where data sets lie (data)")
    train.add_argument("--skip-bad", action="store_true", help="leave out files that are no readable images")
    train.add_argument("--cache", type=Path, metavar="DIR", help="where decoded images are kept (beside the data)")
    train.add_argument("--artifacts", type=Path, default=DEFAULT_ARTIFACTS, metavar="DIR", help="where bundles go")
    train.add_argument("--runs", type=Path, default=DEFAULT_RUNS, metavar="DIR", help="where checkpoints go (runs)")
    train.add_argument("--resume", action="store_true", help="go on with the last run of the same settings and data")
    train.add_argument(
        "--checkpoint-seconds", type=_seconds, default=30.0, metavar="S", help="between checkpoints (30); 0: each step"
    )
    train.add_argument("--tensorboard", action="store_true", help="write event files as well, beside the checkpoints")
    train.add_argument("--epochs", metavar="N")
    train.add_argument("--batch-size", metavar="N")
    train.add_argument("--max-seconds", metavar="S", help="training time that the schedule anneals into")
    train.add_argument(
        "--target-accuracy", metavar="A", help="find the reject threshold with which answers are so often right"
    )
    train.add_argument("--seed", metavar="N")
    train.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting of the recipe")
    train.set_defaults(command=_train)

    show = commands.add_parser("show", help="draw training images before and after augmentation")
    show.add_argument(
        "what", metavar="RECIPE|DATA", help="a recipe, or a folder or file whose kind shows by its content"
    )
    show.add_argument("--preset", default="default", help="a variation that the recipe offers")
    show.add_argument("--data", type=Path, metavar="DIR", help="where a recipe's data sets lie (data)")
    show.add_argument("--skip-bad", action="store_true", help="leave out files that are no readable images")
    show.add_argument("--cache", type=Path, metavar="DIR", help="where decoded images are kept (beside the data)")
    show.add_argument("--out", type=Path, default=Path("show.png"), metavar="FILE", help="the picture (show.png)")
    show.add_argument("--count", type=_positive, default=32, metavar="N", help="images (32)")
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

    compared = commands.add_parser("compare", help="say which of two bundles is better, and if by more than chance")
    compare.add_options(compared)
    compared.set_defaults(command=compare.run)
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    return _parser().parse_args(arguments)


def _train(options: argparse.Namespace) -> int:
    from trainer.data.sources import open_source  # noqa: PLC0415
    from trainer.device import choose_device, describe  # noqa: PLC0415
    from trainer.distributed import join  # noqa: PLC0415
    from trainer.progress import SilentReporter, reporter_for  # noqa: PLC0415
    from trainer.recipe import with_settings  # noqa: PLC0415
    from trainer.recipes import find_recipe  # noqa: PLC0415
    from trainer.train import Runs, train_in  # noqa: PLC0415
    from trainer.weights import network_of_bundle  # noqa: PLC0415

    started = time.perf_counter()
    recipe, settings = find_recipe(options.recipe, options.preset), _settings(options)
    network = network_of_bundle(settings.get("transfer.weights", recipe.transfer.weights))
    if network is not None:
        recipe = recipe.model_copy(update={"network": network})
    recipe = with_settings(recipe, settings)
    device = choose_device(options.device)
    with join(device) as world:
        if world.first:
            several = f", in {world.size} processes" if world.size > 1 else ""
            print(f"Training {recipe.name} on {describe(device)}, seed {recipe.seed}{several}.", file=sys.stderr)
        source = open_source(recipe.data, options.data, skip_bad=options.skip_bad, cache=options.cache)
        reporter = reporter_for(sys.stderr) if world.first else SilentReporter()
        runs = Runs(options.runs, options.resume, options.tensorboard, options.checkpoint_seconds)
        trained = train_in(world, recipe, source, device, options.artifacts, reporter, runs=runs)
    if trained is None:
        return 0
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


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The options that are short for a setting, the network before its own settings; then those of --set."""
    given = vars(options)
    settings = {key: given[option] for option, key in SHORT_FORMS.items() if given.get(option) is not None}
    for assignment in options.set:
        key, separator, value = assignment.partition("=")
        if not separator:
            raise RecipeError(f"--set takes KEY=VALUE, not '{assignment}'.")
        settings[key.strip()] = value.strip()
    return settings


def _show(options: argparse.Namespace) -> int:
    from trainer.data.sources import open_source, recipe_for  # noqa: PLC0415
    from trainer.prepare import load_splits  # noqa: PLC0415
    from trainer.recipe import with_settings  # noqa: PLC0415
    from trainer.recipes import RECIPES, find_recipe  # noqa: PLC0415
    from trainer.show import write_show  # noqa: PLC0415

    what, folder = options.what, options.data or DEFAULT_DATA
    if what in RECIPES:
        recipe = find_recipe(what, options.preset)
    else:
        folder, recipe = Path(what), recipe_for(Path(what), options.preset)
    recipe = with_settings(recipe, _settings(options))
    source = open_source(recipe.data, folder, skip_bad=options.skip_bad, cache=options.cache)
    data = load_splits(recipe, source)
    for sentence in data.told:
        print(sentence, file=sys.stderr)
    shown = write_show(options.out, recipe, data, options.count)
    print(
        f"{options.out}: {shown} of {len(data.train):,} training images of {data.name}, before and after augmentation."
    )
    return 0


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no time in seconds")
    return seconds


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 on")
    return int(text)


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
