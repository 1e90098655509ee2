"""Detects the kind of data at a path, opens it, and names the model after it."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from schemas.ignored_files import is_hidden
from trainer.data import csv
from trainer.data.csv import CsvSource
from trainer.data.dataset import DataSource
from trainer.data.digits import DigitsSource
from trainer.data.folder import FolderSource
from trainer.data.image_list import ImageListSource, lists_images
from trainer.data.npz import NpzSource
from trainer.data.photo_files import PhotoSource
from trainer.data.torchvision_datasets import CIFAR10_SET, MNIST_SET, PublishedSource
from trainer.errors import DataError, RecipeError
from trainer.recipe import DataConfig, Recipe, Source, with_settings
from trainer.recipes.registry import RECIPES, find_recipe

_RECIPE_OF = {
    Source.DIGITS: "digits",
    Source.FOLDER: "photos",
    Source.NPZ: "photos",
    Source.CSV: "cats-dogs",
    Source.MNIST: "mnist",
    Source.CIFAR10: "cifar10",
}
_OWN_DATA = {Source.FOLDER, Source.CSV, Source.NPZ}
_LONGEST_NAME = 64


def open_source(
    config: DataConfig,
    folder: Path,
    *,
    skip_bad: bool = False,
    cache: Path | None = None,
    known: tuple[str, ...] = (),
    exclude: frozenset[str] = frozenset(),
) -> DataSource:
    """Returns the data, checked but not read. Published data sets are looked for in the folder, and downloaded to it.

    skip_bad leaves out unreadable image files, and exclude photos by name. cache is the folder for decoded images; None
    is beside the data, else the user's cache folder. known are the labels of a model that is evaluated on the data,
    which may lack some of them. Raises RecipeError, and DataError for a path that does not hold such data.
    """
    source, size = config.source, config.input.spec
    if source is Source.DIGITS:
        return DigitsSource(size)
    opened: CsvSource | NpzSource | PhotoSource | PublishedSource
    if source in {Source.MNIST, Source.CIFAR10}:
        opened = PublishedSource(MNIST_SET if source is Source.MNIST else CIFAR10_SET, folder, size, cache)
    elif source is Source.CSV and not lists_images(folder, config):
        opened = CsvSource(folder, config, cache)
    elif source is Source.NPZ:
        opened = NpzSource(folder, config, cache)
    elif size is None:
        raise RecipeError("Photos need one size for all. Set it, as in --set data.input=64,64,3.")
    else:
        size = size.model_copy(update={"value_range": config.value_range})
        if source is Source.CSV:
            within = folder if folder.is_dir() else folder.parent
            opened = ImageListSource(within, size, skip_bad, cache, place=folder, config=config)
        else:
            opened = FolderSource(folder, size, skip_bad, cache, known)
    if exclude:
        if not isinstance(opened, PhotoSource):
            raise DataError(
                f"--exclude leaves out photo files, and {folder} has none. Remove rows from the file itself."
            )
        opened = replace(opened, exclude=exclude)
    opened.check()
    return opened


def check_data_option(source: Source, place: Path | None) -> None:
    """Raises RecipeError if the recipe does not use the data that --data names."""
    if place is None:
        return
    there = sources_at(place)
    if source in there or (source is not Source.DIGITS and not there):
        return
    if source is Source.FOLDER and _holds_photos(place) and not _holds_list(place):
        return  # the tables beside the class-named folders describe something else
    published = source in {Source.MNIST, Source.CIFAR10}
    if published and there == [Source.FOLDER] and not _holds_photos(place):
        return  # a folder of data sets, where this one will be downloaded to
    reads = "the digits inside scikit-learn" if source is Source.DIGITS else f"data of the kind {source}"
    if there:
        advice = f"To train on {place}, add --set data.source={there[0]}, or leave out --data."
    else:
        fault = "holds no known data" if place.exists() else "does not exist"
        advice = f"It {fault}. Leave out --data, or name other data and its kind with --set data.source."
    raise RecipeError(f"The recipe reads {reads}, not --data {place}. {advice}")


def recipe_for_path(place: Path, preset: str = "default") -> Recipe:
    """Returns the recipe for the first kind of data at the path. Raises RecipeError if there is none."""
    found = sources_at(place)
    if not found:
        raise RecipeError(
            f"'{place}' is neither a recipe ({', '.join(RECIPES)}) nor data: a folder of class-named folders, CSV "
            "files, an .npz file, or the files of a published data set."
        )
    return recipe_for_source(found[0], preset)


def recipe_for_source(source: Source, preset: str = "default") -> Recipe:
    """Returns the recipe for this kind of data, without its settings for its own data set. Raises RecipeError."""
    recipe = find_recipe(_RECIPE_OF[source], preset)
    if source not in {Source.CSV, Source.NPZ}:
        return recipe
    return with_settings(recipe, {"data.source": source, "data.labels": "", "data.input": "null", "data.test": 0.1})


def model_name(recipe: Recipe, place: Path, preset: str) -> str:
    """Returns the name of the model: of the user's own data its name and the preset, else the recipe's name."""
    if recipe.data.source not in _OWN_DATA:
        return recipe.name
    name = place.stem if place.is_file() else place.resolve().name
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9._-]+", "-", ascii_name).strip("-._")
    suffix = "" if preset == "default" else f"-{preset}"
    return f"{slug[: _LONGEST_NAME - len(suffix)]}{suffix}" if slug else recipe.name


def sources_at(place: Path, labels: Sequence[str] = ()) -> list[Source]:
    """Returns all kinds of data at the path, by its content.

    If there is other data, class-named folders count only if their names are among the labels.
    """
    if place.is_file():
        by_suffix = {".npz": Source.NPZ, **dict.fromkeys(csv.SUFFIXES, Source.CSV)}
        return [by_suffix[place.suffix.lower()]] if place.suffix.lower() in by_suffix else []
    if not place.is_dir():
        return []
    found = [Source.NPZ] if any(place.glob("*.npz")) else []
    if any(path.suffix.lower() in csv.SUFFIXES for path in place.iterdir()):
        found.append(Source.CSV)
    for name, source in (("MNIST/raw", Source.MNIST), ("cifar-10-batches-py", Source.CIFAR10)):
        if (place / name).exists():
            found.append(source)
    folders = {folder.name for folder in _folders(place)}
    if folders and (not found or folders & set(labels)):
        found.append(Source.FOLDER)
    return found


def _holds_photos(place: Path) -> bool:
    """Whether two or more folders, or folders of the training split, directly hold files, as class-named ones do."""
    folders = _folders(place)
    training = next((folder for folder in folders if csv.part_of_name(folder) == "train"), None)
    classes = folders if training is None else _folders(training)
    return sum(any(file.is_file() for file in folder.iterdir()) for folder in classes) > 1


def _holds_list(place: Path) -> bool:
    """Whether a CSV file lists the photos: then folders may be parts of the data set, in place of classes."""
    try:
        return lists_images(place, DataConfig(source=Source.CSV, validation=0.1))
    except DataError:
        return True


def _folders(place: Path) -> list[Path]:
    return (
        [entry for entry in place.iterdir() if entry.is_dir() and not is_hidden(entry.name)] if place.is_dir() else []
    )
