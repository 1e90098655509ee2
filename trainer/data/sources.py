"""The sources by name."""

from pathlib import Path

from trainer.data.source import DataSource
from trainer.recipe import Source


def open_source(source: Source, folder: Path) -> DataSource:
    """folder is where data sets lie, and where those that can be downloaded are put."""
    # Imported where needed: each brings a library that takes a second to import.
    if source in {Source.MNIST, Source.CIFAR10}:
        from trainer.data.published import CIFAR10_SET, MNIST_SET, PublishedSource  # noqa: PLC0415

        return PublishedSource(MNIST_SET if source is Source.MNIST else CIFAR10_SET, folder)
    from trainer.data.digits import DigitsSource  # noqa: PLC0415

    return DigitsSource()
