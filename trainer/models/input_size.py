"""Chooses the size of the images that a backbone gets, from the data and from what its weights were trained on."""

import statistics
from pathlib import Path

from PIL import Image

from trainer.data.csv import CsvSource
from trainer.data.detect import open_source
from trainer.data.image_list import lists_images
from trainer.data.npz import NpzSource
from trainer.errors import RecipeError
from trainer.files import find_files
from trainer.models.backbones import own_input, pretrained_config
from trainer.network_config import BackboneConfig
from trainer.recipe import DataConfig, Recipe, Source

SMALLEST = 128
# Enlarged images give better features: ImageNet's objects are larger than those of a small image.
ENLARGEMENT = 2
_STEP = 32  # what a backbone halves five times
_COUNTED_PHOTOS = 300


def with_size(recipe: Recipe, place: Path) -> tuple[DataConfig, list[str]]:
    """Returns the recipe's data settings with the complete input, and a sentence if its size follows the data.

    Raises RecipeError for an unknown network, and DataError for data that cannot be read.
    """
    network, config = recipe.network, recipe.data
    if not isinstance(network, BackboneConfig):
        raise RecipeError(f"The network {network.name} needs the size of its images. Set data.input.")
    own = own_input(network)
    way = {"resize": own.resize, "interpolation": own.interpolation}
    given = config.input.model_dump(exclude_none=True)
    if config.input.spec is not None:
        return config.model_copy(update={"input": config.input.model_validate(way | given)}), []
    height, width, channels = _typical_shape(config, place) or own.shape
    shorter = min(height, width)
    side = min(max(-(-ENLARGEMENT * shorter // _STEP) * _STEP, SMALLEST), own.height)
    if pretrained_config(network).fixed_input_size:
        side = own.height
    size = {"height": side, "width": side, "channels": channels}
    reason = (
        f"input size {side}x{side}, chosen from the median image ({shorter} pixels on its shorter side) and the native "
        f"{own.height}x{own.width} of {network.name} (--set data.input=height,width,channels overrides it)"
    )
    return config.model_copy(update={"input": config.input.model_validate(way | size | given)}), [reason]


def _typical_shape(config: DataConfig, place: Path) -> tuple[int, int, int] | None:
    """Returns height, width and channels of the median image; None if there is none."""
    if config.source is Source.FOLDER or (config.source is Source.CSV and lists_images(place, config)):
        return _median_photo(place if place.is_dir() else place.parent)
    source = open_source(config, place)
    if isinstance(source, CsvSource | NpzSource):
        return source.shape()
    raise RecipeError(f"The images of {config.source} need a size for this network, as in --set data.input=128,128,3.")


def _median_photo(folder: Path) -> tuple[int, int, int] | None:
    files, _ = find_files(folder)
    sizes = []
    for file in files[:: max(1, len(files) // _COUNTED_PHOTOS)]:
        try:
            with Image.open(file) as image:
                sizes.append(image.size)
        except Exception:  # noqa: S112 - decoders raise anything; unreadable files are reported when they are decoded
            continue
    if not sizes:
        return None
    widths, heights = zip(*sizes, strict=True)
    return int(statistics.median(heights)), int(statistics.median(widths)), 3
