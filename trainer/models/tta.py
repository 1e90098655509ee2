"""Test-time augmentation: averages the logits of an image, its mirror image and small shifts.

The exported graph averages them, so the measured model is the served model. Each view costs one inference.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.recipe import Views

_MIRRORED = {1, 4, 5}


class AveragedViews(nn.Module):
    """float [batch, channels, height, width] in 0..1 -> the weighted mean of the views' logits [batch, classes].

    With shifts, the image and its mirror image have half of the weight, and the four shifts the other half (Keller
    Jordan, 2024).
    """

    weights: Tensor

    def __init__(self, network: nn.Module, views: Views) -> None:
        super().__init__()
        self.network = network
        self.shifts = views is Views.SHIFT
        weights = [1 / 4] * 2 + [1 / 8] * 4 if self.shifts else [1 / 2] * 2
        self.register_buffer("weights", torch.tensor(weights).reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.mean(self.network(self.views_of(images)))

    def views_of(self, images: Tensor) -> Tensor:
        """Returns [views * batch, channels, height, width]."""
        views = [images, images.flip(3)]
        if self.shifts:
            padded = functional.pad(images, (1, 1, 1, 1), mode="reflect")
            moved = [padded[:, :, :-2, :-2], padded[:, :, 2:, 2:]]
            views += [*moved, *(view.flip(3) for view in moved)]
        return torch.cat(views)

    def mean(self, logits: Tensor) -> Tensor:
        """Returns [batch, classes] for the logits of all views."""
        return (logits.reshape(len(self.weights), -1, logits.shape[1]) * self.weights).sum(dim=0)

    def mean_of_maps(self, maps: Tensor) -> Tensor:
        """Returns [batch, channels, h, w] for the maps of all views; those of mirror images are mirrored back."""
        count, channels, height, width = len(self.weights), maps.shape[1], maps.shape[2], maps.shape[3]
        views = maps.reshape(count, -1, channels, height, width)
        upright = torch.stack([views[i].flip(3) if i in _MIRRORED else views[i] for i in range(count)])
        return (upright * self.weights[:, :, :, None, None]).sum(dim=0)


def with_views(network: nn.Module, views: Views) -> nn.Module:
    return network if views is Views.ONE else AveragedViews(network, views).eval()
