"""The optimizer, the learning rate's course over a run, and the average of the weights along it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.models.layers import head_name
from trainer.recipe import OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName

_FILTER_DIMENSIONS = 4
# Enough for filters; more steps bring the singular values closer to 1 and cost time (Keller Jordan's airbench).
_NEWTON_SCHULZ_STEPS = 3
_ONE_CYCLE_START = 1 / 25


def build_optimizers(
    network: nn.Module, config: OptimizerConfig, body_rate: float = 1.0
) -> list[torch.optim.Optimizer]:
    """One, or with muon two: muon for the filters and sgd for what is left.

    Weight decay goes to matrices and filters alone: shrinking biases and norms only hurts (He et al., 2019). Each
    group's `rate` is a factor on the run's learning rate, which the loop sets; body_rate is another one, for all but
    the last layer.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if config.name is OptimizerName.MUON:
        filters = [parameter for parameter in trained if parameter.ndim == _FILTER_DIMENSIONS]
        rest = [parameter for parameter in trained if parameter.ndim != _FILTER_DIMENSIONS]
        rate = config.muon_rate / config.learning_rate * body_rate
        muon = FilterMuon(filters, config.muon_rate, config.muon_momentum, rate)
        return [muon, _sgd(slow_body(_groups(rest, config), network, body_rate), config)]
    groups = slow_body(_groups(trained, config), network, body_rate)
    if config.name is OptimizerName.SGD:
        return [_sgd(groups, config)]
    if config.name is OptimizerName.ADAM:
        return [torch.optim.Adam(groups, lr=config.learning_rate, fused=True)]
    return [torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)]


def _groups(parameters: Sequence[nn.Parameter], config: OptimizerConfig) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay, "rate": 1.0},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "rate": config.bias_rate},
    ]


def _sgd(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.SGD:
    nesterov = config.momentum > 0
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=nesterov, fused=True)


class FilterMuon(torch.optim.Muon):
    """PyTorch's Muon, which takes matrices, on filters [outputs, inputs, height, width] (Keller Jordan, 2024).

    A filter bank is given to it as the matrix [outputs, inputs * height * width] that shares its memory, and is brought
    to norm sqrt(outputs) before each update, as airbench does: batch norm makes its scale free, and so an update turns
    it by the same angle early and late. Muon does not mind the order of columns: each memory layout is taken as it is.
    """

    def __init__(self, filters: Sequence[nn.Parameter], learning_rate: float, momentum: float, rate: float) -> None:
        self._filters = list(filters)
        self._matrices = [nn.Parameter(_matrix(bank.detach(), bank)) for bank in self._filters]
        group = {"params": self._matrices, "rate": rate}
        super().__init__([group], lr=learning_rate, weight_decay=0.0, momentum=momentum, ns_steps=_NEWTON_SCHULZ_STEPS)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for bank, matrix in zip(self._filters, self._matrices, strict=True):
            matrix.grad = None
            if bank.grad is not None:  # else it is frozen
                matrix.grad = _matrix(bank.grad, bank)
                matrix.mul_(math.sqrt(len(matrix)) / matrix.norm().clamp(min=torch.finfo(matrix.dtype).tiny))
        super().step()  # type: ignore[no-untyped-call]


def _matrix(values: Tensor, layout_of: Tensor) -> Tensor:
    """[outputs, inputs, height, width] as [outputs, rest], in the memory's order: a view where values lie like that."""
    if layout_of.is_contiguous():
        return values.contiguous().view(len(values), -1)
    return values.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).view(len(values), -1)


def learning_rate_factor(config: ScheduleConfig, progress: float) -> float:
    """Factor on the learning rate at progress 0..1 of the run: 0..1, 1 at the end of the warm-up."""
    if config.name is ScheduleName.CONSTANT:
        return 1.0
    if progress < config.warm_up:
        risen = progress / config.warm_up
        if config.name is ScheduleName.ONE_CYCLE:
            return _ONE_CYCLE_START + (1 - _ONE_CYCLE_START) * (1 - math.cos(math.pi * risen)) / 2
        return risen
    left = (1 - progress) / (1 - config.warm_up) if config.warm_up < 1 else 1.0
    return left if config.name is ScheduleName.TRIANGULAR else (1 - math.cos(math.pi * left)) / 2


State = tuple[Tensor, ...] | list[Tensor]


def moving_average(decay: float) -> Callable[[State, State, Tensor | int], None]:
    """Exponential moving average of a network's state, as AveragedModel takes it (Polyak & Juditsky, 1992).

    The decay starts low and grows to its value, so that the first epochs do not weigh the random start.
    """

    @torch.no_grad()
    def update(average: State, current: State, updates: Tensor | int) -> None:
        if average[0].is_floating_point():
            kept = min(decay, (1 + int(updates)) / (10 + int(updates)))
            torch._foreach_lerp_(average, current, 1 - kept)
        else:  # batch norm's counters
            torch._foreach_copy_(average, current)

    return update


def body_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Those of the body that are trained."""
    head = {id(parameter) for parameter in network.get_submodule(head_name(network)).parameters()}
    return [parameter for parameter in network.parameters() if parameter.requires_grad and id(parameter) not in head]


def slow_body(groups: list[dict[str, Any]], network: nn.Module, body_rate: float) -> list[dict[str, Any]]:
    """An optimizer's groups of parameters, each divided into the head's and the body's; the body's learn slower.

    `rate` is a group's factor on the learning rate; body_rate multiplies the body's.
    """
    if body_rate == 1:
        return groups
    body = {id(parameter) for parameter in body_parameters(network)}
    divided = []
    for group in groups:
        divided.append(group | {"params": [p for p in group["params"] if id(p) not in body]})
        slower = {"params": [p for p in group["params"] if id(p) in body], "rate": group["rate"] * body_rate}
        divided.append(group | slower)
    return [group for group in divided if group["params"]]
