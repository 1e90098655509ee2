"""A recipe as a file: JSON, as a bundle's provenance holds it. `train` and `show` take one in the place of a name."""

from pathlib import Path

from pydantic import ValidationError

from trainer.errors import RecipeError, WriteError
from trainer.recipe import Recipe, first_fault

SUFFIX = ".json"


def is_recipe_file(what: str) -> bool:
    return what.endswith(SUFFIX)


def read_recipe(path: Path) -> Recipe:
    """Raises RecipeError for a file that is not there, is damaged, or is of a release with other settings."""
    try:
        return Recipe.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RecipeError(f"The recipe file {path} cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        where, _, fault = first_fault(error)
        raise RecipeError(
            f"The recipe file {path} is damaged or of another release: {where}: {fault}; mend it, or tune again."
        ) from error


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Beside its place, then renamed into it: a reader sees a whole file or none. Raises WriteError."""
    new = path.with_name(f".new-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise WriteError(f"The recipe file {path} could not be written ({error.strerror}).") from error
