"""Plain: groups of 3x3 convolutions, a max-pool after each, then dense layers (after Simonyan & Zisserman, 2014)."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from schemas.base import Frozen
from trainer.errors import RecipeError
from trainer.models.layers import Shape, Width, convolution


class PlainConfig(Frozen):
    name: Literal["plain"] = "plain"
    widths: Annotated[tuple[Width, ...], Field(min_length=1, description="channels of each group of convolutions")] = (
        32,
        64,
    )
    depth: Annotated[int, Field(ge=1, le=16, description="convolutions before each max-pool")] = 2
    batch_norm: bool = True
    dense: Annotated[Width | None, Field(description="neurons of the hidden dense layer; null leaves it out")] = 128
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2

    def build(self, shape: Shape) -> nn.Module:
        """Raises RecipeError where the image is too small to be halved once a group."""
        layers: list[nn.Module] = []
        channels, height, width = shape.channels, shape.height, shape.width
        for outputs in self.widths:
            inputs = [channels, *[outputs] * (self.depth - 1)]
            layers += [convolution(count, outputs, 3, batch_norm=self.batch_norm) for count in inputs]
            layers.append(nn.MaxPool2d(2))
            channels, height, width = outputs, height // 2, width // 2
        if min(height, width) < 1:
            raise RecipeError(
                f"Images of {shape.height}x{shape.width} cannot be halved {len(self.widths)} times; "
                "give fewer network.widths."
            )
        layers.append(nn.Flatten())
        features = channels * height * width
        if self.dense is not None:
            layers += [nn.Dropout(self.dropout), nn.Linear(features, self.dense), nn.ReLU(inplace=True)]
            features = self.dense
        return nn.Sequential(*layers, nn.Dropout(self.dropout), nn.Linear(features, shape.classes))
