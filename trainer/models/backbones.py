"""Backbones: timm's image classifiers without their head, below a linear layer for the classes of the data.

timm is pytorch-image-models (Wightman, 2019). Its module is imported where it is needed, because that takes seconds.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from schemas.manifest import InputSpec, Interpolation, Resize
from trainer.errors import RecipeError
from trainer.models.layers import Normalise, Shape
from trainer.network_config import PACKAGED, BackboneConfig, unknown_network

TIMM_NAMES = {PACKAGED: "tf_efficientnet_lite0"}


class Backbone(nn.Module):
    """Normalised images, float [batch, 3, height, width], to logits [batch, classes].

    With frozen_norms, batch norm keeps the statistics of the starting weights during training. Grey images become RGB
    through the three channels of the normalisation.
    """

    CHANNELS = 3

    def __init__(self, body: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.body: Any = body  # timm's networks have more methods than nn.Module
        self.head: nn.Module = nn.Linear(features, classes)
        self.frozen_norms = False

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.body(images))

    def features(self, images: Tensor) -> Tensor:
        features: Tensor = self.body.forward_features(images)
        return features

    def pool(self, features: Tensor) -> Tensor:
        pooled: Tensor = self.body.forward_head(features)
        return pooled

    def linear(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.head(pooled)
        return logits

    @property
    def class_weights(self) -> Tensor:
        assert isinstance(self.head, nn.Linear)  # noqa: S101 - a network without a head has no classes
        return self.head.weight

    def freeze(self, share: float) -> None:
        """Keeps the first tensors of weights, this share of all, so that training computes no gradients there.

        They see edges and textures, which differ little between data sets (Yosinski et al., 2014).
        """
        tensors = list(self.body.parameters())  # in the order of the layers
        for tensor in tensors[: int(share * len(tensors))]:
            tensor.requires_grad_(False)

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        if self.frozen_norms:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


class Body(nn.Module):
    """A backbone with its normalisation and without its last layer.

    Float images [batch, channels, height, width] in 0..1 to pooled features [batch, features], and to the last feature
    maps, or what the network has in their place.
    """

    def __init__(self, normalise: nn.Module, backbone: Backbone) -> None:
        super().__init__()
        self.normalise, self.backbone = normalise, copy.deepcopy(backbone)
        self.backbone.head = nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone.features(self.normalise(images))
        return self.backbone.pool(features), features


def build(config: BackboneConfig, shape: Shape) -> Backbone:
    """Returns the network with random weights. Raises RecipeError for an unknown name, and for unsuitable images."""
    body = create_body(config, shape.height, shape.width)
    try:
        with torch.no_grad():
            features = body.eval()(torch.zeros(1, Backbone.CHANNELS, shape.height, shape.width))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise RecipeError(
            f"{config.name} does not accept images of {shape.height}x{shape.width} ({error}). Set another size, as in "
            f"--set data.input={','.join(map(str, own_input(config).shape))}."
        ) from error
    return Backbone(body, features.shape[1], shape.classes)


def create_body(config: BackboneConfig, height: int, width: int, **options: Any) -> nn.Module:
    """Returns timm's network without its classifier. Raises RecipeError for an unknown name."""
    import timm  # noqa: PLC0415 - takes a second

    if pretrained_config(config).fixed_input_size:
        options["img_size"] = (height, width)
    body: nn.Module = timm.create_model(timm_name(config), num_classes=0, **options)
    return body


def timm_name(config: BackboneConfig) -> str:
    return TIMM_NAMES.get(config.name, config.name)


def pretrained_config(config: BackboneConfig) -> Any:
    """Returns timm's description of the network's weights. Raises RecipeError for an unknown name."""
    import timm  # noqa: PLC0415 - takes a second

    found = timm.get_pretrained_cfg(timm_name(config))
    if found is None:
        raise unknown_network(config.name)
    return found


def own_input(config: BackboneConfig) -> InputSpec:
    """Returns the images that the network's weights were trained on, as far as a bundle describes them."""
    found = pretrained_config(config)
    channels, height, width = found.input_size
    names = [entry.value for entry in Interpolation]
    interpolation = found.interpolation if found.interpolation in names else Interpolation.BICUBIC
    return InputSpec(
        height=height, width=width, channels=channels, resize=Resize.CROP, interpolation=Interpolation(interpolation)
    )


def own_normalisation(config: BackboneConfig) -> Normalise:
    """Returns the normalisation that the network's weights expect."""
    found = pretrained_config(config)
    mean, deviation = torch.tensor(found.mean), torch.tensor(found.std)
    if config.name in {*TIMM_NAMES, *TIMM_NAMES.values()}:  # the packaged weights: (value - 127) / 128
        mean, deviation = torch.full((3,), 127 / 255), torch.full((3,), 128 / 255)
    return Normalise(mean, deviation)
