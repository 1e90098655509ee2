"""The options that name labelled data, alike for evaluate and compare."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.evaluation.evaluate import Place


def add_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        required=True,
        metavar="WHAT",
        help="a folder or file whose kind shows by its content, or digits; numbers for labels are class indices",
    )
    parser.add_argument(
        "--source",
        choices=["npz", "csv", "mnist", "cifar10", "folder"],
        help="the kind of data that is meant, where several lie there (what the bundle was trained on)",
    )
    parser.add_argument(
        "--split",
        choices=["all", "train", "validation", "test"],
        help="which images (all; of data that the bundle was trained on: test)",
    )
    parser.add_argument("--variant", choices=["fp32", "int8", "fp16"], default="fp32", help="of the bundle (fp32)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--skip-bad", action="store_true", help="leave out files that are no readable images")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where decoded images are kept (beside the data)")


def place_of(options: argparse.Namespace) -> "Place":
    from trainer.evaluation.evaluate import Place  # noqa: PLC0415
    from trainer.recipe import Source  # noqa: PLC0415

    source = Source(options.source) if options.source else None
    return Place(options.data, options.skip_bad, options.cache, source)


def in_words(part: str) -> str:
    return "all of it" if part == "all" else f"its {part} split"


def say(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        print(sentence, file=sys.stderr)
