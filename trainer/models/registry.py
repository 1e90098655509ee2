"""Builds a network from its settings. Each file of this room holds one network, or a family of them."""

from torch import nn

from trainer.models import backbones, fast, inception, plain
from trainer.models.layers import Shape
from trainer.network_config import AnyNetwork, FastConfig, InceptionConfig, PlainConfig


def build(config: AnyNetwork, shape: Shape) -> nn.Module:
    """Returns the network with random weights. Raises RecipeError if the images are too small for it."""
    if isinstance(config, PlainConfig):
        return plain.build(config, shape)
    if isinstance(config, InceptionConfig):
        return inception.build(config, shape)
    if isinstance(config, FastConfig):
        return fast.build(config, shape)
    return backbones.build(config, shape)
