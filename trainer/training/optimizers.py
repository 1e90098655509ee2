"""The optimizers with their parameter groups, and the moving average of the weights."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.models.layers import head_name
from trainer.recipe import OptimizerConfig, OptimizerName

_FILTER_DIMENSIONS = 4
# Enough for filters; more steps bring the singular values closer to 1 and cost time (Keller Jordan's airbench).
_NEWTON_SCHULZ_STEPS = 3


def build_optimizers(
    network: nn.Module, config: OptimizerConfig, body_rate: float = 1.0
) -> list[torch.optim.Optimizer]:
    """Returns one optimizer, or for muon two: muon for the filters and sgd for the other parameters.

    Weight decay applies to matrices and filters only, because it harms biases and norms (He et al., 2019). Each group's
    `rate` is a factor on the run's learning rate; body_rate is a further factor for all layers but the last.
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
    adam = torch.optim.Adam if config.name is OptimizerName.ADAM else torch.optim.AdamW
    return [adam(groups, lr=config.learning_rate, fused=True)]


def set_learning_rate(optimizers: Sequence[torch.optim.Optimizer], learning_rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["rate"]


def _groups(parameters: Sequence[nn.Parameter], config: OptimizerConfig) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay, "rate": 1.0},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "rate": config.bias_rate},
    ]


def _sgd(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.SGD:
    nesterov = config.momentum > 0
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=nesterov, fused=True)


class FilterMuon(torch.optim.Muon):
    """PyTorch's Muon, which accepts matrices only, for filters [outputs, inputs, height, width] (Keller Jordan, 2024).

    Each filter bank is passed on as a matrix [outputs, inputs * height * width] that shares its memory. Before each
    update the bank is scaled to norm sqrt(outputs), as in airbench: batch norm makes its scale free, so an update turns
    it by the same angle early and late in a run. The order of columns does not matter to Muon, so a bank keeps its
    memory layout.
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


def _matrix(values: Tensor, bank: Tensor) -> Tensor:
    """[outputs, inputs, height, width] -> [outputs, rest] in the bank's memory order; a view if values have it too."""
    if bank.is_contiguous():
        return values.contiguous().view(len(values), -1)
    return values.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).view(len(values), -1)


def body_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Returns the trained parameters of all layers but the last."""
    head = {id(parameter) for parameter in network.get_submodule(head_name(network)).parameters()}
    return [parameter for parameter in network.parameters() if parameter.requires_grad and id(parameter) not in head]


def slow_body(groups: list[dict[str, Any]], network: nn.Module, body_rate: float) -> list[dict[str, Any]]:
    """Divides each parameter group into head and body, and multiplies the body's `rate` by body_rate."""
    if body_rate == 1:
        return groups
    body = {id(parameter) for parameter in body_parameters(network)}
    divided = []
    for group in groups:
        divided.append(group | {"params": [p for p in group["params"] if id(p) not in body]})
        slower = {"params": [p for p in group["params"] if id(p) in body], "rate": group["rate"] * body_rate}
        divided.append(group | slower)
    return [group for group in divided if group["params"]]


class MovingAverage:
    """Exponential moving average of a network's parameters and buffers (Polyak & Juditsky, 1992).

    The decay rises from 0 to its value, so that the random initial weights do not count. This class exists because
    torch's AveragedModel reads its number of updates back from the device at every step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network)
        self.updates = 0
        self._decay = decay
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]  # batch norm's

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average toward the network's present state."""
        decay = min(self._decay, self.updates / (self.updates + 9))
        averages, currents = map(list, zip(*self._floats, strict=True))
        torch._foreach_lerp_(averages, currents, 1 - decay)
        for average, current in self._counters:
            average.copy_(current)
        self.updates += 1
