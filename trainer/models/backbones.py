"""Networks of torchvision for transfer learning, for images of any size, RGB or grey.

    resnet18             He et al., 2015               11.7 million parameters
    mobilenet_v3_small   Howard et al., 2019            2.5 million
    efficientnet_b0      Tan & Le, 2019                 5.3 million
    convnext_tiny        Liu et al., 2022              28.6 million

Each halves its image five times, which suits photos of 224x224. For small images, the stem can leave out its two
halvings, as is usual for CIFAR-10. Pretrained weights need the published stem.
"""

from torch import nn

from trainer.errors import RecipeError
from trainer.models.layers import Shape
from trainer.network_config import BackboneConfig, ConvNeXtTinyConfig, ResNet18Config, Stem


def build(config: BackboneConfig, shape: Shape) -> nn.Module:
    """Returns the network with torchvision's random weights. Raises RecipeError if the images are too small."""
    from torchvision.models import get_model  # noqa: PLC0415 - the import takes a second; the other networks do not need it

    stem = config.stem_for(shape.height, shape.width)
    halvings = 3 if stem is Stem.SMALL else 5
    if min(shape.height, shape.width) < 2**halvings:
        advice = "set network.stem=small" if stem is Stem.PUBLISHED else "use network=plain"
        raise RecipeError(
            f"Images of {shape.height}x{shape.width} cannot be halved {halvings} times, as {config.name} with its "
            f"{stem} stem does. To continue, {advice}."
        )
    network: nn.Module = get_model(config.name, weights=None, num_classes=shape.classes)
    if stem is Stem.SMALL:
        _make_small(config, network)
    if shape.channels == 1:
        _make_grey(_convolutions(network)[0])
    return network


def _make_small(config: BackboneConfig, network: nn.Module) -> None:
    """Removes the first two halvings of the image."""
    if isinstance(config, ResNet18Config):
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    elif isinstance(config, ConvNeXtTinyConfig):  # the stem's patches of 4x4 become overlapping ones of 3x3
        stem = network.get_submodule("features.0")
        assert isinstance(stem, nn.Sequential)  # noqa: S101 - torchvision's layout
        patches = nn.Conv2d(3, _convolutions(network)[0].out_channels, 3, padding=1, bias=False)
        nn.init.trunc_normal_(patches.weight, std=0.02)
        stem[0] = patches
    else:
        for layer in [layer for layer in _convolutions(network) if layer.stride == (2, 2)][:2]:
            layer.stride = (1, 1)


def _convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def _make_grey(layer: nn.Conv2d) -> None:
    """Makes a layer take one channel: summed over the colours, its filters compute what they would for grey in RGB."""
    layer.weight = nn.Parameter(layer.weight.detach().sum(dim=1, keepdim=True))
    layer.in_channels = 1
