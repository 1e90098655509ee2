"""The options that name labelled data, for evaluate and compare."""

import argparse
from pathlib import Path

from trainer.evaluation.scoring import DataLocation
from trainer.recipe import Source


def add_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="a folder or file, whose kind is detected, or digits; labels that are numbers are class indices",
    )
    parser.add_argument(
        "--source",
        choices=["npz", "csv", "mnist", "cifar10", "folder"],
        help="the kind of data, if --data holds several (what the bundle was trained on)",
    )
    parser.add_argument(
        "--split",
        choices=["all", "train", "validation", "test"],
        help="which images (all; if the bundle was trained on this data: test)",
    )
    parser.add_argument("--variant", choices=["fp32", "int8", "fp16"], default="fp32", help="of the bundle (fp32)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--skip-bad", action="store_true", help="leave out unreadable image files")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder for decoded images (beside the data)")


def location_of(options: argparse.Namespace) -> DataLocation:
    source = Source(options.source) if options.source else None
    return DataLocation(options.data, options.skip_bad, options.cache, source)


def in_words(part: str) -> str:
    return "all images" if part == "all" else f"{part} split"
