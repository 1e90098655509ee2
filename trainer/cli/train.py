"""python -m trainer train: a recipe's run, from data to bundle."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.cli.argument_types import seconds
from trainer.cli.recipe_options import add_recipe_options, recipe_of

if TYPE_CHECKING:
    from trainer.recipe import Recipe

ARTIFACTS, RUNS = Path("artifacts"), Path("runs")


def add_options(parser: argparse.ArgumentParser) -> None:
    add_recipe_options(parser)
    parser.add_argument(
        "--target-accuracy", metavar="A", help="find the reject threshold with which answers are so often right"
    )
    parser.add_argument("--artifacts", type=Path, default=ARTIFACTS, metavar="DIR", help="where bundles go (artifacts)")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="where checkpoints go (runs)")
    parser.add_argument("--resume", action="store_true", help="go on with the last run of the same settings and data")
    parser.add_argument(
        "--checkpoint-seconds", type=seconds, default=30.0, metavar="S", help="between checkpoints (30); 0: each step"
    )
    parser.add_argument("--tensorboard", action="store_true", help="write event files as well, beside the checkpoints")


def run(options: argparse.Namespace) -> int:
    from trainer.data.detect import open_source  # noqa: PLC0415
    from trainer.run import Runs, train_in  # noqa: PLC0415
    from trainer.training.device import choose_device, describe  # noqa: PLC0415
    from trainer.training.distributed import join  # noqa: PLC0415
    from trainer.training.progress import SilentReporter, reporter_for  # noqa: PLC0415

    started = time.perf_counter()
    recipe = recipe_of(options)
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
