"""Random changes to a batch, on its device, from an explicit generator: the same seed gives the same images."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from trainer.recipe import AugmentConfig


def augment(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """images float [batch, channels, height, width] -> the same shape, each image changed on its own.

    Rotation, scale and shift are one bilinear resampling, black where it reaches outside the image; the generator
    lives on the images' device.
    """
    if not (config.rotate or config.scale or config.translate):
        return images
    grid = functional.affine_grid(_transforms(images, config, generator), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _transforms(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """One affine map an image, [batch, 2, 3], from output to input in coordinates that run over -1..1."""
    batch, _, height, width = images.shape

    def uniform(largest: float) -> Tensor:
        return (torch.rand(batch, device=images.device, generator=generator) * 2 - 1) * largest

    angle, scale = uniform(math.radians(config.rotate)), 1 + uniform(config.scale)
    right, down = uniform(2 * config.translate / width), uniform(2 * config.translate / height)
    cosine, sine, ratio = torch.cos(angle) / scale, torch.sin(angle) / scale, height / width
    rows = [cosine, -sine * ratio, right, sine / ratio, cosine, down]
    return torch.stack(rows, dim=1).reshape(batch, 2, 3)
