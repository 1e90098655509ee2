import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainer.models.layers import OneNeuron, Shape, head_name
from trainer.models.registry import build
from trainer.network_config import NETWORKS, network_named
from trainer.recipe import OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName
from trainer.training.optimizers import FilterMuon, body_parameters, build_optimizers, learning_rate_factor, slow_body

CLASSES = 6


@pytest.mark.parametrize("name", OptimizerName)
def test_an_optimizer_lowers_the_loss_and_decays_filters_alone(name: OptimizerName) -> None:
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


def test_with_muon_as_well_the_body_learns_slower_than_the_head() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    config = OptimizerConfig(name=OptimizerName.MUON, learning_rate=0.5, muon_rate=0.2)
    muon, rest = build_optimizers(network, config, body_rate=0.1)
    rates = {id(p): group["rate"] for group in rest.param_groups for p in group["params"]}
    assert muon.param_groups[0]["rate"] == pytest.approx(0.2 / 0.5 * 0.1)
    assert rates[id(network[2].weight)] == 1
    assert rates[id(network[0].bias)] == pytest.approx(0.1)


MEMORY_FORMATS = [torch.contiguous_format, torch.channels_last]


def one_step_of_muon(memory_format: torch.memory_format, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """The filters after one step of rate 0.1, and their gradient, both [8, 3, 3, 3]."""
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


def test_muon_does_not_see_the_scale_of_a_gradient_nor_the_layout_of_memory() -> None:
    update, _ = one_step_of_muon(torch.contiguous_format)
    for other in (one_step_of_muon(torch.contiguous_format, 1000.0), one_step_of_muon(torch.channels_last)):
        assert torch.allclose(other[0], update, atol=0.02)  # it computes in bf16


def test_muon_keeps_filters_at_the_norm_at_which_its_rate_is_an_angle() -> None:
    layer = nn.Conv2d(3, 8, 3)
    with torch.no_grad():
        layer.weight.mul_(100)
    layer.weight.grad = torch.randn_like(layer.weight)
    FilterMuon(filters_of(layer), 1e-6, 0.6, 1.0).step()
    assert layer.weight.norm().item() == pytest.approx(8**0.5, rel=1e-3)


def test_muon_leaves_a_frozen_filter_as_it_is() -> None:
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


@given(progress=st.floats(0, 1), warm_up=st.floats(0, 1), name=st.sampled_from(ScheduleName))
def test_the_factor_stays_between_0_and_1(progress: float, warm_up: float, name: ScheduleName) -> None:
    assert -1e-9 <= learning_rate_factor(ScheduleConfig(name=name, warm_up=warm_up), progress) <= 1 + 1e-9


@pytest.mark.parametrize("name", [ScheduleName.COSINE, ScheduleName.TRIANGULAR])
def test_the_rate_rises_to_its_peak_at_the_end_of_the_warm_up_and_falls_to_0(name: ScheduleName) -> None:
    config = ScheduleConfig(name=name, warm_up=0.25)
    factors = [learning_rate_factor(config, i / 100) for i in range(101)]
    assert factors[0] == 0
    assert factors[25] == pytest.approx(1)
    assert factors[-1] == pytest.approx(0)
    assert factors[:26] == sorted(factors[:26])
    assert factors[25:] == sorted(factors[25:], reverse=True)


def test_one_cycle_rises_smoothly_from_a_25th_and_falls_to_0() -> None:
    config = ScheduleConfig(name=ScheduleName.ONE_CYCLE, warm_up=0.25)
    factors = [learning_rate_factor(config, i / 100) for i in range(101)]
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[25] == pytest.approx(1)
    assert factors[-1] == pytest.approx(0)
    rises = [after - before for before, after in itertools.pairwise(factors[:26])]
    assert rises[0] < rises[12] > rises[-1]


def test_a_constant_rate_is_constant() -> None:
    config = ScheduleConfig(name=ScheduleName.CONSTANT)
    assert {learning_rate_factor(config, i / 10) for i in range(11)} == {1.0}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_is_the_layer_that_gives_the_logits(name: str) -> None:
    network = build(network_named(name), Shape(height=32, width=32, channels=3, classes=CLASSES))
    head = network.get_submodule(head_name(network))
    assert isinstance(head, nn.Linear)
    assert head.out_features == CLASSES
    body = sum(parameter.numel() for parameter in body_parameters(network))
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert body == trained - sum(parameter.numel() for parameter in head.parameters())


def test_the_head_is_found_below_what_surrounds_a_network() -> None:
    assert (
        head_name(nn.Sequential(nn.Identity(), nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), OneNeuron())) == "1.1"
    )


def test_a_slow_body_divides_each_group_and_keeps_what_it_says() -> None:
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


def test_what_is_frozen_for_good_is_not_of_the_body() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    network[0].weight.requires_grad_(False)
    assert [tuple(p.shape) for p in body_parameters(network)] == [(3,)]
