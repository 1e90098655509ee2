"""Lists the bundles below the artifacts folder. Opens no file and writes nothing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.bundle import MANIFEST_FILE
from schemas.manifest import NAME_PATTERN
from service.errors import StartError
from service.repository.plan import VersionRef

_LISTING_ERRORS: dict[type[OSError], tuple[str, str]] = {
    FileNotFoundError: ("does not exist", "train a model (make train), or set CONVOY_ARTIFACTS"),
    NotADirectoryError: ("is not a folder", "set CONVOY_ARTIFACTS to the folder that contains <model>/<version>/"),
}


@dataclass(frozen=True)
class Scan:
    """models has each model's versions in rising order; unreadable says why a model's folder cannot be listed.

    A model without any version is in neither.
    """

    models: Mapping[str, tuple[VersionRef, ...]]
    unreadable: Mapping[str, str]


def scan(artifacts: Path) -> Scan:
    """Returns every version of every model.

    Ignores folders that are not named like a model or a version (a bundle that is being written starts with a dot).
    Raises StartError if the artifacts folder itself cannot be listed.
    """
    models: dict[str, tuple[VersionRef, ...]] = {}
    unreadable: dict[str, str] = {}
    for folder in _model_folders(artifacts):
        try:
            versions = [_version_ref(folder.name, path) for path in folder.iterdir() if _is_version(path)]
        except (FileNotFoundError, NotADirectoryError):  # a file, or deleted since it was listed
            continue
        except OSError as error:
            unreadable[folder.name] = error.strerror or str(error)
            continue
        if versions:
            models[folder.name] = tuple(sorted(versions, key=lambda ref: ref.version))
    return Scan(models, unreadable)


def fingerprint(bundle: Path) -> frozenset[tuple[str, int, int]]:
    """Name, size and modification time of every file in the bundle: it changes while a copy is in progress."""
    try:
        paths = list(bundle.rglob("*"))
    except OSError:
        return frozenset()
    return frozenset((str(path.relative_to(bundle)), *numbers) for path in paths if (numbers := _size_and_time(path)))


def _model_folders(artifacts: Path) -> list[Path]:
    try:
        return sorted(path for path in artifacts.iterdir() if re.fullmatch(NAME_PATTERN, path.name))
    except OSError as error:
        unreadable = (f"cannot be read: {error.strerror}", "grant read access, or set CONVOY_ARTIFACTS")
        reason, advice = _LISTING_ERRORS.get(type(error), unreadable)
        raise StartError(f"The artifacts folder {artifacts.absolute()} {reason}; {advice}.") from error


def _is_version(path: Path) -> bool:
    # isdecimal alone accepts leading zeros and the digits of other scripts.
    return path.name.isascii() and path.name.isdecimal() and not path.name.startswith("0") and path.is_dir()


def _version_ref(name: str, path: Path) -> VersionRef:
    numbers = _size_and_time(path / MANIFEST_FILE)
    return VersionRef(
        name=name, version=int(path.name), path=path, stamp="-".join(map(str, numbers)) if numbers else ""
    )


def _size_and_time(path: Path) -> tuple[int, int] | None:
    """Size in bytes and modification time in nanoseconds; None if the file cannot be examined."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_size, stat.st_mtime_ns)
