"""default.json in the artifacts folder names the model that answers requests without a model's name.

The trainer writes it for the first model of the user's own, and an administrator may change it. The service reads it.
"""

from pathlib import Path

from pydantic import ValidationError

from schemas.base import Frozen
from schemas.errors import DefaultModelError
from schemas.files import atomic_write, read_regular_file
from schemas.manifest import ModelManifest, ModelName

DEFAULT_FILE = "default.json"
QUICK_START = "digits"  # its model, and the source of its images, which ship with a library


class _Record(Frozen):
    model: ModelName


def read_default(artifacts: Path) -> str | None:
    """Returns the model that default.json names; None without the file. Raises DefaultModelError."""
    try:
        return _Record.model_validate_json(read_regular_file(artifacts / DEFAULT_FILE), strict=True).model
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DefaultModelError(f"{DEFAULT_FILE} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        raise DefaultModelError(f'{DEFAULT_FILE} must be {{"model": "NAME"}}.') from error


def write_default(artifacts: Path, name: str) -> None:
    """Raises OSError."""
    atomic_write(artifacts / DEFAULT_FILE, _Record(model=name).model_dump_json() + "\n")


def is_quick_start(manifest: ModelManifest) -> bool:
    """Whether the model gives way as the default to the first model of the user's own."""
    data = manifest.provenance.recipe.get("data")
    return manifest.name == QUICK_START and isinstance(data, dict) and data.get("source") == QUICK_START
