"""python -m trainer train: one run of a recipe, from data to bundle."""

import argparse
import sys
import time
from pathlib import Path

from trainer.bundle.promotion import Promote
from trainer.cli.argument_types import output_folder, seconds
from trainer.cli.bundle_options import add_bundle_options, describe_test, how_to_serve
from trainer.cli.output import say
from trainer.cli.recipe_options import add_recipe_options, recipe_of, source_of
from trainer.recipe import Recipe, Views
from trainer.training.trackers import TrackerName

RUNS = Path("runs")
TRACKERS = {
    TrackerName.TENSORBOARD: "write TensorBoard's event files, beside the checkpoints",
    TrackerName.MLFLOW: "log to MLflow (at MLFLOW_TRACKING_URI)",
    TrackerName.WANDB: "log to Weights & Biases (WANDB_MODE=offline: to ./wandb)",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    add_recipe_options(parser)
    parser.add_argument(
        "--target-accuracy",
        metavar="A",
        help="find the confidence threshold above which predictions reach this accuracy",
    )
    add_bundle_options(parser)
    parser.add_argument(
        "--runs", type=output_folder, default=str(RUNS), metavar="DIR", help="folder for checkpoints (default: runs)"
    )
    parser.add_argument("--resume", action="store_true", help="continue the last run of the same settings and data")
    parser.add_argument(
        "--promote",
        choices=list(Promote),
        default=Promote.IF_NOT_WORSE,
        help="whether the new version serves; if-not-worse (default) compares it with the one that serves",
    )
    parser.add_argument(
        "--checkpoint-seconds",
        type=seconds,
        default=30.0,
        metavar="S",
        help="seconds between checkpoints (default: 30); 0: every step",
    )
    for name, what in TRACKERS.items():
        parser.add_argument(
            f"--{name}", dest="trackers", action="append_const", const=name, default=[], help=f"also {what}"
        )


def run(options: argparse.Namespace) -> int:
    started = time.perf_counter()
    recipe = recipe_of(options)
    source = source_of(recipe, options)
    # Imported here: PyTorch takes seconds, and a wrong option or path is reported without it.
    from trainer.run import CheckpointOptions, train  # noqa: PLC0415
    from trainer.training.device import choose_device, describe  # noqa: PLC0415
    from trainer.training.distributed import join  # noqa: PLC0415
    from trainer.training.progress import Reporter, reporter_for  # noqa: PLC0415

    device = choose_device(options.device)
    with join(device) as world:
        if world.is_main:
            several = f", in {world.size} processes" if world.size > 1 else ""
            say(f"Training {recipe.name} on {describe(device)}, seed {recipe.seed}{several}.")
        reporter = reporter_for(sys.stderr) if world.is_main else Reporter()
        runs = CheckpointOptions(options.runs, options.resume, options.trackers, options.checkpoint_seconds)
        bundle = train(
            recipe,
            source,
            device,
            options.artifacts,
            reporter,
            runs=runs,
            world=world,
            relabel=options.relabel,
            promote=Promote(options.promote),
        )
    if bundle is None:
        return 0
    data = bundle.manifest.provenance.data
    print(
        f"{describe_test(bundle)}{_views(recipe)}; "
        f"{data.train:,} images for training, {data.validation:,} for validation; "
        f"{bundle.manifest.provenance.duration_seconds:.1f} s training, {time.perf_counter() - started:.1f} s in all."
    )
    say(f"To classify files: python -m trainer predict {bundle.path} FILE", how_to_serve(bundle, options.artifacts))
    return 0


def _views(recipe: Recipe) -> str:
    return "" if recipe.test_views is Views.ONE else f", averaged over test-time views ({recipe.test_views})"
