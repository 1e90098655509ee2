from typing import Any

import pytest
import torch
from torch import Tensor, nn

from schemas.manifest import Explanation, InputSpec, Pooling
from tests.trainer.export.test_onnx import with_statistics
from trainer.models.activation_map import WithMap, explained
from trainer.models.build import build
from trainer.models.fast import FastNetwork
from trainer.models.layers import Normalise, OneNeuron, Shape
from trainer.models.tta import with_views
from trainer.network_config import AnyNetwork, BackboneConfig, FastConfig, InceptionConfig, PlainConfig
from trainer.recipe import Views

SIDE = 64
SPEC = InputSpec(height=SIDE, width=SIDE, channels=3)
FAST = FastConfig(widths=(6, 8), whitening_stride=1)
RESIDUAL = FastConfig(widths=(6, 8), residual=True)
RESNET = BackboneConfig(name="test_resnet")
KINDS: dict[str, AnyNetwork] = {"fast": FAST, "residual": RESIDUAL, "resnet": RESNET}


def network_of(config: AnyNetwork, *, sigmoid: bool = False) -> nn.Sequential:
    """As build_network returns it, with random weights of some size."""
    torch.manual_seed(0)
    network = build(config, Shape(height=SIDE, width=SIDE, channels=3, classes=1 if sigmoid else 4))
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
    if isinstance(network, FastNetwork):
        network.prepare(images())
    layers = [Normalise(torch.full((3,), 0.5), torch.full((3,), 0.25)), network, *([OneNeuron()] if sigmoid else [])]
    whole = nn.Sequential(*layers)
    with_statistics(whole)
    return whole.eval()


def images(count: int = 5) -> Tensor:
    """One bright spot each, at another position, over noise."""
    generator = torch.Generator().manual_seed(1)
    batch = torch.rand(count, 3, SIDE, SIDE, generator=generator) * 0.3
    for i in range(count):
        batch[i, i % 3, 8 * i : 8 * i + 16, 40 - 8 * i : 56 - 8 * i] += 0.7
    return batch


def by_hand(network: nn.Sequential, batch: Tensor, classes: Tensor) -> Tensor:
    """The maps of some classes: the sum over channels of weight times feature, one position after the other."""
    normalise: nn.Module = network[0]
    inner: Any = network[1]
    if isinstance(inner, FastNetwork):
        features, weights = inner.features(normalise(batch)), inner.head.weight * inner.logit_scale
    else:
        features, weights = inner.body.forward_features(normalise(batch)), inner.head.weight
    signs = torch.ones(len(batch))
    if len(network) > 2:  # one neuron, for the second class
        signs, classes = classes * 2 - 1, torch.zeros_like(classes)
    maps = torch.zeros(len(batch), *features.shape[2:])
    for image in range(len(batch)):
        for y in range(maps.shape[1]):
            for x in range(maps.shape[2]):
                maps[image, y, x] = signs[image] * torch.dot(weights[classes[image]], features[image, :, y, x])
    return maps


def assert_equal(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("sigmoid", [False, True], ids=["softmax", "sigmoid"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_map_is_the_weighted_sum_of_the_feature_maps(kind: str, sigmoid: bool) -> None:
    network = network_of(KINDS[kind], sigmoid=sigmoid)
    with_map, explanation = explained(network, SPEC)
    logits, maps = with_map(images())
    assert torch.allclose(logits, network(images()), rtol=1e-4, atol=1e-5)
    assert maps.shape == (5, explanation.height, explanation.width)
    assert maps.std() > 0.01 * maps.abs().max()
    assert_equal(maps, by_hand(network, images(), logits.argmax(dim=1)))


@torch.no_grad()
@pytest.mark.parametrize("views", [Views.MIRROR, Views.SHIFT])
@pytest.mark.parametrize("kind", ["fast", "resnet"])
def test_the_map_of_views_is_their_weighted_mean_with_mirrored_ones_mirrored_back(kind: str, views: Views) -> None:
    network = network_of(KINDS[kind])
    averaged = with_views(network, views)
    logits, maps = explained(averaged, SPEC)[0](images())
    assert torch.allclose(logits, averaged(images()), rtol=1e-4, atol=1e-5)
    top = logits.argmax(dim=1)
    padded = nn.functional.pad(images(), (1, 1, 1, 1), mode="reflect")
    still, moved = [images()], [padded[:, :, :-2, :-2], padded[:, :, 2:, 2:]]
    parts = [(still, 1 / 2)] if views is Views.MIRROR else [(still, 1 / 4), (moved, 1 / 8)]
    expected = [
        weight * (by_hand(network, view, top) + by_hand(network, view.flip(3), top).flip(2))
        for group, weight in parts
        for view in group
    ]
    assert_equal(maps, torch.stack(expected).sum(dim=0))


@torch.no_grad()
@pytest.mark.parametrize("views", list(Views))
@pytest.mark.parametrize("sigmoid", [False, True], ids=["softmax", "sigmoid"])
def test_with_average_pooling_the_mean_of_a_map_and_the_bias_are_the_logit(views: Views, sigmoid: bool) -> None:
    network = network_of(RESNET, sigmoid=sigmoid)
    with_map, explanation = explained(with_views(network, views), SPEC)
    assert explanation == Explanation(height=2, width=2, pooling=Pooling.AVERAGE)
    logits, maps = with_map(images())
    inner: Any = network[1]
    bias, top = inner.head.bias, logits.argmax(dim=1)
    if sigmoid:  # the logits are 0 and z; the evidence for the first class is -z
        bias, logits = torch.cat([-bias, bias]), torch.cat([-logits[:, 1:], logits[:, 1:]], dim=1)
    assert_equal(maps.mean(dim=(1, 2)) + bias[top], logits.gather(1, top[:, None])[:, 0])


@torch.no_grad()
def test_the_map_of_an_image_does_not_depend_on_its_batch() -> None:
    with_map, _ = explained(network_of(FAST), SPEC)
    _, together = with_map(images())
    for i in range(5):
        _, alone = with_map(images()[i : i + 1])
        assert torch.allclose(alone[0], together[i], atol=1e-5)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (PlainConfig(widths=(4,), dense=8), "global pooling and one linear layer"),
        (InceptionConfig(), "global pooling and one linear layer"),
        (BackboneConfig(name="convnext_atto"), "global pooling and one linear layer"),  # a norm after the pooling
        (BackboneConfig(name="mobilenetv3_small_050"), "global pooling and one linear layer"),  # a layer after it
        (FastConfig(widths=(4,) * 4), "one position"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_network_without_maps_is_left_as_it_is_with_the_reason(config: AnyNetwork, reason: str) -> None:
    network = network_of(config)
    same, explanation = explained(network, SPEC)
    assert same is network
    assert explanation.reason is not None
    assert reason in explanation.reason
    assert explanation.height is None


def test_the_pooling_is_that_of_the_network() -> None:
    assert explained(network_of(FAST), SPEC)[1].pooling is Pooling.MAX
    assert explained(network_of(RESNET), SPEC)[1].pooling is Pooling.AVERAGE


@torch.no_grad()
def test_the_map_is_brightest_where_the_evidence_is() -> None:
    """A network that measures redness: the map follows the red spot."""

    class Redness(nn.Module):
        class_weights = torch.tensor([[0.0], [5.0]])

        def features(self, batch: Tensor) -> Tensor:
            return nn.functional.avg_pool2d(batch[:, :1], 8)

        def pool(self, features: Tensor) -> Tensor:
            return features.mean(dim=(2, 3))

        def linear(self, pooled: Tensor) -> Tensor:
            return pooled @ self.class_weights.T

    network = nn.Sequential(Normalise(torch.zeros(3), torch.ones(3)), Redness()).eval()
    with_map, explanation = explained(network, SPEC)
    assert isinstance(with_map, WithMap)
    assert (explanation.height, explanation.width) == (8, 8)
    spot = torch.zeros(1, 3, SIDE, SIDE)
    spot[0, 0, 16:24, 40:48] = 1
    _, maps = with_map(spot)
    assert int(maps[0].argmax()) == 8 * 2 + 5
