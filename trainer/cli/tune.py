"""python -m trainer tune: a search for better settings, which ends as a recipe file."""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from trainer.cli.argument_types import new_file, positive
from trainer.cli.recipe_options import add_recipe_options, recipe_of
from trainer.errors import UsageError

FOLDER = Path("runs/tune")


def add_options(parser: argparse.ArgumentParser) -> None:
    add_recipe_options(parser)
    parser.add_argument("--trials", type=positive, required=True, metavar="N", help="how many in all, those before too")
    parser.add_argument("--study", type=Path, metavar="FILE", help="what to go on with (runs/tune/<recipe>.db)")
    parser.add_argument("--out", type=new_file, metavar="FILE", help="the best recipe (runs/tune/<recipe>.json)")
    parser.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="KEY=LOW:HIGH[:log]|KEY=a,b,c",
        help="what to vary, instead of rates, dropout, label smoothing and the augmentations that are on",
    )


def run(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("optuna") is None:
        raise UsageError("tune needs Optuna, which is not installed; install it with: make .venv/.extras")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("tune runs in one process; start it without torchrun.")
    from trainer.data.detect import open_source  # noqa: PLC0415
    from trainer.recipe import write_recipe  # noqa: PLC0415
    from trainer.search.report import write_importance, write_trials  # noqa: PLC0415
    from trainer.search.search_space import default_space, parse_space  # noqa: PLC0415
    from trainer.search.tune import in_words, search, value_of  # noqa: PLC0415
    from trainer.training.device import choose_device, describe  # noqa: PLC0415

    recipe = recipe_of(options)
    space = parse_space(options.space, recipe) or default_space(recipe)
    device = choose_device(options.device)
    out = options.out or FOLDER / f"{recipe.name}.json"
    study = options.study or FOLDER / f"{recipe.name}.db"
    _say(f"Tuning {recipe.name} on {describe(device)}: {', '.join(f'{key} {tried}' for key, tried in space.items())}.")
    source = open_source(recipe.data, options.data, skip_bad=options.skip_bad, cache=options.cache)
    found = search(recipe, source, device, space=space, trials=options.trials, study=study, say=_say)
    best, own = found.best, found.own
    write_recipe(out, found.best_recipe)
    write_trials(out.with_name(f"{out.stem}-trials.csv"), found)
    missing = write_importance(out.with_name(f"{out.stem}-importance.png"), found)
    if missing:
        _say(missing)
    against = f"against {value_of(own):.2%} of the recipe's own" if own else "the recipe's own came to no end"
    what = "the recipe's own values" if best.user_attrs.get("own") else in_words(best.params)
    print(
        f"{out}: validation accuracy {value_of(best):.2%}, {against}, after {len(found.trials)} trials, with {what}. "
        f"It was chosen by that figure, which is so too good; train it for one on the test split."
    )
    return 0


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
