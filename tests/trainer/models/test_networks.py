from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from schemas.manifest import InputSpec
from tests.support import colour_images
from trainer.data.dataset import LabelledImages
from trainer.errors import RecipeError
from trainer.models.build import build, build_network
from trainer.models.fast import FastGroup, FastNetwork
from trainer.models.layers import Normalise, OneNeuron, Shape, as_input
from trainer.models.summary import parameter_count, summary
from trainer.network_config import NETWORKS, FastConfig, PlainConfig, network_named


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("height", "width", "channels"), [(28, 28, 1), (32, 40, 3), (24, 20, 1)])
def test_a_network_gives_one_logit_a_class(name: str, height: int, width: int, channels: int) -> None:
    network = build(network_named(name), Shape(height=height, width=width, channels=channels, classes=7))
    assert network.eval()(torch.rand(3, channels, height, width)).shape == (3, 7)


@pytest.mark.parametrize("name", NETWORKS)
def test_refuses_an_image_that_is_too_small_for_the_network(name: str) -> None:
    with pytest.raises(RecipeError, match="cannot be halved"):
        build(network_named(name), Shape(height=3, width=32, channels=1, classes=2))


def test_without_a_dense_layer_the_features_go_straight_to_the_classes() -> None:
    network = build(PlainConfig(widths=(4, 8), dense=None), Shape(height=28, width=28, channels=1, classes=7))
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(8 * 7 * 7, 7)]


def test_an_inception_block_looks_through_four_windows() -> None:
    text = summary(
        build(network_named("inception"), Shape(height=28, width=28, channels=1, classes=10)),
        Shape(height=28, width=28, channels=1, classes=10),
    )
    block = [line for line in text.splitlines() if line.startswith("2.")]
    for branch in ("2.one", "2.three", "2.five", "2.pool"):
        assert any(line.startswith(branch) for line in block)


def test_the_summary_lists_every_layer_with_its_shape_and_counts_all_parameters() -> None:
    shape = Shape(height=8, width=8, channels=1, classes=10)
    network = build(network_named("plain"), shape)
    text = summary(network, shape)
    assert "32 x 8 x 8" in text
    assert "64 x 2 x 2" in text
    leaves = [module for module in network.modules() if not list(module.children())]
    assert len(text.splitlines()) == 1 + len(leaves) + 2
    assert f"{parameter_count(network):,} parameters" in text
    assert parameter_count(network) == sum(p.numel() for p in network.parameters())


def test_normalising_gives_mean_0_and_deviation_1() -> None:
    images = torch.rand(64, 3, 8, 8) * torch.tensor([0.1, 0.5, 1.0]).reshape(1, 3, 1, 1)
    normalise = Normalise(images.mean(dim=(0, 2, 3)), images.std(dim=(0, 2, 3)))
    assert torch.allclose(normalise(images).mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(normalise(images).std(dim=(0, 2, 3)), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_training_images_have_mean_0_and_deviation_1_after_the_normalisation(channels: int) -> None:
    recipe, images = colour_images.recipe(), np.asarray(colour_images.colours().train.images)[..., :channels]
    train = LabelledImages(images, np.arange(len(images)) % 3)
    data = replace(colour_images.splits(recipe), train=train, input=InputSpec(height=8, width=8, channels=channels))
    normalised = build_network(recipe, data).get_submodule("0")(as_input(torch.from_numpy(images)))
    assert torch.allclose(normalised.mean(dim=(0, 2, 3)), torch.zeros(channels), atol=1e-5)
    assert torch.allclose(normalised.std(dim=(0, 2, 3), correction=0), torch.ones(channels), atol=1e-5)


def test_whitening_gives_uncorrelated_outputs_of_equal_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.avg_pool2d(torch.rand(256, 3, 40, 40, generator=generator), 5, stride=1)
    images = (smooth - smooth.mean()) / smooth.std()
    network = build(FastConfig(whitening_stride=1), Shape(height=36, width=36, channels=3, classes=10))
    assert isinstance(network, FastNetwork)
    network.prepare(images)
    outputs = network.whitening(images)[:, :27].transpose(0, 1).reshape(27, -1)
    covariance = torch.cov(outputs)
    strong = covariance.diagonal() > 0.9  # directions with less variance than the floor stay below 1
    assert int(strong.sum()) >= 9
    assert torch.allclose(covariance[strong][:, strong], torch.eye(int(strong.sum())), atol=0.1)
    assert not network.whitening.weight.requires_grad


def test_black_borders_as_around_handwritten_digits_cause_no_extreme_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    strokes = (torch.rand(64, 1, 3, 3, generator=generator) < 0.5).float()
    images = torch.nn.functional.pad(torch.nn.functional.interpolate(strokes, scale_factor=4), (8, 8, 8, 8))
    torch.manual_seed(0)
    network = build(FastConfig(), Shape(height=28, width=28, channels=1, classes=10))
    assert isinstance(network, FastNetwork)
    network.prepare(images)
    loss = torch.nn.functional.cross_entropy(network(images), torch.arange(64) % 10)
    loss.backward()  # type: ignore[no-untyped-call]
    assert max(p.grad.abs().max() for p in network.parameters() if p.grad is not None) < 1e9


def test_a_residual_group_adds_its_input_to_its_last_convolution() -> None:
    group = FastGroup(4, 4, residual=True).eval()
    images = torch.rand(2, 4, 8, 8)
    with torch.no_grad():
        entered = group.down(images)
        expected = torch.nn.functional.gelu(entered + group.last(group.middle(entered)))
        assert torch.equal(group(images), expected)
    assert group(images).shape == (2, 4, 4, 4)


def test_convolutions_of_the_fast_network_start_as_the_identity() -> None:
    network = build(FastConfig(), Shape(height=32, width=32, channels=3, classes=10))
    features = torch.rand(2, 64, 8, 8)
    second = network.get_submodule("groups.0.middle.0")
    assert torch.equal(second(features), features)


def test_one_neuron_is_a_sigmoid_in_two_columns_with_the_binary_cross_entropy() -> None:
    logit = torch.tensor([[-2.0], [0.0], [3.0]])
    columns = OneNeuron()(logit)
    sigmoid = torch.sigmoid(logit)
    assert torch.allclose(columns.softmax(dim=1), torch.cat([1 - sigmoid, sigmoid], dim=1))
    for smoothing in (0.0, 0.1):
        labels = torch.tensor([1, 0, 1])
        targets = (labels * (1 - smoothing) + smoothing / 2).reshape(-1, 1)
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logit, targets)
        assert torch.isclose(torch.nn.functional.cross_entropy(columns, labels, label_smoothing=smoothing), expected)
