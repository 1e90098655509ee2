"""The sources by name."""

from pathlib import Path

from trainer.data.source import DataSource
from trainer.recipe import Source


def open_source(source: Source, folder: Path) -> DataSource:
    """folder is where data sets lie, and where those that can be downloaded are put."""
    # Imported where needed: each brings a library that takes a second to import.
    if source is Source.MNIST:
        from trainer.data.mnist import MnistSource  # noqa: PLC0415

        return MnistSource(folder)
    from trainer.data.digits import DigitsSource  # noqa: PLC0415

    return DigitsSource()
