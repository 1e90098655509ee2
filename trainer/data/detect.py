"""The sources that a recipe can name."""

from collections.abc import Sequence
from pathlib import Path

from schemas.ignored_files import is_hidden
from trainer.data.dataset import DataSource
from trainer.errors import RecipeError
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


def open_source(
    config: DataConfig, folder: Path, *, skip_bad: bool = False, cache: Path | None = None, known: tuple[str, ...] = ()
) -> DataSource:
    """folder is where data sets lie, and where those that can be downloaded are put.

    skip_bad leaves out files that are no readable images instead of stopping. cache is the folder that decoded images
    are kept in; None is beside the data, else the user's cache folder. known are the labels of a model that is asked
    about the data, which need not have images of all of them. Raises RecipeError.
    """
    source, size = config.source, config.input
    # Imported where needed: each brings a library that takes a second to import.
    if source in {Source.MNIST, Source.CIFAR10}:
        from trainer.data.torchvision_datasets import CIFAR10_SET, MNIST_SET, PublishedSource  # noqa: PLC0415

        return PublishedSource(MNIST_SET if source is Source.MNIST else CIFAR10_SET, folder, size, cache)
    if source is Source.CSV:
        from trainer.data.csv import CsvSource  # noqa: PLC0415

        name = folder.resolve().name
        return CsvSource(folder, name, config.labels, config.shape, config.value_range, config.header, size, cache)
    if source is Source.NPZ:
        from trainer.data.npz import NpzSource  # noqa: PLC0415

        return NpzSource(folder, config.labels, config.value_range, size, cache)
    if source is Source.FOLDER:
        from trainer.data.folder import FolderSource  # noqa: PLC0415

        if size is None:
            raise RecipeError("Photos are resized to one size; set it, as in --set data.input=64,64,3.")
        return FolderSource(folder, size, skip_bad, cache, known)
    from trainer.data.digits import DigitsSource  # noqa: PLC0415

    return DigitsSource(size)


def recipe_for(place: Path, preset: str = "default") -> Recipe:
    """The recipe that is made for the first kind of data that lies there. Raises RecipeError."""
    found = sources_at(place)
    if not found:
        raise RecipeError(
            f"'{place}' is no recipe ({', '.join(RECIPES)}), nor a folder of class-named folders, of CSV files or of "
            "published ones, nor an .npz file."
        )
    return recipe_of(found[0], preset)


def recipe_of(source: Source, preset: str = "default") -> Recipe:
    """The recipe that is made for such data, without what it says of its own data set. Raises RecipeError."""
    recipe = find_recipe(_RECIPE_OF[source], preset)
    own = {"data.source": source, "data.labels": "", "data.input": "null"} if source in {Source.CSV, Source.NPZ} else {}
    return with_settings(recipe, own)


def sources_at(place: Path, labels: Sequence[str] = ()) -> list[Source]:
    """All that lies there, by its content: one .npz, the files of csv, published files; and class-named folders.

    Beside other data, which often has other folders for neighbours, only those of the labels' names are such.
    """
    found = [Source.NPZ] if place.suffix == ".npz" or (place.is_dir() and any(place.glob("*.npz"))) else []
    if not place.is_dir():
        return found
    for name, source in (
        ("input.csv", Source.CSV),
        ("MNIST/raw", Source.MNIST),
        ("cifar-10-batches-py", Source.CIFAR10),
    ):
        if (place / name).exists():
            found.append(source)
    folders = {entry.name for entry in place.iterdir() if entry.is_dir() and not is_hidden(entry.name)}
    if folders and (not found or folders & set(labels)):
        found.append(Source.FOLDER)
    return found
