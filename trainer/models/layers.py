"""Layers that several networks share."""

import torch
from torch import Tensor, nn

from schemas.base import Frozen


class Shape(Frozen):
    """A network's input and output: float [batch, channels, height, width] in 0..1 -> logits [batch, classes]."""

    height: int
    width: int
    channels: int
    classes: int


class Normalise(nn.Module):
    """Computes (x - mean) / deviation per channel. It is part of the network, so the exported graph normalises too."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", (1 / deviation).reshape(1, -1, 1, 1))
        self.register_buffer("shift", (-mean / deviation).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.shift

    def expanded(self, channels: int) -> "Normalise":
        """Repeats the single channel of grey images for a network of this number of channels, and returns itself."""
        self.scale, self.shift = (value.expand(1, channels, 1, 1).clone() for value in (self.scale, self.shift))
        return self


class OneNeuron(nn.Module):
    """Returns the logit z [batch, 1] of one neuron as two columns [0, z].

    Their softmax is [1 - sigmoid(z), sigmoid(z)] and their cross-entropy is the binary cross-entropy of z, so loss and
    metrics need no special case.
    """

    def forward(self, logit: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(logit), logit], dim=1)


def convolution(inputs: int, outputs: int, kernel: int, *, batch_norm: bool = True) -> nn.Sequential:
    """Returns a convolution that keeps height and width, batch norm and ReLU."""
    if not batch_norm:
        return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU(inplace=True))
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def as_input(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float() / 255


def head_name(network: nn.Module) -> str:
    """Returns the module name of the last linear layer. Raises ValueError if there is none."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise ValueError("the network has no linear layer")
    last: str = names[-1]
    return last
