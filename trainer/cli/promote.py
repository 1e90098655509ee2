"""python -m trainer promote: chooses the version of a model that serves; without a version, lists them."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from schemas.bundle import open_bundle
from schemas.default_model import DEFAULT_FILE, write_default
from schemas.errors import BundleError
from schemas.manifest import VariantName
from schemas.promotion import PROMOTION_FILE, PromotedBy, promote
from trainer.bundle.promotion import damage_of, record_of, serving_bundle
from trainer.cli.argument_types import positive
from trainer.cli.bundle_options import ARTIFACTS
from trainer.cli.output import print_table, say
from trainer.errors import ArtifactsError
from trainer.evaluation.scoring import open_model
from trainer.files import version_folders


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the model")
    parser.add_argument(
        "version", type=positive, nargs="?", metavar="VERSION", help="the version to serve; an older one is a rollback"
    )
    parser.add_argument(
        "--default", action="store_true", help="also make it the model that answers requests without a model's name"
    )
    parser.add_argument(
        "--artifacts", type=Path, default=ARTIFACTS, metavar="DIR", help="folder of bundles (default: artifacts)"
    )


def run(options: argparse.Namespace) -> int:
    folder, version = options.artifacts / options.name, options.version
    versions = version_folders(folder)
    if not versions:
        models = sorted(path.name for path in options.artifacts.glob("*") if version_folders(path))
        raise ArtifactsError(f"{options.artifacts} has no model '{options.name}'. Its models: {_listed(models)}.")
    if options.default:
        _make_default(options.artifacts, options.name)
    if version is None and options.default:
        return 0
    if version is None:
        if damage := damage_of(folder):
            say(f"warning: {damage} Promote a version again.")
        print_table(("version", "serves", "trained", "test accuracy", "images"), _rows(folder), right=("version",))
        return 0
    if version not in versions:
        raise ArtifactsError(f"{options.name} has no version {version}. Its versions: {_listed(sorted(versions))}.")
    _promote(folder, version)
    return 0


def _make_default(artifacts: Path, name: str) -> None:
    try:
        write_default(artifacts, name)
    except OSError as error:
        raise ArtifactsError(f"{artifacts / DEFAULT_FILE} could not be written ({error.strerror}).") from error
    print(f"{name} is the default model, unless CONVOY_DEFAULT_MODEL names another one.")


def _promote(folder: Path, version: int) -> None:
    """Verifies the version as the service will. Raises ArtifactsError if it cannot be recorded, and BundleError."""
    serving, record = serving_bundle(folder), record_of(folder)
    if record is not None and record.version == version:
        say(f"Version {version} of {folder.name} is promoted already.")
        return
    model = open_model(version_folders(folder)[version], VariantName.FP32)
    open_bundle(model.path).check_golden(model.manifest.fp32, model.onnx.probabilities)
    before = None if serving is None else serving.manifest.version
    try:
        promote(folder, version, by=PromotedBy.CLI, reason="It was promoted on the command line.", serving=before)
    except OSError as error:
        raise ArtifactsError(f"{folder / PROMOTION_FILE} could not be written ({error.strerror}).") from error
    print(f"Version {version} of {folder.name} is promoted. A running service loads it within seconds.")
    if serving is not None and serving.manifest.labels != model.manifest.labels:
        say(f"warning: its labels differ from those of version {before}: clients get other labels.")
    if before not in {None, version}:
        where = "" if folder.parent == ARTIFACTS else f" --artifacts {folder.parent}"
        say(f"To go back: python -m trainer promote {folder.name} {before}{where}")


def _rows(folder: Path) -> Iterator[tuple[str, ...]]:
    serving, record = serving_bundle(folder), record_of(folder)
    for number, path in sorted(version_folders(folder).items()):
        try:
            manifest = open_bundle(path).manifest
        except BundleError as error:
            yield str(number), "refused", "", str(error), ""
            continue
        state = "yes" if serving is not None and serving.path == path else ""
        state = state or ("before" if record is not None and record.previous == number else "")
        test = manifest.metrics.test
        yield str(number), state, manifest.provenance.created, f"{test.accuracy:.2%}", f"{test.n:,}"


def _listed(names: list[str] | list[int]) -> str:
    return ", ".join(map(str, names)) or "none"
