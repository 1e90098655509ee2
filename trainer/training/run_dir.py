"""The folder of a run, runs/<name>-<number>/, by which a later command finds the run to resume."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import JsonValue, ValidationError

from schemas.base import Frozen
from schemas.bundle import MANIFEST_FILE, Bundle, open_bundle
from schemas.errors import SchemaError
from schemas.files import atomic_write
from trainer.errors import RunsError
from trainer.training.progress import Reporter

_RUN, _BUNDLE, _LOCK = "run.json", "bundle.json", ".lock"
_SHOWN_LETTERS = 80
Facts = dict[str, JsonValue]


@contextmanager
def run_folder(runs: Path, name: str, facts: Facts, reporter: Reporter, *, resume: bool) -> Iterator[Path]:
    """Locks the folder of a new run, or with resume of the newest run with the same facts.

    Raises RunsError if no folder can be made, or if another process is training the run to resume.
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)
        folder = _find(runs, name, facts, reporter) if resume else None
        if folder is None:
            folder = _new(runs, name)
            (folder / _RUN).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
        lock = FileLock(folder / _LOCK)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise RunsError(f"Another process is training {folder}. Wait for it, or stop it.") from error
    except OSError as error:
        raise RunsError(f"{runs} cannot be written ({error.strerror}). Choose another folder with --runs.") from error
    try:
        yield folder
    finally:
        lock.release()
        if not has_checkpoint(folder) and not any(folder.glob("*.safetensors")):
            shutil.rmtree(folder, ignore_errors=True)


def has_checkpoint(folder: Path) -> bool:
    return any(entry.is_dir() for entry in folder.iterdir())


def _find(runs: Path, name: str, facts: Facts, reporter: Reporter) -> Path | None:
    """Returns the newest run with these facts; otherwise reports how the newest run of the name differs."""
    reason = ""
    for _, folder in sorted(_numbered(runs, name).items(), reverse=True):
        found = _read(folder)
        if found == facts:
            return folder
        if not reason and found is None:
            reason = f": {folder / _RUN} is damaged. Restore that file, or remove {folder}"
        elif not reason:
            reason = f": {folder} differs, {_difference(found, facts)}"
    reporter.note(f"No matching run to resume in {runs}{reason}. Starting a new run.")
    return None


def _new(runs: Path, name: str) -> Path:
    number = max(_numbered(runs, name), default=0)
    while True:
        number += 1
        folder = runs / f"{name}-{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue  # another process was faster
        return folder


def _numbered(runs: Path, name: str) -> dict[int, Path]:
    entries = ((entry.name.removeprefix(f"{name}-"), entry) for entry in runs.glob(f"{name}-*"))
    return {int(number): entry for number, entry in entries if number.isascii() and number.isdigit()}


def _read(folder: Path) -> Facts | None:
    """Returns None for a missing or damaged file."""
    try:
        facts = json.loads((folder / _RUN).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def _difference(before: JsonValue, now: JsonValue, key: str = "") -> str | None:
    """Describes the first difference between the facts of two runs; None if they are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        inner = (
            _difference(before.get(name), now.get(name), f"{key}.{name}" if key else name)
            for name in sorted(before.keys() | now.keys())
        )
        return next((difference for difference in inner if difference is not None), None)
    return None if before == now else f"{key} was {_shorten(before)} and is now {_shorten(now)}"


def _shorten(value: JsonValue) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_LETTERS else f"{text[: _SHOWN_LETTERS - 3]}..."


class _PublishedBundle(Frozen):
    """The hash detects another bundle that was later written to the same folder."""

    bundle: str
    manifest_sha256: str


def note_bundle(run: Path, bundle: Path, reporter: Reporter) -> None:
    """Records that the run is finished. Call it after publishing: a run killed in between then loses no bundle."""
    try:
        published = _PublishedBundle(bundle=str(bundle.resolve()), manifest_sha256=_manifest_hash(bundle))
        atomic_write(run / _BUNDLE, published.model_dump_json(indent=2) + "\n")
    except OSError as error:
        reporter.note(
            f"{run} could not be marked as finished ({error.strerror}); --resume would write the bundle {bundle} again."
        )


def published_bundle(run: Path) -> Bundle | None:
    """Returns the bundle that the run ended with; None if the run is unfinished or the bundle is gone or damaged."""
    try:
        published = _PublishedBundle.model_validate_json((run / _BUNDLE).read_bytes())
        bundle = open_bundle(Path(published.bundle))
        bundle.read(bundle.manifest.fp32)
        same = _manifest_hash(bundle.path) == published.manifest_sha256
    except (OSError, ValidationError, SchemaError):
        return None
    return bundle if same else None


def _manifest_hash(bundle: Path) -> str:
    return hashlib.sha256((bundle / MANIFEST_FILE).read_bytes()).hexdigest()
