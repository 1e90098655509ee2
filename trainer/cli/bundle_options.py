"""The options and the outcome of the commands that write a bundle: train and import."""

import argparse
from pathlib import Path

from schemas.bundle import Bundle
from trainer.bundle.promotion import record_of
from trainer.cli.argument_types import output_folder

ARTIFACTS = Path("artifacts")


def add_bundle_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--artifacts",
        type=output_folder,
        default=str(ARTIFACTS),  # argparse checks a default only if it is text
        metavar="DIR",
        help="folder for bundles (default: artifacts)",
    )
    parser.add_argument(
        "--relabel", action="store_true", help="allow labels that differ from those of the version that serves"
    )


def describe_test(bundle: Bundle) -> str:
    """Returns the path of the bundle and its metrics on the test split."""
    test = bundle.manifest.metrics.test
    return (
        f"{bundle.path}: test accuracy {test.accuracy:.2%} (95% {test.accuracy_interval}), "
        f"macro F1 {test.macro.f1:.4f}, on {test.n:,} images"
    )


def how_to_serve(bundle: Bundle, artifacts: Path) -> str:
    elsewhere = artifacts != ARTIFACTS
    promoted = record_of(bundle.path.parent)
    if promoted is not None and promoted.version != bundle.manifest.version:
        where = f" --artifacts {artifacts}" if elsewhere else ""
        return f"To serve it anyway: python -m trainer promote {bundle.manifest.name} {bundle.path.name}{where}"
    return f"To serve it: {f'CONVOY_ARTIFACTS={artifacts} ' if elsewhere else ''}make serve"
