"""python -m trainer lr-find: the learning rate range test, with its plot."""

import argparse
from pathlib import Path

from trainer.cli.argument_types import new_file, positive
from trainer.cli.output import say
from trainer.cli.recipe_options import add_recipe_options, recipe_of, source_of
from trainer.data.split import split
from trainer.errors import UsageError

LEAST_STEPS = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    add_recipe_options(parser)
    parser.add_argument(
        "--steps", type=positive, default=100, metavar="N", help="number of learning rates (default: 100)"
    )
    parser.add_argument(
        "--out", type=new_file, default="lr-find.png", metavar="FILE", help="file for the plot (default: lr-find.png)"
    )


def run(options: argparse.Namespace) -> int:
    if options.steps < LEAST_STEPS:
        raise UsageError(f"--steps must be at least {LEAST_STEPS}, not {options.steps}.")
    recipe = recipe_of(options)
    source = source_of(recipe, options)
    # Imported here: PyTorch takes seconds, and a wrong option or path is reported without it.
    import torch  # noqa: PLC0415 - takes seconds

    from trainer.models.build import build_network  # noqa: PLC0415 - imports PyTorch
    from trainer.models.pretrained import starting_weights, with_weights_hash  # noqa: PLC0415 - imports PyTorch
    from trainer.training.device import choose_device, describe  # noqa: PLC0415 - imports PyTorch
    from trainer.training.lr_find import find_learning_rate, write_plot  # noqa: PLC0415 - imports PyTorch

    start = starting_weights(recipe)
    recipe = with_weights_hash(recipe, start)
    device = choose_device(options.device)
    say(f"Trying {options.steps} learning rates of {recipe.name} on {describe(device)}.")
    data = split(source.load(), recipe.data)
    torch.manual_seed(recipe.seed)
    test = find_learning_rate(build_network(recipe, data, start), data, recipe, device, options.steps, note=say)
    write_plot(Path(options.out), test, recipe)
    settings = " ".join(f"--set {key}={value:.2g}" for key, value in test.settings.items())
    print(
        f"{options.out}: tested {len(test.rates)} learning rates, {test.rates[0]:.2g} to {test.rates[-1]:.2g}. "
        f"Suggested: {settings} (the recipe has optimizer.learning_rate={recipe.optimizer.learning_rate:g})."
    )
    return 0
