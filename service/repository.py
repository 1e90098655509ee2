"""What is there: the bundles below the artifacts folder. Nothing is opened here."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from schemas.manifest import NAME_PATTERN
from service.errors import StartError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A folder that stands where a bundle stands."""

    name: str
    version: int
    path: Path


def newest_versions(artifacts: Path) -> list[Found]:
    """The newest version of each model, by name.

    Folders whose name is none of a model (bundles being written start with a dot) and versions that are no plain
    integer are not bundles; a model's folder that cannot be read is passed over, and said in the log.
    Raises StartError where the artifacts folder itself cannot be read.
    """
    newest = [max(found, key=lambda bundle: bundle.version) for found in _scan(artifacts) if found]
    return sorted(newest, key=lambda bundle: bundle.name)


def _scan(artifacts: Path) -> list[list[Found]]:
    try:
        entries = list(artifacts.iterdir())
    except FileNotFoundError as error:
        raise StartError(
            f"The folder of bundles {artifacts} is not there; train a model (make train), or set CONVOY_ARTIFACTS."
        ) from error
    except OSError as error:
        raise StartError(f"The folder of bundles {artifacts} cannot be read: {error.strerror}.") from error
    return [_versions(entry) for entry in entries if re.fullmatch(NAME_PATTERN, entry.name)]


def _versions(model: Path) -> list[Found]:
    try:
        if not model.is_dir():
            return []
        return [Found(model.name, int(path.name), path) for path in model.iterdir() if _is_version(path)]
    except OSError as error:
        logger.error("the folder %s cannot be read: %s", model, error.strerror)  # noqa: TRY400 - it is said
        return []


def _is_version(path: Path) -> bool:
    # isdecimal alone takes other scripts' digits and leading zeros, which name no folder of ours.
    return path.name.isascii() and path.name.isdecimal() and not path.name.startswith("0") and path.is_dir()
