"""The sources that a recipe can name."""

from pathlib import Path

from trainer.data.source import DataSource
from trainer.errors import RecipeError
from trainer.recipe import DataConfig, Source


def open_source(config: DataConfig, folder: Path, *, skip_bad: bool = False) -> DataSource:
    """folder is where data sets lie, and where those that can be downloaded are put.

    skip_bad leaves out files that are no readable images instead of stopping. Raises RecipeError.
    """
    source = config.source
    # Imported where needed: each brings a library that takes a second to import.
    if source in {Source.MNIST, Source.CIFAR10}:
        from trainer.data.published import CIFAR10_SET, MNIST_SET, PublishedSource  # noqa: PLC0415

        return PublishedSource(MNIST_SET if source is Source.MNIST else CIFAR10_SET, folder)
    if source is Source.CSV:
        from trainer.data.csv import CsvSource  # noqa: PLC0415

        return CsvSource(folder, folder.resolve().name, config.labels, config.shape, config.input)
    if source is Source.FOLDER:
        from trainer.data.folder import FolderSource  # noqa: PLC0415

        if config.input is None:
            raise RecipeError("A folder of photos needs a size; set data.input.")
        return FolderSource(folder, config.input, skip_bad)
    from trainer.data.digits import DigitsSource  # noqa: PLC0415

    return DigitsSource()
