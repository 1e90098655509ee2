"""Fast: a small network of the airbench family, which learns quickly (Keller Jordan, arXiv 2404.00498).

    whitening convolution (frozen) -> GELU -> groups of [convolution, pool, norm, GELU, convolution, norm, GELU]
    -> global max-pool -> linear, scaled down

The first layer turns patches into uncorrelated directions of equal variance, computed from training images; pooling
comes before batch norm; each 3x3 filter bank starts as the identity. With residual, a group has a third convolution,
and the input of its second is added to the output of its third, as in the paper's larger network.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.errors import RecipeError
from trainer.models.layers import Shape
from trainer.network_config import FastConfig

_SMALLEST_EIGENVALUE = 5e-4


def build(config: FastConfig, shape: Shape) -> nn.Module:
    """Raises RecipeError if the image is too small for the pooling of the groups."""
    side = (min(shape.height, shape.width) - config.whitening_kernel) // config.whitening_stride + 1
    if side >> len(config.widths) < 1:
        raise RecipeError(
            f"Images of {shape.height}x{shape.width} cannot be halved {len(config.widths)} times after the first "
            "layer. Give fewer network.widths or set network.whitening_stride=1."
        )
    return FastNetwork(config, shape)


class FastNetwork(nn.Module):
    def __init__(self, config: FastConfig, shape: Shape) -> None:
        super().__init__()
        patch = shape.channels * config.whitening_kernel**2
        self.whitening = nn.Conv2d(shape.channels, 2 * patch, config.whitening_kernel, stride=config.whitening_stride)
        self.whitening.weight.requires_grad_(False)
        groups, channels = [], 2 * patch
        for width in config.widths:
            groups.append(FastGroup(channels, width, residual=config.residual))
            channels = width
        self.groups = nn.Sequential(*groups)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(channels, shape.classes, bias=False)
        self.logit_scale = config.logit_scale

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.pool(self.features(images)))

    def features(self, images: Tensor) -> Tensor:
        features: Tensor = self.groups(functional.gelu(self.whitening(images)))
        return features

    def pool(self, features: Tensor) -> Tensor:
        pooled: Tensor = self.dropout(features.amax(dim=(2, 3)))
        return pooled

    def linear(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.head(pooled) * self.logit_scale
        return logits

    @property
    def class_weights(self) -> Tensor:
        return self.head.weight * self.logit_scale

    @torch.no_grad()
    def prepare(self, images: Tensor) -> None:
        """Sets the whitening filters from normalised images, float [n, channels, height, width].

        They are the eigenvectors of the patches' covariance over the root of their eigenvalues, and their negatives.
        """
        kernel = self.whitening.kernel_size[0]
        patches = functional.unfold(images, kernel).transpose(1, 2).reshape(-1, images.shape[1] * kernel**2)
        values, vectors = torch.linalg.eigh(torch.cov(patches.T))
        filters = (vectors / (values + _SMALLEST_EIGENVALUE).sqrt()).T.reshape(-1, *self.whitening.weight.shape[1:])
        self.whitening.weight.copy_(torch.cat([filters, -filters]))
        assert self.whitening.bias is not None  # noqa: S101 - the layer is made with one
        self.whitening.bias.zero_()


class FastGroup(nn.Module):
    """[batch, inputs, h, w] -> [batch, outputs, h / 2, w / 2]."""

    def __init__(self, inputs: int, outputs: int, *, residual: bool) -> None:
        super().__init__()
        self.down = nn.Sequential(_identity_convolution(inputs, outputs), nn.MaxPool2d(2), _norm(outputs), nn.GELU())
        self.middle = nn.Sequential(_identity_convolution(outputs, outputs), _norm(outputs), nn.GELU())
        self.around = residual
        if residual:
            self.last = nn.Sequential(_identity_convolution(outputs, outputs), _norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        y: Tensor = self.middle(x)
        return functional.gelu(x + self.last(y)) if self.around else y


def _identity_convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Returns a 3x3 convolution whose first filters are the identity."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.data[:inputs])
    return layer


def _norm(channels: int) -> nn.BatchNorm2d:
    """Returns batch norm whose scale stays 1: the next layer can learn it."""
    norm = nn.BatchNorm2d(channels, eps=1e-5, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm
