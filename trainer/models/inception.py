"""Inception: a convolution, one Inception block (Szegedy et al., 2015), three convolutions, dense layers.

    convolution 5x5 -> max-pool -> Inception -> max-pool -> three convolutions 3x3 -> max-pool -> dense -> dense

The block concatenates four branches: 1x1, 3x3 and 5x5 convolutions, and a max-pool.
"""

import torch
from torch import Tensor, nn

from trainer.errors import RecipeError
from trainer.models.layers import Shape, convolution
from trainer.network_config import InceptionConfig


def build(config: InceptionConfig, shape: Shape) -> nn.Module:
    """Raises RecipeError if the image is too small to be halved three times."""
    height, width = shape.height // 8, shape.width // 8
    if min(height, width) < 1:
        raise RecipeError(f"Images of {shape.height}x{shape.width} cannot be halved three times. Use network=plain.")
    first, second, third = config.widths
    return nn.Sequential(
        convolution(shape.channels, config.stem, 5),
        nn.MaxPool2d(2),
        InceptionBlock(config.stem, config.branch),
        nn.MaxPool2d(2),
        convolution(4 * config.branch, first, 3),
        convolution(first, second, 3),
        convolution(second, third, 3),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(config.dropout),
        nn.Linear(third * height * width, config.dense),
        nn.ReLU(inplace=True),
        nn.Dropout(config.dropout),
        nn.Linear(config.dense, shape.classes),
    )


class InceptionBlock(nn.Module):
    """[batch, inputs, h, w] -> [batch, 4 * branch, h, w]."""

    def __init__(self, inputs: int, branch: int) -> None:
        super().__init__()
        self.one = convolution(inputs, branch, 1)
        self.three = nn.Sequential(convolution(inputs, branch, 1), convolution(branch, branch, 3))
        self.five = nn.Sequential(convolution(inputs, branch, 1), convolution(branch, branch, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), convolution(inputs, branch, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)
