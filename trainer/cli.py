"""python -m trainer train | recipes | predict. Reads the command line, says the outcome; everything else is elsewhere.

Exit status: 0 done, 1 the run failed, 2 the caller can mend it, 130 interrupted.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schemas.errors import SchemaError
from trainer.errors import RecipeError, TrainerError, UsageError

INTERRUPTED = 130
DEFAULT_ARTIFACTS = Path("artifacts")
DEFAULT_DATA = Path("data")


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
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
    train.add_argument("recipe", metavar="RECIPE", help="see: python -m trainer recipes")
    train.add_argument("--preset", default="default", help="a variation that the recipe offers")
    train.add_argument("--network", metavar="NAME", help="instead of the recipe's; settings by --set network.KEY=VALUE")
    train.add_argument(
        "--weights", metavar="FROM", help="start from: pretrained (torchvision's), a file of safetensors, or a bundle"
    )
    train.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="where data sets lie (data)")
    train.add_argument("--skip-bad", action="store_true", help="leave out files that are no readable images")
    train.add_argument("--artifacts", type=Path, default=DEFAULT_ARTIFACTS, metavar="DIR", help="where bundles go")
    train.add_argument("--epochs", metavar="N")
    train.add_argument("--batch-size", metavar="N")
    train.add_argument("--seed", metavar="N")
    train.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting of the recipe")
    train.set_defaults(command=_train)

    recipes = commands.add_parser("recipes", help="list the recipes")
    recipes.set_defaults(command=_recipes)

    predict = commands.add_parser("predict", help="classify image files with a bundle")
    predict.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="artifacts/<model>/<version>, or artifacts/<model>"
    )
    predict.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="image files, and folders of them")
    predict.add_argument("--json", action="store_true", help="print JSON instead of a table")
    predict.set_defaults(command=_predict)
    return parser


def _train(options: argparse.Namespace) -> int:
    # Imported here: `recipes --help` need not wait for PyTorch.
    from trainer.data.sources import open_source  # noqa: PLC0415
    from trainer.device import choose_device, describe  # noqa: PLC0415
    from trainer.progress import reporter_for  # noqa: PLC0415
    from trainer.recipe import with_settings  # noqa: PLC0415
    from trainer.recipes import find_recipe  # noqa: PLC0415
    from trainer.train import train  # noqa: PLC0415
    from trainer.weights import network_of_bundle  # noqa: PLC0415

    started = time.perf_counter()
    recipe, settings = find_recipe(options.recipe, options.preset), _settings(options)
    network = network_of_bundle(settings.get("transfer.weights", recipe.transfer.weights))
    if network is not None:
        recipe = recipe.model_copy(update={"network": network})
    recipe = with_settings(recipe, settings)
    device = choose_device(options.device)
    print(f"Training {recipe.name} on {describe(device)}, seed {recipe.seed}.", file=sys.stderr)
    source = open_source(recipe.data, options.data, skip_bad=options.skip_bad)
    trained = train(recipe, source, device, options.artifacts, reporter_for(sys.stderr))
    test, data = trained.manifest.metrics.test, trained.manifest.provenance.data
    interval = test.accuracy_interval
    print(
        f"{trained.path}: test accuracy {test.accuracy:.2%} (95% {interval.lower:.2%} to {interval.upper:.2%}), "
        f"macro F1 {test.macro.f1:.4f}, on {test.n:,} images; "
        f"trained on {data.train:,}, chosen on {data.validation:,}; "
        f"{trained.manifest.provenance.duration_seconds:.1f} s training, {time.perf_counter() - started:.1f} s in all."
    )
    return 0


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    # First, so that settings of the network are those of this one.
    settings: dict[str, Any] = {} if options.network is None else {"network": options.network}
    for assignment in options.set:
        key, separator, value = assignment.partition("=")
        if not separator:
            raise RecipeError(f"--set takes KEY=VALUE, not '{assignment}'.")
        settings[key.strip()] = value.strip()
    for name in ("epochs", "batch_size", "seed"):
        if getattr(options, name) is not None:
            settings[name] = getattr(options, name)
    if options.weights is not None:
        settings["transfer.weights"] = options.weights
    return settings


def _recipes(_: argparse.Namespace) -> int:
    from trainer.recipes import RECIPES, claim, presets  # noqa: PLC0415

    print(f"{'recipe':<10} {'preset':<10} {'data':<8} {'network':<10} {'epochs':>6} {'batch':>6}")
    for name in RECIPES:
        for preset, recipe in presets(name).items():
            data, network = recipe.data.source, recipe.network.name
            print(f"{name:<10} {preset:<10} {data:<8} {network:<10} {recipe.epochs:>6} {recipe.batch_size:>6}")
    print()
    for name in RECIPES:
        print(f"{name}: {claim(name)}")
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
