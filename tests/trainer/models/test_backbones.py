import numpy as np
import pytest
import torch

from schemas.manifest import InputSpec, Interpolation, Resize
from tests.support.parity import parity_of
from trainer.errors import RecipeError
from trainer.export.onnx import export
from trainer.models.backbones import Backbone, build, own_input, own_normalisation
from trainer.models.layers import Normalise, Shape, head_name
from trainer.network_config import BackboneConfig

# Small networks of timm's, one of each kind: plain batch norm, "same" padding, batch norm with activation, attention.
KINDS = ("test_resnet", "efficientnet_lite0", "test_efficientnet", "test_vit")


def shape(side: int, channels: int = 3) -> Shape:
    return Shape(height=side, width=side, channels=channels, classes=4)


@pytest.mark.parametrize("name", KINDS)
def test_exports_every_kind_of_timm_network_with_the_same_logits(name: str) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        own_normalisation(BackboneConfig(name=name)), build(BackboneConfig(name=name), shape(64))
    )
    spec = InputSpec(height=64, width=64, channels=3)
    images = np.random.default_rng(0).integers(0, 256, (9, *spec.shape), np.uint8)
    parity = parity_of(export(network.eval(), spec), network, images)
    assert parity.images == 9


def test_the_head_of_a_backbone_is_its_own_linear_layer() -> None:
    network = build(BackboneConfig(name="test_resnet"), shape(64))
    assert head_name(network) == "head"
    assert network.head.out_features == 4


def test_accepts_grey_images_through_a_normalisation_of_three_channels() -> None:
    network = build(BackboneConfig(name="test_resnet"), shape(64, channels=1)).eval()
    normalise = own_normalisation(BackboneConfig(name="test_resnet"))
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert torch.allclose(network(normalise(grey)), network(normalise(grey.expand(-1, 3, -1, -1))), atol=1e-6)
    own = Normalise(torch.tensor([0.5]), torch.tensor([0.25])).expanded(Backbone.CHANNELS)
    assert own(grey).shape == (2, 3, 64, 64)


def test_frozen_norms_keep_their_statistics_during_training() -> None:
    network = build(BackboneConfig(name="test_efficientnet"), shape(64))
    before = {name: value.clone() for name, value in network.state_dict().items() if "running" in name}
    network.frozen_norms = True
    network.train()(torch.rand(4, 3, 64, 64))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())
    network.frozen_norms = False
    network.train()(torch.rand(4, 3, 64, 64))
    assert not all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


def test_freezing_keeps_the_first_layers_and_trains_the_others() -> None:
    network = build(BackboneConfig(name="test_resnet"), shape(64))
    network.freeze(0.4)
    trained = {name.split(".")[1] for name, value in network.named_parameters() if value.requires_grad}
    frozen = {name.split(".")[1] for name, value in network.named_parameters() if not value.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1", "layer2"}
    assert trained == {"layer2", "layer3", "layer4", "weight", "bias"}


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("resnet", "resnet18"),
        ("efficentnet_lite0", "efficientnet_lite0"),
        ("plian", "plain"),
        ("zzz", "timm.list_models"),
    ],
)
def test_suggests_names_for_an_unknown_network(name: str, suggestion: str) -> None:
    with pytest.raises(RecipeError, match=rf"Unknown network '{name}'\. .*{suggestion}"):
        build(BackboneConfig(name=name), shape(64))


def test_names_the_size_that_a_network_accepts_if_the_images_are_unsuitable() -> None:
    with pytest.raises(RecipeError, match=r"test_vit does not accept images of 100x100 .* data\.input=160,160,3"):
        build(BackboneConfig(name="test_vit"), shape(100))


def test_a_network_brings_the_images_and_the_normalisation_of_its_weights() -> None:
    config = BackboneConfig(name="resnet18.tv_in1k")
    assert own_input(config) == InputSpec(
        height=224, width=224, channels=3, resize=Resize.CROP, interpolation=Interpolation.BILINEAR
    )
    normalise = own_normalisation(config)
    mean, deviation = (-normalise.shift / normalise.scale).ravel(), (1 / normalise.scale).ravel()
    assert torch.allclose(mean, torch.tensor([0.485, 0.456, 0.406]))
    assert torch.allclose(deviation, torch.tensor([0.229, 0.224, 0.225]))
