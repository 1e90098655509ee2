"""python -m trainer COMMAND. Parses the command line and reports the outcome; each command is a file of cli/.

Exit status: 0 done, 1 the run failed, 2 the caller can correct it, 130 interrupted, 141 the reader of stdout has gone.
"""

import argparse
import errno
import io
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from schemas.errors import SchemaError
from trainer.cli import (
    clean,
    compare,
    evaluate,
    import_model,
    lr_find,
    predict,
    promote,
    recipes,
    score,
    show,
    train,
    tune,
)
from trainer.cli.output import say
from trainer.errors import TrainerError, UsageError

INTERRUPTED = 130
READER_GONE = 141  # 128 + SIGPIPE, as a shell reports it
# Each module has add_options(parser) and run(options).
COMMANDS: dict[str, tuple[ModuleType, str]] = {
    "train": (train, "train a recipe and write its bundle"),
    "tune": (tune, "search for better settings of a recipe by validation accuracy"),
    "lr-find": (lr_find, "run a learning rate range test on a recipe"),
    "show": (show, "draw training images before and after augmentation"),
    "recipes": (recipes, "list the recipes and all their settings"),
    "predict": (predict, "classify image files with a bundle"),
    "score": (score, "score any number of images with a bundle into Parquet files, on one machine or a Ray cluster"),
    "evaluate": (evaluate, "measure a bundle on labelled data"),
    "promote": (promote, "choose the version of a model that serves, or list its versions"),
    "compare": (compare, "compare two bundles on the same labelled data"),
    "clean": (clean, "find doubtful labels, copies and unreadable files"),
    "import": (import_model, "make a bundle of an ONNX classifier from elsewhere"),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Prints one sentence, without the usage, which takes a screen."""
        self.exit(UsageError.exit_status, f"error: {message}. See {self.prog} --help.\n")


def main(arguments: list[str]) -> int:
    if sys.stdout is None:  # closed by the caller
        sys.stdout = io.StringIO()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names and labels may not fit the encoding of a pipe
    options = parse(arguments)
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except TrainerError as error:
        notes = getattr(error, "__notes__", [])
        return _fail(" ".join([str(error), *notes]), error.exit_status)
    except SchemaError as error:
        return _fail(str(error), UsageError.exit_status)
    except KeyboardInterrupt:
        return _fail(_interrupted(options.command_name), INTERRUPTED)
    except BrokenPipeError:
        _discard_output()
        return READER_GONE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _discard_output()
        return _fail(
            f"{error.filename or 'The output'} cannot be written ({error.strerror}).", TrainerError.exit_status
        )
    return status


def _discard_output() -> None:
    """Call this if stdout cannot be written: the interpreter flushes it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse(arguments: list[str]) -> argparse.Namespace:
    installed = Path(sys.argv[0]).stem == "convoy-train"
    parser = _Parser(
        prog="convoy-train" if installed else "python -m trainer",
        description="Trains image classifiers and writes them as ONNX bundles.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        module.add_options(command)
        command.set_defaults(command=module.run, command_name=name)
    return parser.parse_args(arguments)


def _interrupted(command: str) -> str:
    by = " (by torchrun, because another process of the run has ended)" * ("TORCHELASTIC_RUN_ID" in os.environ)
    advice = {
        "train": "; no bundle was written. To continue from the last checkpoint, if there is one, add --resume.",
        "score": "; to score the other parts, run the same command again.",
        "tune": "; to continue the study, run the same command again.",
    }
    return f"Interrupted{by}{advice.get(command, '.')}"


def _fail(sentence: str, status: int) -> int:
    say(f"error: {sentence}")
    return status
