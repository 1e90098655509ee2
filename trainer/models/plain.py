"""Plain: groups of 3x3 convolutions, a max-pool after each, then dense layers (after Simonyan & Zisserman, 2014)."""

from torch import nn

from trainer.errors import RecipeError
from trainer.models.layers import Shape, convolution
from trainer.network_config import PlainConfig


def build(config: PlainConfig, shape: Shape) -> nn.Module:
    """Raises RecipeError if the image is too small to be halved once per group."""
    layers: list[nn.Module] = []
    channels, height, width = shape.channels, shape.height, shape.width
    for outputs in config.widths:
        inputs = [channels, *[outputs] * (config.depth - 1)]
        layers += [convolution(count, outputs, 3, batch_norm=config.batch_norm) for count in inputs]
        layers.append(nn.MaxPool2d(2))
        channels, height, width = outputs, height // 2, width // 2
    if min(height, width) < 1:
        raise RecipeError(
            f"Images of {shape.height}x{shape.width} cannot be halved {len(config.widths)} times. "
            "Give fewer network.widths."
        )
    layers.append(nn.Flatten())
    features = channels * height * width
    if config.dense is not None:
        layers += [nn.Dropout(config.dropout), nn.Linear(features, config.dense), nn.ReLU(inplace=True)]
        features = config.dense
    return nn.Sequential(*layers, nn.Dropout(config.dropout), nn.Linear(features, shape.classes))
