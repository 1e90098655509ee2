"""The settings of each network, by name. trainer/models builds them; this module does without PyTorch."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Frozen
from trainer.errors import RecipeError

Width = Annotated[int, Field(ge=1, le=8192)]
SMALL_IMAGE = 64  # pixels of the shorter side, below which `auto` leaves out the first two halvings


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


class InceptionConfig(Frozen):
    name: Literal["inception"] = "inception"
    stem: Annotated[Width, Field(description="channels of the first convolution")] = 16
    branch: Annotated[Width, Field(description="channels of each of the block's four branches")] = 16
    widths: Annotated[tuple[Width, Width, Width], Field(description="channels of the three convolutions")] = (
        64,
        64,
        64,
    )
    dense: Annotated[Width, Field(description="neurons of the hidden dense layer")] = 128
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3


class FastConfig(Frozen):
    name: Literal["fast"] = "fast"
    whitening_kernel: Annotated[int, Field(ge=1, le=7)] = 3
    whitening_stride: Annotated[int, Field(ge=1, le=4, description="2 quarters the work of all later layers")] = 2
    widths: Annotated[tuple[Width, ...], Field(min_length=1, description="channels of each group")] = (64, 128, 256)
    residual: Annotated[bool, Field(description="three convolutions a group, with a skip connection over two")] = False
    logit_scale: Annotated[float, Field(gt=0)] = 1 / 9
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Stem(StrEnum):
    AUTO = "auto"
    PUBLISHED = "published"
    SMALL = "small"


class BackboneConfig(Frozen):
    """A network of torchvision's. Its stem is the first two of its five halvings."""

    name: str
    stem: Annotated[
        Stem, Field(description="small leaves out the first two of five halvings; auto: below 64 pixels, from scratch")
    ] = Stem.AUTO

    def stem_for(self, height: int, width: int) -> Stem:
        """The stem that `auto` means for images of this size."""
        if self.stem is not Stem.AUTO:
            return self.stem
        return Stem.SMALL if min(height, width) < SMALL_IMAGE else Stem.PUBLISHED


class ResNet18Config(BackboneConfig):
    name: Literal["resnet18"] = "resnet18"


class MobileNetV3SmallConfig(BackboneConfig):
    name: Literal["mobilenet_v3_small"] = "mobilenet_v3_small"


class EfficientNetB0Config(BackboneConfig):
    name: Literal["efficientnet_b0"] = "efficientnet_b0"


class ConvNeXtTinyConfig(BackboneConfig):
    name: Literal["convnext_tiny"] = "convnext_tiny"


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
    """Returns the network's default settings. Raises RecipeError for an unknown name."""
    if name not in NETWORKS:
        raise RecipeError(f"Unknown network '{name}'. Known networks: {', '.join(NETWORKS)}.")
    return NETWORKS[name]()
