"""Inception: a convolution, one Inception block (Szegedy et al., 2015), three convolutions, dense layers.

    convolution 5x5 -> max-pool -> Inception -> max-pool -> three convolutions 3x3 -> max-pool -> dense -> dense

The block looks at its input through four windows at once, 1x1, 3x3, 5x5 and a max-pool, and joins what they see.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from schemas.base import Frozen
from trainer.errors import RecipeError
from trainer.models.layers import Shape, Width, convolution


class InceptionConfig(Frozen):
    name: Literal["inception"] = "inception"
    stem: Annotated[Width, Field(description="channels of the first convolution")] = 16
    branch: Annotated[Width, Field(description="channels of each of the block's four branches")] = 16
    widths: Annotated[tuple[Width, Width, Width], Field(description="channels of the three convolutions")] = (
        64,
        64,
        64,
    )
    dense: Annotated[Width, Field(description="neurons of the hidden dense layer")] = 128
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3

    def build(self, shape: Shape) -> nn.Module:
        """Raises RecipeError where the image is too small to be halved three times."""
        height, width = shape.height // 8, shape.width // 8
        if min(height, width) < 1:
            raise RecipeError(
                f"Images of {shape.height}x{shape.width} cannot be halved three times; use network=plain for them."
            )
        first, second, third = self.widths
        return nn.Sequential(
            convolution(shape.channels, self.stem, 5),
            nn.MaxPool2d(2),
            InceptionBlock(self.stem, self.branch),
            nn.MaxPool2d(2),
            convolution(4 * self.branch, first, 3),
            convolution(first, second, 3),
            convolution(second, third, 3),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(self.dropout),
            nn.Linear(third * height * width, self.dense),
            nn.ReLU(inplace=True),
            nn.Dropout(self.dropout),
            nn.Linear(self.dense, shape.classes),
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
