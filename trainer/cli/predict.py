"""python -m trainer predict: classifies image files with a bundle."""

import argparse
import json
from pathlib import Path

from trainer.cli.output import print_table
from trainer.errors import DataError
from trainer.evaluation.predict import Answer, predict_files


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="artifacts/<model>/<version>, or artifacts/<model>")
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="image files or folders of images")
    parser.add_argument(
        "--explain",
        type=Path,
        metavar="FOLDER",
        help="also draw where the evidence for the predicted class lies: FOLDER/<number>-<name>.png for each image",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> int:
    """Raises DataError, after printing all answers, if an image could not be read."""
    answers = predict_files(options.bundle, options.paths, options.explain)
    if options.json:
        print(json.dumps([_entry(answer) for answer in answers], indent=2))
    else:
        print_table(("file", "label", "probability", "next"), map(_row, answers), right=("probability",))
    bad = [answer for answer in answers if answer.error is not None]
    if bad:
        raise DataError(f"{len(bad)} of {len(answers)} images could not be read.")
    return 0


def _row(answer: Answer) -> tuple[str, str, str, str]:
    if answer.error is not None:
        return answer.file, "-", "-", answer.error
    first, *rest = answer.top
    others = ", ".join(f"{guess.label} {guess.probability:.2%}" for guess in rest)
    return answer.file, first.label, f"{first.probability:.2%}", others


def _entry(answer: Answer) -> dict[str, object]:
    if answer.error is not None:
        return {"file": answer.file, "error": answer.error}
    entry = {"file": answer.file, **dict(answer.top[0]), "top": [dict(guess) for guess in answer.top]}
    return entry if answer.overlay is None else {**entry, "overlay": answer.overlay}
