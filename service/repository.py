"""What is there: the bundles below the artifacts folder. Nothing is opened here."""

from dataclasses import dataclass
from pathlib import Path

from service.errors import StartError


@dataclass(frozen=True)
class Found:
    """A folder that stands where a bundle stands."""

    name: str
    version: int
    path: Path


def newest_versions(artifacts: Path) -> list[Found]:
    """The newest version of each model, by name.

    Folders that start with a dot (bundles being written) and versions that are no plain integer are not bundles.
    Raises StartError where the folder cannot be read.
    """
    newest = [max(found, key=lambda bundle: bundle.version) for found in _scan(artifacts) if found]
    return sorted(newest, key=lambda bundle: bundle.name)


def _scan(artifacts: Path) -> list[list[Found]]:
    try:
        return [
            [Found(model.name, int(path.name), path) for path in model.iterdir() if _is_version(path)]
            for model in artifacts.iterdir()
            if model.is_dir() and not model.name.startswith(".")
        ]
    except FileNotFoundError as error:
        raise StartError(
            f"The folder of bundles {artifacts} is not there; train a model (make train), or set CONVOY_ARTIFACTS."
        ) from error
    except OSError as error:
        raise StartError(f"The folder of bundles {artifacts} cannot be read: {error.strerror}.") from error


def _is_version(path: Path) -> bool:
    # isdecimal alone takes other scripts' digits and leading zeros, which name no folder of ours.
    return path.name.isascii() and path.name.isdecimal() and not path.name.startswith("0") and path.is_dir()
