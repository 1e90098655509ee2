"""python -m trainer COMMAND. Reads the command line and says the outcome; each command is a file of cli/.

Exit status: 0 done, 1 the run failed, 2 the caller can mend it, 130 interrupted.
"""

import argparse
import os
import sys
from pathlib import Path
from types import ModuleType

from schemas.errors import SchemaError
from trainer.cli import compare, evaluate, lr_find, predict, recipes, show, train, tune
from trainer.errors import TrainerError, UsageError

INTERRUPTED = 130
# Each module has add_options(parser) and run(options).
COMMANDS: dict[str, tuple[ModuleType, str]] = {
    "train": (train, "train a recipe and write its bundle"),
    "tune": (tune, "search for better settings of a recipe, judged on validation"),
    "lr-find": (lr_find, "try a range of learning rates on a recipe"),
    "show": (show, "draw training images before and after augmentation"),
    "recipes": (recipes, "list the recipes, and every setting that they take"),
    "predict": (predict, "classify image files with a bundle"),
    "evaluate": (evaluate, "score a bundle on labelled data"),
    "compare": (compare, "say which of two bundles is better, and if by more than chance"),
}


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    try:
        status: int = options.command(options)
    except TrainerError as error:
        return _fail(str(error), error.exit_status)
    except SchemaError as error:
        return _fail(str(error), UsageError.exit_status)
    except KeyboardInterrupt:
        return _fail(_interrupted(options.name), INTERRUPTED)
    return status


def parse(arguments: list[str]) -> argparse.Namespace:
    installed = Path(sys.argv[0]).stem == "convoy-train"
    parser = argparse.ArgumentParser(
        prog="convoy-train" if installed else "python -m trainer",
        description="Trains image classifiers into ONNX bundles.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, what) in COMMANDS.items():
        command = commands.add_parser(name, help=what)
        module.add_options(command)
        command.set_defaults(command=module.run, name=name)
    return parser.parse_args(arguments)


def _interrupted(command: str) -> str:
    by = " (by torchrun, as it does where another process of the run has ended)" * ("TORCHELASTIC_RUN_ID" in os.environ)
    goes_on = {
        "train": "; no bundle was written. --resume goes on from the last checkpoint, if there is one yet.",
        "tune": "; the same command goes on with its study.",
    }
    return f"Interrupted{by}{goes_on.get(command, '.')}"


def _fail(sentence: str, status: int) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return status
