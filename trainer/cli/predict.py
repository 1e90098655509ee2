"""python -m trainer predict: a bundle's answers for image files."""

import argparse
from pathlib import Path

from trainer.errors import DataError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="artifacts/<model>/<version>, or artifacts/<model>")
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="image files, and folders of them")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> int:
    """Raises DataError, after all answers, where an image could not be read."""
    from trainer.evaluation.predict import as_json, as_table, predict_files  # noqa: PLC0415

    answers = predict_files(options.bundle, options.paths)
    print(as_json(answers) if options.json else as_table(answers))
    bad = [answer for answer in answers if answer.error is not None]
    if bad:
        raise DataError(f"{len(bad)} of {len(answers)} images could not be read.")
    return 0
