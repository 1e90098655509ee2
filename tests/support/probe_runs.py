"""Runs that start from a small network of timm's with random weights: enough to tell red from green from blue."""

from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file

from schemas.manifest import InputSpec
from tests.support import colour_images
from trainer.data.dataset import FakeSource, LabelledImages, SourceData
from trainer.network_config import BackboneConfig
from trainer.recipe import Recipe

SIDE = 32
NETWORK = BackboneConfig(name="test_resnet")


def weights(folder: Path) -> Path:
    torch.manual_seed(0)
    save_file(timm.create_model(NETWORK.name).state_dict(), folder / "weights.safetensors")
    return folder / "weights.safetensors"


def recipe(folder: Path, **transfer: object) -> Recipe:
    given = {"weights": str(weights(folder)), "probe": True, "fine_tune": "off"} | transfer
    return colour_images.recipe(network=NETWORK, transfer=given)


def source(count: int, classes: int = 3) -> FakeSource:
    """Colours of 32x32, of which count are red, green or blue in turn."""
    small = colour_images.colours(count)
    images = np.asarray(small.train.images).repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)
    labels = small.train.labels % classes
    return FakeSource(
        SourceData(
            "colours",
            small.labels[:classes],
            InputSpec(height=SIDE, width=SIDE, channels=3),
            LabelledImages(images, labels),
            None,
        )
    )
