"""What is there: the bundles below the artifacts folder. Nothing is opened here, and nothing is written."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.bundle import MANIFEST_FILE
from schemas.manifest import NAME_PATTERN
from service.errors import StartError


@dataclass(frozen=True)
class Found:
    """A folder that stands where a bundle stands. Another stamp is another bundle under the same number."""

    name: str
    version: int
    path: Path
    stamp: str = ""


@dataclass(frozen=True)
class Scan:
    """models has the versions of each model in rising order; unreadable says of a model why it cannot be looked into.

    A model is in one of the two, and in none where no version of it is there.
    """

    models: Mapping[str, tuple[Found, ...]]
    unreadable: Mapping[str, str]


def scan(artifacts: Path) -> Scan:
    """Every version of every model.

    Folders whose name is none of a model (bundles being written start with a dot) and versions that are no plain
    integer are not bundles. Raises StartError where the artifacts folder itself cannot be read.
    """
    models: dict[str, tuple[Found, ...]] = {}
    unreadable: dict[str, str] = {}
    for folder in _model_folders(artifacts):
        try:
            versions = [_found(folder.name, path) for path in folder.iterdir() if _is_version(path)]
        except (FileNotFoundError, NotADirectoryError):  # a file, or gone since it was listed
            continue
        except OSError as error:
            unreadable[folder.name] = error.strerror or str(error)
            continue
        if versions:
            models[folder.name] = tuple(sorted(versions, key=lambda found: found.version))
    return Scan(models, unreadable)


def fingerprint(bundle: Path) -> frozenset[tuple[str, int, int]]:
    """Name, size and time of change of all that lies in the bundle: it changes while a copy is under way."""
    try:
        paths = list(bundle.rglob("*"))
    except OSError:
        return frozenset()
    return frozenset((str(path.relative_to(bundle)), *numbers) for path in paths if (numbers := _numbers(path)))


def _model_folders(artifacts: Path) -> list[Path]:
    try:
        return sorted(path for path in artifacts.iterdir() if re.fullmatch(NAME_PATTERN, path.name))
    except FileNotFoundError as error:
        raise StartError(
            f"The folder of bundles {artifacts.absolute()} is not there; "
            "train a model (make train), or set CONVOY_ARTIFACTS."
        ) from error
    except NotADirectoryError as error:
        raise StartError(
            f"The folder of bundles {artifacts.absolute()} is a file, or in one; "
            "set CONVOY_ARTIFACTS to the folder that holds <model>/<version>/."
        ) from error
    except OSError as error:
        raise StartError(
            f"The folder of bundles {artifacts.absolute()} cannot be read: {error.strerror}; "
            "let the service's user read it, or set CONVOY_ARTIFACTS to another."
        ) from error


def _is_version(path: Path) -> bool:
    # isdecimal alone takes other scripts' digits and leading zeros, which name no folder of ours.
    return path.name.isascii() and path.name.isdecimal() and not path.name.startswith("0") and path.is_dir()


def _found(name: str, path: Path) -> Found:
    numbers = _numbers(path / MANIFEST_FILE)
    return Found(name, int(path.name), path, "-".join(map(str, numbers)) if numbers else "")


def _numbers(path: Path) -> tuple[int, int] | None:
    """Size in bytes and time of change in nanoseconds; None for what cannot be seen."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return (seen.st_size, seen.st_mtime_ns)
