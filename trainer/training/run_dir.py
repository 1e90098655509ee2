"""runs/<name>-<number>/: a run's own folder, which it is found by again."""

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
from trainer.errors import RunsError
from trainer.files import sync_entry
from trainer.training.progress import Reporter

_RUN, _LOCK = "run.json", ".lock"
_LONGEST = 80  # letters of a value that are shown
Facts = dict[str, JsonValue]
_FILE = "bundle.json"


@contextmanager
def run_folder(runs: Path, name: str, facts: Facts, reporter: Reporter, *, resume: bool) -> Iterator[Path]:
    """The folder of a new run, or with resume of the newest run of the same facts; it is this process's for the block.

    Raises RunsError where no folder can be made, or where the run to go on with is still going on.
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)
        folder = _found(runs, name, facts, reporter) if resume else None
        if folder is None:
            folder = _new(runs, name)
            (folder / _RUN).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
        lock = FileLock(folder / _LOCK)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise RunsError(f"{folder} is still being trained by another process; wait for it or stop it.") from error
    except OSError as error:
        raise RunsError(f"{runs} cannot be written ({error.strerror}); choose another --runs.") from error
    try:
        yield folder
    finally:
        lock.release()
        if not any(entry.is_dir() for entry in folder.iterdir()):  # nothing to go on from
            shutil.rmtree(folder, ignore_errors=True)


def _found(runs: Path, name: str, facts: Facts, reporter: Reporter) -> Path | None:
    """The newest run of these facts; where there is none, a sentence on how the newest of the name differs."""
    folders = sorted(_numbered(runs, name).items(), reverse=True)
    others = []
    for _, folder in folders:
        before = _read(folder)
        if before == facts:
            return folder
        others.append(
            f"{folder} is another run: {_difference(before, facts)}"
            if before is not None
            else f"{folder / _RUN} is damaged, so that nobody can tell what run it is: put that file back, or remove "
            f"{folder}"
        )
    why = f" ({others[0]})" if others else ""
    reporter.note(
        f"no run of this recipe, data and device below {runs} to go on with{why}; starting from the beginning"
    )
    return None


def _new(runs: Path, name: str) -> Path:
    number = max(_numbered(runs, name), default=0)
    while True:
        number += 1
        folder = runs / f"{name}-{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue  # another run was quicker
        return folder


def _numbered(runs: Path, name: str) -> dict[int, Path]:
    entries = ((entry.name.removeprefix(f"{name}-"), entry) for entry in runs.glob(f"{name}-*"))
    return {int(number): entry for number, entry in entries if number.isascii() and number.isdigit()}


def _read(folder: Path) -> Facts | None:
    """None where it is missing or damaged."""
    try:
        facts = json.loads((folder / _RUN).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def _difference(before: JsonValue, now: JsonValue, where: str = "") -> str | None:
    """The first place where two runs' facts differ, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            found = _difference(before.get(key), now.get(key), f"{where}.{key}" if where else key)
            if found is not None:
                return found
        return None
    return None if before == now else f"{where} was {_shown(before)} and is {_shown(now)}"


def _shown(value: JsonValue) -> str:
    said = json.dumps(value)
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 3]}..."


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


def published_bundle(run: Path) -> Bundle | None:
    """The bundle that the run ended with; None where it has not come so far, or the bundle is gone or damaged."""
    try:
        said = _Published.model_validate_json((run / _FILE).read_bytes())
        bundle = open_bundle(Path(said.bundle))
        bundle.read(bundle.manifest.fp32)
        same = _hash_of_manifest(bundle.path) == said.manifest_sha256
    except (OSError, ValidationError, SchemaError):
        return None
    return bundle if same else None


def _hash_of_manifest(bundle: Path) -> str:
    return hashlib.sha256((bundle / MANIFEST_FILE).read_bytes()).hexdigest()
