"""The networks, by name. Each file holds one network, or a family of them, and the frozen config that builds it."""

from typing import Annotated

from pydantic import Field

from trainer.errors import RecipeError
from trainer.models.backbones import ConvNeXtTinyConfig, EfficientNetB0Config, MobileNetV3SmallConfig, ResNet18Config
from trainer.models.fast import FastConfig
from trainer.models.inception import InceptionConfig
from trainer.models.plain import PlainConfig

AnyNetwork = (
    PlainConfig
    | InceptionConfig
    | FastConfig
    | ResNet18Config
    | MobileNetV3SmallConfig
    | EfficientNetB0Config
    | ConvNeXtTinyConfig
)
NetworkConfig = Annotated[AnyNetwork, Field(discriminator="name")]

NETWORKS: dict[str, type[AnyNetwork]] = {
    "plain": PlainConfig,
    "inception": InceptionConfig,
    "fast": FastConfig,
    "resnet18": ResNet18Config,
    "mobilenet_v3_small": MobileNetV3SmallConfig,
    "efficientnet_b0": EfficientNetB0Config,
    "convnext_tiny": ConvNeXtTinyConfig,
}


def network_named(name: str) -> AnyNetwork:
    """The network's config with its defaults. Raises RecipeError naming the known ones."""
    if name not in NETWORKS:
        raise RecipeError(f"There is no network '{name}'; known are {', '.join(NETWORKS)}.")
    return NETWORKS[name]()
