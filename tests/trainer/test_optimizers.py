import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainer.optimizers import build_optimizer, learning_rate_factor
from trainer.recipe import OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName


@pytest.mark.parametrize("name", OptimizerName)
def test_an_optimizer_lowers_the_loss_and_decays_filters_alone(name: OptimizerName) -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = build_optimizer(network, OptimizerConfig(name=name, learning_rate=0.05, weight_decay=0.1))
    decayed = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {decayed[id(p)] for p in network.parameters() if p.ndim > 1} == {0.1}
    assert {decayed[id(p)] for p in network.parameters() if p.ndim == 1} == {0.0}
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    targets = inputs.sum(dim=1, keepdim=True)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(network(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


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


def test_a_constant_rate_is_constant() -> None:
    config = ScheduleConfig(name=ScheduleName.CONSTANT)
    assert {learning_rate_factor(config, i / 10) for i in range(11)} == {1.0}
