"""python -m trainer lr-find: the learning-rate range test, with its plot."""

import argparse
import sys
from pathlib import Path

from trainer.cli.argument_types import new_file, positive
from trainer.cli.recipe_options import add_recipe_options, recipe_of
from trainer.errors import UsageError


def add_options(parser: argparse.ArgumentParser) -> None:
    add_recipe_options(parser)
    parser.add_argument("--steps", type=positive, default=100, metavar="N", help="rates to try (100)")
    parser.add_argument(
        "--out", type=new_file, default=Path("lr-find.png"), metavar="FILE", help="the plot (lr-find.png)"
    )


def run(options: argparse.Namespace) -> int:
    import torch  # noqa: PLC0415

    from trainer.data.detect import open_source  # noqa: PLC0415
    from trainer.models.build import build_network, load_splits  # noqa: PLC0415
    from trainer.models.pretrained import as_run, starting_weights  # noqa: PLC0415
    from trainer.training.device import choose_device, describe  # noqa: PLC0415
    from trainer.training.lr_find import LEAST_STEPS, find_learning_rate, write_plot  # noqa: PLC0415

    if options.steps < LEAST_STEPS:
        raise UsageError(f"--steps {options.steps} are too few to see a course in; give {LEAST_STEPS} or more.")
    recipe = recipe_of(options)
    start = starting_weights(recipe)
    recipe = as_run(recipe, start)
    device = choose_device(options.device)
    print(f"Trying {options.steps} learning rates of {recipe.name} on {describe(device)}.", file=sys.stderr)
    source = open_source(recipe.data, options.data, skip_bad=options.skip_bad, cache=options.cache)
    data = load_splits(recipe, source)
    torch.manual_seed(recipe.seed)
    test = find_learning_rate(build_network(recipe, data, start), data, recipe, device, options.steps)
    write_plot(options.out, test, recipe)
    print(
        f"{options.out}: of {len(test.rates)} rates from {test.rates[0]:.2g} to {test.rates[-1]:.2g} the suggestion is "
        f"--set optimizer.learning_rate={test.suggestion:.2g} (the recipe has {recipe.optimizer.learning_rate:g})."
    )
    return 0
