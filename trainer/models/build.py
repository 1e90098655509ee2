"""Builds the network that suits a data set."""

import numpy as np
import torch
from torch import nn

from trainer.data.dataset import LabelledImages
from trainer.data.split import Splits
from trainer.errors import RecipeError
from trainer.models.fast import FastNetwork
from trainer.models.layers import Normalise, OneNeuron, Shape, as_input
from trainer.models.pretrained import StartingWeights, load_body
from trainer.models.registry import build
from trainer.recipe import Recipe

# Enough for the covariance of small patches.
PREPARING_IMAGES = 5000
# Of pixels, for the mean and deviation: more would change the fourth digit, and a run could not start at once.
STATISTICS_BYTES = 2**28


def build_network(recipe: Recipe, data: Splits, start: StartingWeights | None = None) -> nn.Module:
    """The recipe's network behind the normalisation that the training images ask for, or its starting weights.

    Raises RecipeError, and DataError for weights that do not fit.
    """
    spec = data.input
    if recipe.sigmoid and len(data.labels) != 2:
        raise RecipeError(
            f"sigmoid=true is for two classes, and {data.name} has {len(data.labels)}; set sigmoid=false."
        )
    outputs = 1 if recipe.sigmoid else len(data.labels)
    shape = Shape(height=spec.height, width=spec.width, channels=spec.channels, classes=outputs)
    normalise, network = _normalise(data.train), build(recipe.network, shape)
    if start is not None:
        load_body(network, start)
        normalise = start.normalise or normalise
    elif isinstance(network, FastNetwork):
        images = torch.from_numpy(data.train.images[:PREPARING_IMAGES])
        network.prepare(normalise(as_input(images)))
    return nn.Sequential(normalise, network, *([OneNeuron()] if recipe.sigmoid else []))


def _normalise(train: LabelledImages) -> Normalise:
    """By the mean and deviation of each channel over the training split, or even steps through a very large one."""
    step = -(-train.images.nbytes // STATISTICS_BYTES)
    images = train.images.take(np.arange(0, len(train), step))
    counts = np.zeros((images.shape[3], 256), np.int64)
    for block in images.blocks():
        counts += [np.bincount(block[..., i].ravel(), minlength=256) for i in range(images.shape[3])]
    values = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    deviation = np.sqrt(np.maximum(share @ values**2 - mean**2, 1e-8))
    return Normalise(torch.tensor(mean, dtype=torch.float32), torch.tensor(deviation, dtype=torch.float32))
