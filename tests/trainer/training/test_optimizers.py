import pytest
import torch
from torch import nn

from trainer.models.build import build
from trainer.models.layers import OneNeuron, Shape, head_name
from trainer.network_config import NETWORKS, network_named
from trainer.recipe import OptimizerConfig, OptimizerName
from trainer.training.optimizers import FilterMuon, MovingAverage, body_parameters, build_optimizers, slow_body

CLASSES = 6


@pytest.mark.parametrize("name", OptimizerName)
def test_every_optimizer_lowers_the_loss_and_decays_only_matrices(name: OptimizerName) -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizers = build_optimizers(network, OptimizerConfig(name=name, learning_rate=0.05, weight_decay=0.1))
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    decayed = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert {decayed[id(p)] for p in network.parameters() if p.ndim > 1} == {0.1}
    assert {decayed[id(p)] for p in network.parameters() if p.ndim == 1} == {0.0}
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    targets = inputs.sum(dim=1, keepdim=True)
    losses = []
    for _ in range(60):
        network.zero_grad()
        loss = nn.functional.mse_loss(network(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def filters_of(layer: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in layer.parameters() if parameter.ndim == 4]


def test_with_muon_the_body_learns_slower_than_the_head() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    config = OptimizerConfig(name=OptimizerName.MUON, learning_rate=0.5, muon_rate=0.2)
    muon, rest = build_optimizers(network, config, body_rate=0.1)
    rates = {id(p): group["rate"] for group in rest.param_groups for p in group["params"]}
    assert muon.param_groups[0]["rate"] == pytest.approx(0.2 / 0.5 * 0.1)
    assert rates[id(network[2].weight)] == 1
    assert rates[id(network[0].bias)] == pytest.approx(0.1)


MEMORY_FORMATS = [torch.contiguous_format, torch.channels_last]


def one_step_of_muon(memory_format: torch.memory_format, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the update of one step, relative to its rate, and the gradient, both [8, 3, 3, 3]."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 8, 3).to(memory_format=memory_format)
    gradient = torch.randn(8, 3, 3, 3)
    layer.weight.grad = (gradient * scale).to(memory_format=memory_format)
    with torch.no_grad():
        layer.weight.mul_(8**0.5 / layer.weight.norm())
    before = layer.weight.detach().clone()
    FilterMuon(filters_of(layer), 0.1, 0.0, 1.0).step()
    return (before - layer.weight.detach()) / 0.1, gradient


@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
def test_muon_moves_filters_by_the_nearest_orthogonal_matrix_to_their_gradient(
    memory_format: torch.memory_format,
) -> None:
    update, gradient = one_step_of_muon(memory_format)
    left, _, right = torch.linalg.svd(gradient.reshape(8, -1), full_matrices=False)
    nearest, found = left @ right, update.reshape(8, -1)
    assert torch.nn.functional.cosine_similarity(found.flatten(), nearest.flatten(), dim=0) > 0.97
    assert torch.linalg.svdvals(found).min() > 0.5
    assert torch.linalg.svdvals(found).max() < 1.5


def test_muon_ignores_the_scale_of_a_gradient_and_the_memory_layout() -> None:
    update, _ = one_step_of_muon(torch.contiguous_format)
    for other in (one_step_of_muon(torch.contiguous_format, 1000.0), one_step_of_muon(torch.channels_last)):
        assert torch.allclose(other[0], update, atol=0.02)  # it computes in bf16


def test_muon_scales_filters_to_the_norm_at_which_its_rate_is_an_angle() -> None:
    layer = nn.Conv2d(3, 8, 3)
    with torch.no_grad():
        layer.weight.mul_(100)
    layer.weight.grad = torch.randn_like(layer.weight)
    FilterMuon(filters_of(layer), 1e-6, 0.6, 1.0).step()
    assert layer.weight.norm().item() == pytest.approx(8**0.5, rel=1e-3)


def test_muon_does_not_change_a_frozen_filter() -> None:
    layer = nn.Conv2d(3, 8, 3)
    before = layer.weight.detach().clone()
    FilterMuon(filters_of(layer), 0.1, 0.6, 1.0).step()
    assert torch.equal(layer.weight, before)


def test_with_muon_each_parameter_has_one_optimizer_and_filters_their_own_rate() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    config = OptimizerConfig(name=OptimizerName.MUON, learning_rate=0.5, muon_rate=0.1, bias_rate=3)
    muon, sgd = build_optimizers(network, config)
    assert isinstance(muon, FilterMuon)
    assert [group["rate"] * 0.5 for group in muon.param_groups] == pytest.approx([0.1])
    assert [[tuple(p.shape) for p in group["params"]] for group in muon.param_groups] == [[(4, 27)]]
    assert {tuple(p.shape) for group in sgd.param_groups for p in group["params"]} == {(4,), (2, 4), (2,)}
    assert [group["rate"] for group in sgd.param_groups] == [1, 3]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_is_the_layer_that_computes_the_logits(name: str) -> None:
    network = build(network_named(name), Shape(height=32, width=32, channels=3, classes=CLASSES))
    head = network.get_submodule(head_name(network))
    assert isinstance(head, nn.Linear)
    assert head.out_features == CLASSES
    body = sum(parameter.numel() for parameter in body_parameters(network))
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert body == trained - sum(parameter.numel() for parameter in head.parameters())


def test_the_head_is_found_inside_nested_modules() -> None:
    assert (
        head_name(nn.Sequential(nn.Identity(), nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), OneNeuron())) == "1.1"
    )


def test_a_slow_body_divides_each_group_and_keeps_its_settings() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": 0.1, "rate": 1.0},
        {"params": [p for p in network.parameters() if p.ndim == 1], "weight_decay": 0.0, "rate": 64.0},
    ]
    divided = slow_body(groups, network, 0.25)
    rates = {id(p): (group["rate"], group["weight_decay"]) for group in divided for p in group["params"]}
    (weight, bias), (head_weight, head_bias) = (tuple(layer.parameters()) for layer in network)
    assert [rates[id(p)] for p in (weight, bias, head_weight, head_bias)] == [
        (0.25, 0.1),
        (16.0, 0.0),
        (1.0, 0.1),
        (64.0, 0.0),
    ]
    assert slow_body(groups, network, 1.0) == groups


def test_frozen_parameters_are_not_part_of_the_body() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    network[0].weight.requires_grad_(False)
    assert [tuple(p.shape) for p in body_parameters(network)] == [(3,)]


def test_the_moving_average_starts_at_the_first_weights_and_approaches_its_decay() -> None:
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    average = MovingAverage(network, decay=0.5)
    weights, expected = [4.0, 2.0, 8.0, *[1.0] * 20], 0.0
    for i, weight in enumerate(weights):
        with torch.no_grad():
            network.state_dict()["0.weight"].fill_(weight)
            network.state_dict()["1.running_mean"].fill_(weight)
            network.state_dict()["1.num_batches_tracked"].fill_(i)
        average.update()
        decay = min(0.5, i / (i + 9))
        expected = decay * expected + (1 - decay) * weight
        state = average.network.state_dict()
        assert state["0.weight"].item() == pytest.approx(expected)
        assert state["1.running_mean"].item() == pytest.approx(expected)
        assert state["1.num_batches_tracked"] == i
    assert expected == pytest.approx(1, abs=0.1)
