"""Class activation maps: the evidence for a class at each position of an image (Zhou et al., 2016).

    map[y, x] = sum over channels of weight[class, channel] * features[channel, y, x]

They need a network that ends in global pooling and one linear layer. With average pooling, the mean of a map plus the
bias of its class is the logit. With max pooling, each channel contributes only its largest value, maybe each at another
position: the map shows where evidence lies, but its values do not add up to the logit.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from schemas.manifest import Explanation, InputSpec, Pooling
from trainer.models.layers import as_input
from trainer.models.tta import AveragedViews

_OTHER_END = "The network does not end in global pooling and one linear layer."
_ONE_POSITION = "The last feature maps of the network have one position, so they do not show where evidence lies."


@runtime_checkable
class PooledNetwork(Protocol):
    """A network whose logits are linear(pool(features(images))); images are normalised."""

    def features(self, images: Tensor) -> Tensor:
        """Returns the last feature maps, [batch, channels, h, w]."""

    def pool(self, features: Tensor) -> Tensor:
        """Returns [batch, channels]."""

    def linear(self, pooled: Tensor) -> Tensor: ...

    @property
    def class_weights(self) -> Tensor:
        """The weights of the linear layer, [outputs, channels]."""


class WithMap(nn.Module):
    """float [batch, channels, height, width] in 0..1 -> logits [batch, classes], and maps [batch, h, w].

    The map is that of the top class. That of test-time views is the mean of their maps, with those of mirror images
    mirrored back. A shift by a pixel is less than a position of a map, and is not undone. The map of one output neuron
    is negated if its first class is the top class.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.views = network if isinstance(network, AveragedViews) else None
        layers = _layers(network)
        self.normalise, self.neuron = layers[0], layers[2:]
        self.network: Any = layers[1]  # a PooledNetwork

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        views = self.views.views_of(images) if self.views is not None else images
        features = self.network.features(self.normalise(views))
        return self.answer(self.network.pool(features), features)

    def answer(self, pooled: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits and maps for the last feature maps, [views * batch, channels, h, w], and their pooling."""
        logits = self.neuron(self.network.linear(pooled))
        if self.views is not None:
            logits, features = self.views.mean(logits), self.views.mean_of_maps(features)
        weights: Tensor = self.network.class_weights
        if len(self.neuron):
            weights = torch.cat([-weights, weights])
        top = weights[logits.argmax(dim=1)]
        return logits, (top[:, :, None, None] * features).sum(dim=1)


@torch.no_grad()
def explained(network: nn.Module, spec: InputSpec) -> tuple[nn.Module, Explanation]:
    """Returns the network with maps if it can have them, else the network itself, and what there is to say about it.

    network is one that build_network returned, in eval mode, maybe with test-time views.
    """
    normalise, pooled = _layers(network)[:2]
    if not isinstance(pooled, PooledNetwork):
        return network, Explanation(reason=_OTHER_END)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (1, *spec.shape), generator=generator, dtype=torch.uint8)
    features = pooled.features(normalise(as_input(noise)))
    pooling = _pooling(pooled, features)
    if pooling is None:
        return network, Explanation(reason=_OTHER_END)
    height, width = features.shape[2:]
    if height * width == 1:
        return network, Explanation(reason=_ONE_POSITION)
    return WithMap(network).eval(), Explanation(height=height, width=width, pooling=pooling)


def _layers(network: nn.Module) -> nn.Sequential:
    """Returns the normalisation, the network itself and maybe OneNeuron."""
    layers = network.network if isinstance(network, AveragedViews) else network
    assert isinstance(layers, nn.Sequential)  # noqa: S101 - as build_network returns it
    return layers


def _pooling(network: PooledNetwork, features: object) -> Pooling | None:
    """Returns what the network's pooling computes; None if it is anything else, such as attention."""
    if not isinstance(features, Tensor) or features.ndim != 4 or features.shape[1] != network.class_weights.shape[1]:
        return None
    found = network.pool(features)
    for pooling, expected in ((Pooling.AVERAGE, features.mean(dim=(2, 3))), (Pooling.MAX, features.amax(dim=(2, 3)))):
        if found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-4, atol=1e-5):
            return pooling
    return None
