"""What several networks are built of."""

from torch import Tensor, nn

from schemas.base import Frozen


class Shape(Frozen):
    """What a network takes and gives: float [batch, channels, height, width] in 0..1 -> logits [batch, classes]."""

    height: int
    width: int
    channels: int
    classes: int


class Normalise(nn.Module):
    """(x - mean) / deviation by channel, as part of the network: what is exported normalises by itself."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", (1 / deviation).reshape(1, -1, 1, 1))
        self.register_buffer("shift", (-mean / deviation).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.shift


def convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution that keeps height and width, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
