"""bundle.json in a run's folder: the bundle that the run ended with, so that it is not written a second time."""

import hashlib
from pathlib import Path

from pydantic import ValidationError

from schemas.base import Frozen
from schemas.bundle import MANIFEST_FILE, open_bundle
from schemas.errors import SchemaError
from trainer.bundle.assemble import Trained
from trainer.files import sync_entry
from trainer.training.progress import Reporter

_FILE = "bundle.json"


class _Published(Frozen):
    """The hash is there because another bundle may have taken the place of one that was removed."""

    bundle: str
    manifest_sha256: str


def note_bundle(run: Path, bundle: Path, reporter: Reporter) -> None:
    """Only once the bundle can be seen: a run that is killed before that still owes it."""
    new = run / f"{_FILE}.new"
    try:
        said = _Published(bundle=str(bundle.resolve()), manifest_sha256=_hash_of_manifest(bundle))
        new.write_text(said.model_dump_json(indent=2) + "\n", encoding="utf-8")
        sync_entry(new)
        new.replace(run / _FILE)
    except OSError as error:
        reporter.note(f"{run} could not be marked as finished ({error.strerror}); --resume would write {bundle} again")


def published_bundle(run: Path) -> Trained | None:
    """The bundle that the run ended with; None where it has not come so far, or the bundle is gone or damaged."""
    try:
        said = _Published.model_validate_json((run / _FILE).read_bytes())
        bundle = open_bundle(Path(said.bundle))
        bundle.read(bundle.manifest.fp32)
        same = _hash_of_manifest(bundle.path) == said.manifest_sha256
    except (OSError, ValidationError, SchemaError):
        return None
    return Trained(bundle.path, bundle.manifest) if same else None


def _hash_of_manifest(bundle: Path) -> str:
    return hashlib.sha256((bundle / MANIFEST_FILE).read_bytes()).hexdigest()
