"""Builds a network from its settings, and the one that suits a data set. Each other file of this room is a network."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from trainer.data.dataset import LabelledImages
from trainer.data.split import Splits
from trainer.errors import RecipeError
from trainer.models import backbones, fast, inception, plain
from trainer.models.backbones import Backbone
from trainer.models.fast import FastNetwork
from trainer.models.layers import Normalise, OneNeuron, Shape, as_input
from trainer.models.pretrained import StartingWeights, load_body, load_head
from trainer.network_config import AnyNetwork, FastConfig, InceptionConfig, PlainConfig
from trainer.recipe import Recipe

# Enough to estimate the covariance of small patches.
PREPARING_IMAGES = 1000
# Fewer give batch norm worse statistics than those of the starting weights, to which a linear probe is fitted, too.
IMAGES_FOR_STATISTICS = 1000
# Pixels for mean and deviation. More would change the fourth digit, and delay the start of the run.
STATISTICS_BYTES = 2**28


def build_network(recipe: Recipe, data: Splits, start: StartingWeights | None = None) -> nn.Module:
    """Returns the recipe's network with its normalisation: that of its starting weights, else of the training images.

    Raises RecipeError, and DataError if the weights do not fit the network.
    """
    spec = data.input
    if recipe.sigmoid and len(data.labels) != 2:
        raise RecipeError(
            f"sigmoid=true is for two classes, but {data.name} has {len(data.labels)}. Set sigmoid=false."
        )
    outputs = 1 if recipe.sigmoid else len(data.labels)
    shape = Shape(height=spec.height, width=spec.width, channels=spec.channels, classes=outputs)
    normalise, network = _normalise(data.train), build(recipe.network, shape)
    if start is not None:
        load_body(network, start)
        normalise = start.normalise or normalise
        if recipe.transfer.keep_head:
            load_head(network, start, data.labels)
        if isinstance(network, Backbone):
            network.frozen_norms = recipe.transfer.probe or len(data.train) < IMAGES_FOR_STATISTICS
            network.freeze(recipe.transfer.frozen)
    elif isinstance(network, FastNetwork):
        images = torch.from_numpy(data.train.images[:PREPARING_IMAGES])
        network.prepare(normalise(as_input(images)))
    elif isinstance(network, Backbone):
        normalise = normalise.expanded(Backbone.CHANNELS)
    return nn.Sequential(normalise, network, *([OneNeuron()] if recipe.sigmoid else []))


def build(config: AnyNetwork, shape: Shape) -> nn.Module:
    """Returns the network with random weights. Raises RecipeError if the images are too small for it."""
    if isinstance(config, PlainConfig):
        return plain.build(config, shape)
    if isinstance(config, InceptionConfig):
        return inception.build(config, shape)
    if isinstance(config, FastConfig):
        return fast.build(config, shape)
    return backbones.build(config, shape)


def _normalise(train: LabelledImages) -> Normalise:
    """Returns the normalisation by mean and deviation per channel of the training split, or of a sample of it."""
    step = -(-train.images.nbytes // STATISTICS_BYTES)
    images = train.images.take(np.arange(0, len(train), step))
    _, _, width, channels = images.shape
    counts = np.zeros((channels, 256), np.int64)
    for block in images.blocks():  # as one tall picture, whose histogram takes a quarter of the time of np.bincount
        picture = Image.fromarray(block.reshape(-1, width, channels) if channels > 1 else block.reshape(-1, width))
        counts += np.reshape(picture.histogram(), counts.shape)
    values = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    deviation = np.sqrt(np.maximum(share @ values**2 - mean**2, 1e-8))
    return Normalise(torch.tensor(mean, dtype=torch.float32), torch.tensor(deviation, dtype=torch.float32))
