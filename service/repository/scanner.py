"""Lists the bundles below the artifacts folder. Opens only promoted.json and default.json, and writes nothing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from schemas.bundle import MANIFEST_FILE
from schemas.default_model import DEFAULT_FILE, read_default
from schemas.errors import DefaultModelError, PromotionError
from schemas.ignored_files import is_hidden
from schemas.manifest import NAME_PATTERN
from schemas.promotion import PROMOTION_FILE, Promotion, read_promotion
from service.errors import StartError
from service.repository.plan import VersionRef

_LISTING_ERRORS: dict[type[OSError], tuple[str, str]] = {
    FileNotFoundError: ("does not exist", "train a model (make train), or set CONVOY_ARTIFACTS"),
    NotADirectoryError: ("is not a folder", "set CONVOY_ARTIFACTS to the folder that contains <model>/<version>/"),
}
_BAD_VERSION = "name version folders 1, 2, 3 ... directly below their model: <artifacts>/<model>/<version>/"


@dataclass(frozen=True)
class Scan:
    """The content of the artifacts folder.

    models lists each model's versions in ascending order; promotions holds the records of promoted.json, and default
    the model of default.json. unreadable gives the reason why a model's folder cannot be listed; ignored, why a file or
    folder is not used.
    """

    models: dict[str, tuple[VersionRef, ...]] = field(default_factory=dict)
    promotions: dict[str, Promotion] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    ignored: dict[Path, str] = field(default_factory=dict)
    default: str | None = None


def scan(artifacts: Path) -> Scan:
    """Returns every version of every model. Hidden folders do not count: a bundle that is being written is one.

    Raises StartError if the artifacts folder itself cannot be listed.
    """
    entries = _list_artifacts(artifacts)
    seen = _with_default(artifacts)
    seen.ignored.update(_bundle_too_high(artifacts, entries))
    for folder in entries:
        if re.fullmatch(NAME_PATTERN, folder.name):
            _scan_model(folder, seen)
        elif folder.is_dir():
            seen.ignored[folder] = _bad_name(folder.name)
    if seen.default is not None and seen.default not in seen.models:
        seen.ignored[artifacts / DEFAULT_FILE] = f"it names {seen.default}, which is not in the folder; correct it"
    return seen


def _with_default(artifacts: Path) -> Scan:
    try:
        return Scan(default=read_default(artifacts))
    except DefaultModelError as error:
        return Scan(ignored={artifacts / DEFAULT_FILE: f"{error} Correct it, or delete it."})


def _scan_model(folder: Path, seen: Scan) -> None:
    try:
        children = _visible(folder)
    except (FileNotFoundError, NotADirectoryError):  # a file, or deleted since it was listed
        return
    except OSError as error:
        seen.unreadable[folder.name] = error.strerror or str(error)
        return
    stray = {path: _BAD_VERSION for path in children if not _is_version(path.name) and path.is_dir()}
    seen.ignored.update(_bundle_too_high(folder, children) or stray)
    versions = [_version_ref(path) for path in children if _is_version(path.name) and path.is_dir()]
    if versions:
        seen.models[folder.name] = tuple(sorted(versions, key=lambda ref: ref.version))
        _scan_promotion(folder, seen)


def _scan_promotion(folder: Path, seen: Scan) -> None:
    path = folder / PROMOTION_FILE
    try:
        stat = path.stat()
        promotion = _read_promotion(folder, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    except OSError:  # the model has no record
        return
    except PromotionError as error:
        seen.ignored[path] = str(error)
        return
    if promotion is None:
        return
    seen.promotions[folder.name] = promotion
    if promotion.version not in {ref.version for ref in seen.models[folder.name]}:
        seen.ignored[path] = f"it names version {promotion.version}, which is not in the folder; promote another one"


@lru_cache(maxsize=1024)
def _read_promotion(model: Path, *_: int) -> Promotion | None:
    """Reads each state of the file once, not at every scan."""
    return read_promotion(model)


def fingerprint(bundle: Path) -> frozenset[tuple[str, int, int]]:
    """Name, size and modification time of every file in the bundle: it changes while a copy is in progress."""
    try:
        paths = list(bundle.rglob("*"))
    except OSError:
        return frozenset()
    return frozenset((str(path.relative_to(bundle)), *numbers) for path in paths if (numbers := _size_and_time(path)))


def _list_artifacts(artifacts: Path) -> list[Path]:
    try:
        return _visible(artifacts)
    except OSError as error:
        unreadable = (f"cannot be read: {error.strerror}", "grant read access, or set CONVOY_ARTIFACTS")
        reason, advice = _LISTING_ERRORS.get(type(error), unreadable)
        raise StartError(f"The artifacts folder {artifacts.absolute()} {reason}; {advice}.") from error


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name))


def _bundle_too_high(folder: Path, entries: Sequence[Path]) -> dict[Path, str]:
    manifest = folder / MANIFEST_FILE
    return {manifest: "move the bundle to <artifacts>/<model>/<version>/"} if manifest in entries else {}


def _bad_name(name: str) -> str:
    lower = f"; rename it to {name.lower()}" if re.fullmatch(NAME_PATTERN, name.lower()) else ""
    return f"a model's name has lower-case letters, digits, '.', '_' and '-'{lower}"


def _is_version(name: str) -> bool:
    # isdecimal alone accepts leading zeros and the digits of other scripts.
    return name.isascii() and name.isdecimal() and not name.startswith("0")


def _version_ref(path: Path) -> VersionRef:
    numbers = _size_and_time(path / MANIFEST_FILE)
    stamp = "-".join(map(str, numbers)) if numbers else ""
    return VersionRef(name=path.parent.name, version=int(path.name), path=path, stamp=stamp)


def _size_and_time(path: Path) -> tuple[int, int] | None:
    """Size in bytes and modification time in nanoseconds; None if the file cannot be examined."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_size, stat.st_mtime_ns)
