"""The options that name labelled data, for evaluate, compare and import."""

import argparse

from trainer.cli.argument_types import folder
from trainer.evaluation.scoring import DataLocation
from trainer.recipe import Source

SOURCES = [source for source in Source if source is not Source.DIGITS]


def add_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="folder or file (its kind is detected), or `digits`; labels that are numbers are class indices",
    )
    parser.add_argument(
        "--source",
        choices=SOURCES,
        help="kind of data, if --data contains several (default: the kind that the bundle was trained on)",
    )
    parser.add_argument(
        "--split",
        choices=["all", "train", "validation", "test"],
        help="split to score (default: test if the bundle was trained on this data, else all)",
    )
    parser.add_argument(
        "--variant", choices=["fp32", "int8", "fp16"], default="fp32", help="variant to run (default: fp32)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_decoding_options(parser)


def add_decoding_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--skip-bad", action="store_true", help="leave out unreadable image files")
    parser.add_argument(
        "--cache", type=folder, metavar="DIR", help="cache folder (default: .convoy-cache beside the data)"
    )


def location_of(options: argparse.Namespace) -> DataLocation:
    source = Source(options.source) if options.source else None
    return DataLocation(options.data, options.skip_bad, options.cache, source)


def in_words(part: str) -> str:
    return "all images" if part == "all" else f"{part} split"
