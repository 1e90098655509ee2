"""python -m trainer tune: searches for better settings and writes them as a recipe file."""

import argparse
import importlib.util
import os
from pathlib import Path

from trainer.cli.argument_types import new_file, output_folder, positive
from trainer.cli.output import say
from trainer.cli.recipe_options import add_recipe_options, recipe_of, source_of
from trainer.errors import UsageError
from trainer.recipe import write_recipe

FOLDER = Path("runs/tune")
_SQLITE = b"SQLite format 3\0"


def add_options(parser: argparse.ArgumentParser) -> None:
    add_recipe_options(parser)
    parser.add_argument(
        "--trials",
        type=positive,
        required=True,
        metavar="N",
        help="total number of trials, including those already in the study",
    )
    parser.add_argument(
        "--study",
        type=_study,
        metavar="FILE|URL",
        help="study file (default: runs/tune/<model>.db), or the URL of a database that several machines share",
    )
    parser.add_argument(
        "--out", type=new_file, metavar="FILE", help="file for the best recipe (default: runs/tune/<model>.json)"
    )
    parser.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="KEY=LOW:HIGH[:log]|KEY=a,b,c",
        help="search space of a setting (default: learning rates, weight decay, dropout, label smoothing and the "
        "active augmentations)",
    )


def _study(text: str) -> Path | str:
    if "://" in text:
        return text
    path = Path(text)
    output_folder(str(path.parent))
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise argparse.ArgumentTypeError(f"'{text}' cannot be read ({error.strerror})") from error
    if content and not content.startswith(_SQLITE):
        raise argparse.ArgumentTypeError(f"'{text}' is not a study; give the name of another file")
    return path


def run(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("optuna") is None:
        raise UsageError("tune needs Optuna, which is not installed. Install it with: make .venv/.extras")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("tune runs in one process. Start it without torchrun.")
    recipe = recipe_of(options)
    source = source_of(recipe, options)
    # Imported here: PyTorch and Optuna take seconds, and a wrong option or path is reported without them.
    from trainer.search.search_space import default_space, format_distribution, parse_space  # noqa: PLC0415 - imports PyTorch

    space = parse_space(options.space, recipe) or default_space(recipe)
    from trainer.search.report import write_importance, write_trials  # noqa: PLC0415 - imports PyTorch
    from trainer.search.tune import describe_settings, search, value_of  # noqa: PLC0415 - imports PyTorch
    from trainer.training.device import choose_device, describe  # noqa: PLC0415 - imports PyTorch

    device = choose_device(options.device)
    out = options.out or FOLDER / f"{recipe.name}.json"
    study = options.study or FOLDER / f"{recipe.name}.db"
    varied = ", ".join(f"{key} {format_distribution(distribution)}" for key, distribution in space.items())
    say(f"Tuning {recipe.name} on {describe(device)}: {varied}.")
    found = search(recipe, source, device, space=space, trials=options.trials, study=study, say=say)
    best, own = found.best, found.own
    write_recipe(out, found.best_recipe)
    write_trials(out.with_name(f"{out.stem}-trials.csv"), found)
    missing = write_importance(out.with_name(f"{out.stem}-importance.png"), found)
    if missing:
        say(missing)
    default = f"{value_of(own):.2%}" if own else "failed"
    settings = "default settings" if best.user_attrs.get("own") else describe_settings(best.params)
    print(
        f"{out}: best validation accuracy {value_of(best):.2%} (default settings: {default}) after "
        f"{len(found.trials)} trials: {settings}. This accuracy is optimistic, because it chose the trial. "
        "Train the recipe to get the test accuracy."
    )
    return 0
