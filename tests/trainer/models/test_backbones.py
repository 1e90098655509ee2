import pytest
import torch
from torch import nn

from trainer.errors import RecipeError
from trainer.models.backbones import build
from trainer.models.layers import Shape
from trainer.network_config import BackboneConfig, Stem, network_named

BACKBONES = ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny")
SMALL_HALVINGS, PUBLISHED_HALVINGS = 3, 5


def backbone(name: str, **changes: object) -> BackboneConfig:
    config = network_named(name)
    assert isinstance(config, BackboneConfig)
    return config.model_validate(config.model_dump() | changes)


def shape(side: int, channels: int = 3) -> Shape:
    return Shape(height=side, width=side, channels=channels, classes=4)


def smallest_map(network: nn.Module, side: int, channels: int) -> int:
    """The side of the last feature map that is not yet pooled to one value."""
    sides: list[int] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, inputs, output: sides.append(output.shape[2]))
    with torch.no_grad():
        network.eval()(torch.rand(1, channels, side, side))
    return min(size for size in sides if size > 1)  # squeeze-and-excitation convolves 1x1 maps


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize(
    ("side", "channels", "stem", "halvings"),
    [(16, 1, "auto", SMALL_HALVINGS), (64, 3, "auto", PUBLISHED_HALVINGS), (64, 1, "published", PUBLISHED_HALVINGS)],
)
def test_the_stem_decides_how_often_an_image_is_halved(
    name: str, side: int, channels: int, stem: str, halvings: int
) -> None:
    network = build(backbone(name, stem=stem), shape(side, channels))
    assert smallest_map(network, side, channels) == side // 2**halvings


@pytest.mark.parametrize("name", BACKBONES)
def test_an_image_too_small_for_a_stem_is_said_with_what_to_do(name: str) -> None:
    with pytest.raises(RecipeError, match=r"28x28 cannot be halved 5 times, .* set network\.stem=small"):
        build(backbone(name, stem=Stem.PUBLISHED), shape(28))
    with pytest.raises(RecipeError, match=r"6x6 cannot be halved 3 times, .* use network=plain"):
        build(backbone(name), shape(6))


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("stem", [Stem.SMALL, Stem.PUBLISHED])
def test_a_grey_network_answers_as_the_rgb_one_of_the_same_weights(name: str, stem: Stem) -> None:
    config = backbone(name, stem=stem)
    torch.manual_seed(0)
    colour = build(config, shape(32)).eval()
    torch.manual_seed(0)
    grey = build(config, shape(32, channels=1)).eval()
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(grey(images), colour(images.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", BACKBONES)
def test_with_the_published_stem_its_weights_have_the_names_and_shapes_of_torchvision(name: str) -> None:
    from torchvision.models import get_model  # noqa: PLC0415

    with torch.device("meta"):
        published = get_model(name, num_classes=4)
    ours = build(backbone(name, stem=Stem.PUBLISHED), shape(32))
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in published.state_dict().items()
    }
